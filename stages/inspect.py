"""inspect: what a file of your own holds, and the command to start with. Nothing is written.

    python -m stages.inspect data/raw/tickets.csv
    python -m stages.inspect data/raw/tickets.zip//tickets.csv --text body --label queue

FILE may also be a folder or a glob in quotes. Prints the columns with their types, the text and the label column, the
lengths of the texts, the labels with their rows, and rows that are odd. Unless they are given, the columns are chosen
as `prepare` chooses them (stages/rows/columns.py).
"""

import argparse
import itertools
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common import errors, files, paths, texts
from stages.common.section import read_yaml
from stages.common.texts import override, printable, shortened
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import AUTO
from stages.problems.problem import Problem, label_text
from stages.rows import columns, formats
from stages.rows.cleaning import is_blank
from stages.sources import fetched, presets, tracked
from stages.sources.archive import MEMBER_SEPARATOR

FEW_ROWS = 20
"""Rows of a class below which it is named as rare: `prepare` gives about two thirds of them to train."""

MOST_CLASSES = 20
"""Classes that are listed."""

SAFE_GLOB = re.compile(r"[\w.*?-]+")
"""A glob in one folder that a shell reads as this program does."""


def main() -> None:
    options = arguments()
    name = in_repository(options.file)
    with files.scratch() as scratch:
        home = paths.RAW_DATA if Path(name).is_relative_to(paths.RAW_DATA) else None
        path, _ = fetched.fetch_path(name, None, scratch, home)
        table, names = read(path, options)
    problem, text, label = roles(table, options, path)
    lists = ("label",) if problem.several_answers else ()
    columns.check_values(
        path, table, {column: role for column, role in ((text, "text"), (label, "label")) if column}, lists
    )
    if options.label:
        check_labels(table[label], label, problem, path)
    print(printable(f"{name}: {len(table):,} rows\n"))
    print(printable(described(table).to_string(index=False)))
    for line in (*about_texts(table, text), *about_labels(table, label, problem), *odd(table, text, label, problem)):
        print(printable(line))
    if names:
        print("odd: the first line may be a row, as one of its values comes again; data.columns names the columns")
    print("\nStart with:")
    for line in commands(name, options, text=text, label=label, problem=problem, table=table, names=names):
        print(printable(f"  {line}"))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.inspect", description="What a file of your own holds.")
    parser.add_argument("file", metavar="FILE", help="a file, a folder, a glob in quotes, or ARCHIVE//FILE")
    column = {"metavar": "COLUMN", "type": columns.plain}
    parser.add_argument("--text", **column, help="the column to classify")
    parser.add_argument("--label", **column, help="the column with the label")
    parser.add_argument("--problem", choices=PROBLEMS, help="data.problem; by default what the label column suits")
    parser.add_argument("--format", choices=(*formats.READERS, "folders"), help="data.format; by default by the ending")
    return parser.parse_args()


def in_repository(file: str) -> str:
    """FILE relative to this folder, without a leading `path:`."""
    name = file.removeprefix("path:").removeprefix("./")
    here = f"{Path.cwd()}/"
    return name.removeprefix(here)


def read(path: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, list[str] | None]:
    """All rows of a file; and where its first line is one of them, the names that its columns get by their place."""
    table = formats.read_all(path, format=options.format)
    if has_header(table) or not {options.text, options.label}.isdisjoint(table.columns):
        return table, None
    names = [f"column_{place + 1}" for place in range(table.shape[1])]
    again = formats.read_all(path, format=options.format, names=names)
    return (again, names) if list(again.columns) == names else (table, None)


def has_header(table: pd.DataFrame) -> bool:
    """Whether a column is named text or label; or no column's name is also one of its values, except where the whole
    line comes again (joined files)."""
    if any(columns.named(role, list(table)) for role in ("text", "label")):
        return True
    same = pd.DataFrame({name: table[name].map(str) == str(name) for name in table})
    return not same[~same.all(axis=1)].any(axis=None)


def roles(table: pd.DataFrame, options: argparse.Namespace, path: Path) -> tuple[Problem, str | None, str | None]:
    """The kind of problem, and the columns of text and label; None where several could be meant, or none.

    Raises:
        PipelineError: a given column does not exist.
    """
    for role in ("text", "label"):
        if (given := getattr(options, role)) is not None and given not in table:
            near = texts.nearest(given, list(table.columns))
            raise errors.PipelineError(
                f"{path.name}: expected one of its columns for --{role}, {columns.listed(list(table.columns))}, found "
                f"{given!r}" + (f"; did you mean {near!r}?" if near else "")
            )
    text = options.text or single(columns.texts_in(table, {options.label}))
    kinds = [PROBLEMS[options.problem]] if options.problem else list(PROBLEMS.values())
    for problem in kinds:
        found = [options.label] if options.label else columns.labels_in(table, {text}, problem)
        if len(found) == 1 and (options.problem or columns.could_be_label(table[found[0]], problem)):
            return problem, text, found[0]
    return kinds[0], text, options.label or single(columns.labels_in(table, {text}, kinds[0]))


