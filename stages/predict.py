"""predict: classify new texts with the tuned model.

    python -m stages.predict "A warm, funny and wise film." "Dull."
    cat texts.txt | python -m stages.predict                              one text per line
    python -m stages.predict --input reviews.csv --output answers.csv     or .tsv, .jsonl, .parquet
    python -m stages.predict --input mails.csv --text body                the column that has the texts
    python -m stages.predict --compare "Not bad at all."                  the untouched model's answer beside it

The texts of a file are in the column that the model was trained on, or else in the only column of texts. All columns
of the file are carried through; the answers follow them, with `predicted_` before a name that the file has already. The
two texts of a pair are separated by a TAB; in a file, each has its own column, as in training.

Runs the whole model on the raw text, without stored states. Reads models/base, models/adapter and
models/abstention.json, whose thresholds say where to abstain from an answer; while another model is being made, the
last one that was evaluated, from DVC's cache.
"""

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from stages.adapters.run import Run
from stages.backbone import base
from stages.common import errors, files
from stages.common.texts import as_inputs, clean, nearest, printable, valid
from stages.rows import formats
from stages.serving import evaluated
from stages.serving.answers import BATCH_SIZE, Classifier

LINE_BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""All that some reader of lines takes for the end of one."""

STREAMED = "csv"
"""The format of a table that has no file name; its delimiter is looked for."""


def main() -> None:
    options = parse_arguments()
    with evaluated.model() as model:
        base.quiet_transformers()
        table, roles = read_texts(options, Run.load(model.adapter).columns)
        inputs = as_inputs(pd.DataFrame({role: table[column].map(clean) for role, column in roles.items()}))
        tuned = Classifier.tuned(model, batch_size=options.batch_size)
        table = joined(table, tuned.answers(inputs))
        if options.compare:
            untouched = Classifier.untouched(model, batch_size=options.batch_size)
            table = joined(table, untouched.answers(inputs).add_prefix("untouched_"))
    write(table, options.output)


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Classify texts with the tuned model."
    )
    parser.add_argument("texts", nargs="*", help="texts to classify; default: standard input, one per line")
    parser.add_argument(
        "--input",
        type=Path,
        help="a .csv, .tsv, .jsonl or .parquet file with a column of texts; or a stream, like - for standard input: "
        "a text a line, or with --text a table",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of texts (default: as in training, or else the only one)"
    )
    parser.add_argument("--output", type=Path, help="a .csv, .tsv, .jsonl or .parquet file; none: standard output")
    parser.add_argument("--compare", action="store_true", help="show the untouched model's answers too")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="texts at once (default: %(default)s)")
    options = parser.parse_args()
    if options.texts and options.input:
        parser.error("expected texts or --input, found both")
    if options.text and not options.input:
        parser.error("--text: expected --input FILE with it, which has that column")
    if options.batch_size < 1:
        parser.error(f"--batch-size: expected 1 or more, found {options.batch_size}")
    if options.input == Path("-"):
        options.input = Path("/dev/stdin")
    if options.input:
        files.readable(options.input)
    if options.output:
        options.output = files.destination("--output", options.output, endings=WRITERS, read=options.input)
    return options


def read_texts(options: argparse.Namespace, trained: dict[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table, and its column for `text`, and for pairs `text_pair`; `trained` gives these columns in training.

    Raises:
        PipelineError: there are no texts, the file cannot be read, or pairs are expected and an argument is not a pair.
    """
    streamed = options.input is not None and files.is_stream(options.input)
    if options.input is None or (streamed and not options.text):
        given = options.texts or lines(options.input)
        if not any(map(str.strip, given)):
            raise errors.PipelineError("expected texts as arguments, on standard input or in --input FILE, found none")
        rows = [text.split("\t") if len(trained) > 1 else [text] for text in given]
        if odd := [text for text, row in zip(given, rows, strict=True) if len(row) != len(trained)]:
            raise errors.PipelineError(f"expected pairs of texts with a TAB between them, found {odd[0]!r}")
        return pd.DataFrame(rows, columns=list(trained), dtype=object).map(valid), {role: role for role in trained}
    table = formats.read_table(options.input, format=STREAMED if streamed else None)
    roles = text_columns(table, trained, named=options.text, file=options.input)
    formats.check_values(options.input, table, {column: role for role, column in roles.items()})
    return table.map(lambda value: valid(value) if isinstance(value, str) else value), roles


def lines(stream: Path | None) -> list[str]:
    """The lines of a stream; None: of standard input."""
    text = stream.read_text(errors="surrogateescape") if stream else sys.stdin.read()
    return text.removesuffix("\n").split("\n")


def text_columns(table: pd.DataFrame, trained: dict[str, str], *, named: str | None, file: Path) -> dict[str, str]:
    """The column of a file for each of the columns `trained`: `named`, or the same, or the only one of texts.

    Raises:
        PipelineError: there is no such column, or more than one.
    """
    if named and len(trained) > 1:
        raise errors.PipelineError(
            f"--text: expected no column for a model of pairs, whose texts are in {' and '.join(trained.values())}, "
            f"found {named}"
        )
    roles = {"text": named} if named else trained
    absent = [column for column in roles.values() if column not in table]
    if not absent:
        return roles
    if not named and len(roles) == 1 and len(only := [name for name in table if of_texts(table[name])]) == 1:
        return {"text": only[0]}
    found = formats.listed(list(table.columns))
    if named:
        near = nearest(named, list(table.columns))
        raise errors.PipelineError(
            f"{file.name}: expected a column {named!r} (--text), found {found}"
            + (f"; did you mean {near!r}?" if near else "; name one of these")
        )
    raise errors.PipelineError(
        f"{file.name}: expected the column {' and '.join(map(repr, absent))} of the training, or else one column of "
        f"texts, found {found}; " + ("rename the columns" if len(roles) > 1 else "name the column with --text")
    )


def of_texts(column: pd.Series) -> bool:
    """Whether the values of a column are texts, and not numbers written as texts."""
    values = [value for value in column if value not in (None, "")]
    written = all(isinstance(value, str) for value in values)
    return written and bool(pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").isna().any())


def joined(table: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
    """The table with the answers beside it; an answer's name that the table has already gets `predicted_` before it."""
    for name in answered:
        column = name
        while column in table:
            column = f"predicted_{column}"
        table = table.assign(**{column: answered[name]})
    return table


def write(table: pd.DataFrame, path: Path | None) -> None:
    """Write the table to a file by its extension, or to standard output as tab-separated values, each row on a line.

    Raises:
        PipelineError: the file's format cannot hold the values of a column that is carried through.
    """
    if path is None:
        on_a_line = table.map(lambda value: LINE_BREAKS.sub(" ", value) if isinstance(value, str) else value)
        content = on_a_line.to_csv(sep="\t", index=False, float_format="%.4f")
        print(printable(content) if sys.stdout.isatty() else content, end="")
        return
    try:
        content = WRITERS[path.suffix](table)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.PipelineError(
            f"{path.name}: expected columns that such a file can hold, found: {' '.join(str(error).split())}; "
            "choose another ending, or leave the column out"
        ) from None
    files.write_bytes(path, content)


def as_csv(table: pd.DataFrame, delimiter: str = ",") -> bytes:
    """The table as text; all fields are quoted if one holds a carriage return, which the csv module leaves bare."""
    bare = table.map(lambda value: isinstance(value, str) and "\r" in value).any(axis=None)
    quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    return table.to_csv(sep=delimiter, index=False, quoting=quoting).encode()


def as_parquet(table: pd.DataFrame) -> bytes:
    """The table as a Parquet file."""
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    return content.getvalue()


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    ".csv": as_csv,
    ".tsv": partial(as_csv, delimiter="\t"),
    ".jsonl": lambda table: table.to_json(orient="records", lines=True, force_ascii=False, date_format="iso").encode(),
    ".parquet": as_parquet,
}
"""A table as the content of a file, by its extension."""


if __name__ == "__main__":
    errors.run(main)