def single(found: list[str]) -> str | None:
    """The only one; None if there are several, or none."""
    return found[0] if len(found) == 1 else None


def check_labels(values: pd.Series, label: str, problem: Problem, path: Path) -> None:
    """Check that at least one value of the column is a label of such a problem.

    Raises:
        PipelineError: none is.
    """
    present = values[~values.map(columns.is_missing)]
    reasons = unread(present, label, problem)
    if (reasons != "").all():
        found = reasons.iloc[0] if len(reasons) else f"expected labels in column {label!r}, found none"
        raise errors.PipelineError(f"{path.name}: {found}; name another column with --label, or another --problem")


def unread(values: pd.Series, label: str, problem: Problem) -> pd.Series:
    """Why each value of the column is no label of such a problem; empty: it is one, or none is there."""

    def reason(value: object) -> str:
        try:
            problem.read(None if columns.is_missing(value) else value, label)
        except ValueError as error:
            return str(error)
        return ""

    return values.map(reason)


def described(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each column: its type, how many values it has, how many are distinct, and the first one."""
    rows = []
    for name in table:
        present = table[name][~table[name].map(columns.is_missing)]
        rows.append(
            {
                "column": shortened(str(name), 40),
                "type": kind_of(present),
                "filled": len(present),
                "distinct": present.map(str).nunique(),
                "first": shortened(str(present.iloc[0]), 50) if len(present) else "",
            }
        )
    return pd.DataFrame(rows)


def kind_of(values: pd.Series) -> str:
    """What a column holds, as one word."""
    if values.empty:
        return "empty"
    for kind, name in ((list, "lists"), (dict, "objects"), (bool, "booleans")):
        if values.map(lambda value, kind=kind: isinstance(value, kind)).all():
            return name
    numbers = pd.to_numeric(values.map(str), errors="coerce")
    if numbers.isna().any():
        return "text"
    return "integers" if (numbers % 1 == 0).all() else "numbers"


def about_texts(table: pd.DataFrame, text: str | None) -> Iterator[str]:
    """Which column the text is, and how long texts are."""
    if text is None:
        found = columns.texts_in(table, set())
        yield f"\ntext: not clear ({' or '.join(map(str, found)) or 'no column'}); add --text COLUMN"
        return
    words = table[text].map(texts.clean).map(texts.words)
    least, middle, most, longest = (int(words.quantile(share, "nearest")) for share in (0.05, 0.5, 0.95, 1))
    yield f"\ntext: {text!r}; words: 5 % {least:,}, median {middle:,}, 95 % {most:,}, longest {longest:,}"


def about_labels(table: pd.DataFrame, label: str | None, problem: Problem) -> Iterator[str]:
    """Which column the label is, and its values."""
    if label is None:
        found = dict.fromkeys(name for kind in PROBLEMS.values() for name in columns.labels_in(table, set(), kind))
        yield f"label: not clear ({' or '.join(map(str, found)) or 'no column'}); add --label COLUMN"
        return
    values = labels(table[unread(table[label], label, problem) == ""], label)
    if problem.numeric:
        low, middle, high = (values.astype(float).quantile(share) for share in (0, 0.5, 1))
        yield f"label: {label!r} ({problem.name}); lowest {low:g}, median {middle:g}, highest {high:g}"
        return
    counts = values.value_counts()
    shown = ", ".join(f"{shortened(name, 40)} {rows:,}" for name, rows in counts[:MOST_CLASSES].items())
    more = f", and {len(counts) - MOST_CLASSES:,} more" if len(counts) > MOST_CLASSES else ""
    yield f"label: {label!r} ({problem.name}); {len(counts):,} distinct: {shown}{more}"


def labels(table: pd.DataFrame, label: str) -> pd.Series:
    """Every label that is there, as text; a row with several of them has several."""
    present = table[label][~table[label].map(columns.is_missing)]
    return present.explode().dropna().map(label_text)


def odd(table: pd.DataFrame, text: str | None, label: str | None, problem: Problem) -> Iterator[str]:
    """What is odd about the rows, a line each; rows count from 1."""
    for name in table:
        if len(str(name).split()) > 5 or pd.notna(pd.to_numeric(str(name), errors="coerce")):
            yield f"odd: {shortened(str(name), 40)!r} as a column's name; if the file has no header: data.columns=[…]"
            break
    if text is not None:
        cleaned = table[text].map(texts.clean)
        keys = cleaned.str.casefold()
        yield from counted(cleaned.map(is_blank), "without text, which are dropped")
        yield from counted(keys.duplicated() & (keys != ""), "whose text is in an earlier row, which are dropped")
        if label is not None:
            other = table[label].map(str).groupby(keys).transform("nunique") > 1
            settling = problem.settling if problem.numeric else f"{problem.settling}, or are left out"
            yield from counted(other & (keys != ""), f"whose text has another label elsewhere; such texts {settling}")
        yield from counted(cleaned.str.match('".*"$'), "with the text in quotes", share=0.5)
        yield from counted(cleaned.str.contains("\ufffd"), "with characters of another encoding")
    if label is not None:
        missing = table[label].map(columns.is_missing)
        if text is not None:
            missing &= ~table[text].map(columns.is_missing)
        yield from counted(missing, "without a label, at which prepare stops: label or remove them")
        other = unread(table[label], label, problem) != ""
        yield from counted(other, f"with what is no {problem.noun}, at which prepare stops: correct or remove them")
        counts = pd.Series(dtype=int) if problem.numeric else labels(table, label).value_counts()
        if rare := texts.rarest(counts, FEW_ROWS):
            yield f"warning: fewer than {FEW_ROWS} rows of {rare}; add rows or remove those"


def counted(rows: pd.Series, what: str, *, share: float = 0.0) -> Iterator[str]:
    """How many rows are odd, and the first ones; nothing if it is at most this share of them."""
    if rows.sum() > share * len(rows):
        first = ", ".join(str(number + 1) for number in rows.to_numpy().nonzero()[0][:3])
        yield f"odd: {rows.sum():,} rows {what} (row {first}{', …' if rows.sum() > 3 else ''})"


def commands(
    name: str,
    options: argparse.Namespace,
    *,
    text: str | None,
    label: str | None,
    problem: Problem,
    table: pd.DataFrame,
    names: list[str] | None,
) -> Iterator[str]:
    """What to type: the file into the repository and under Git or DVC, then the run."""
    where, (outer, member) = fetched.local(name), fetched.split(name)
    if not where.is_relative_to(paths.RAW_DATA):
        there = free(paths.RAW_DATA / (where if where.name not in ("", "..") else where.resolve()).name)
        yield copying(where, outer, there)
        name = MEMBER_SEPARATOR.join(part for part in (str(there / outer.relative_to(where)), member) if part)
    elif tracking := tracked.command(outer):
        yield tracking
    settings = {"data.source": f"path:{name}", "data.text": text or "COLUMN", "data.label": label or "COLUMN"}
    suited = problem.without | {
        "data.problem": problem.name,
        "data.slices": [],
        "data.columns": names,
        "data.format": options.format,
        "encode.template": template(text, label, problem, table),
    }
    before = of_dataset(paths.PARAMS, problem)
    if {*(before["data.slices"] or [])} <= {*table}:
        suited["data.slices"] = before["data.slices"]
    for key, was in before.items():
        if key not in settings and suited.get(key) != was:
            settings[key] = suited.get(key)
    yield " ".join(["dvc exp run", *(override(key, value) for key, value in settings.items())])


def free(path: Path) -> Path:
    """The path, or where something is there, one like it: tickets-2.csv."""
    name, dot, ending = path.name.partition(".")
    tried = (path.with_name(f"{name}-{number}{dot}{ending}") if number > 1 else path for number in itertools.count(1))
    return next(one for one in tried if not files.kind(one) and not tracked.is_added(one))


def copying(where: Path, matched: Path, there: Path) -> str:
    """The command that copies a file or a folder, or what a glob matches in it, and tracks the copy."""
    here, target = shlex.quote(str(where)), shlex.quote(str(there))
    if where == matched:
        tool = tracked.tool(files.members(where) if where.is_dir() else [where])
        return f"cp -rL {here} {target} && {tool} add {target}"
    pattern = str(matched.relative_to(where))
    tool = tracked.tool(path for path in where.glob(pattern) if path.is_file())
    if SAFE_GLOB.fullmatch(pattern):
        return f"mkdir -p {target} && cp -L {here}/{pattern} {target}/ && {tool} add {target}"
    return f"mkdir -p {target}  # copy the files there, each in its folder, then: {tool} add {target}"


def of_dataset(path: Path, problem: Problem) -> dict[str, Any]:
    """What params.yaml says of a dataset, by key: `dvc exp run -S` leaves there what an earlier one needed. Where it
    lacks a section or a key, the kind of problem is the default one, and the rest null.

    Args:
        problem: of the new one; a value that it has no use for is among them, unless it is the allowed one or `auto`.
    """
    keys = [
        "data.problem",
        "data.slices",
        *(f"{section}.{key}" for section, keys in presets.KEYS.items() for key in keys),
    ]
    found = dict.fromkeys(keys) | {"data.problem": next(iter(PROBLEMS))}
    with suppress(OSError, ValueError, TypeError, LookupError):
        values = read_yaml(path.read_text(encoding="utf-8"))
        given = {key: reduce(getitem, key.split("."), values) for key in dict.fromkeys([*keys, *problem.without])}
        found |= {
            key: value for key, value in given.items() if key in keys or value not in (problem.without[key], AUTO)
        }
    return found


def template(text: str | None, label: str | None, problem: Problem, table: pd.DataFrame) -> str | None:
    """A question whose answer is the name of a class, made of the columns' names; None: labels are no words, or the
    names say nothing."""
    if text is None or label is None or problem.numeric or problem.several_answers or label.lower() == "label":
        return None
    if kind_of(labels(table, label)) != "text" or not label.replace("_", "").isalpha():
        return None
    asked, given = (name.replace("_", " ").strip().capitalize() for name in (label, text))
    return f"{given}: {{text}}\n{asked}:" if "{" not in given and "}" not in given else None


if __name__ == "__main__":
    errors.run(main)
