"""What is done to rows before they are split: labels become classes, texts are cleaned, duplicates are dropped.

Every function counts the rows that it drops, by reason, in its argument `dropped`.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stages.common import progress, texts
from stages.common.errors import PipelineError
from stages.problems.problem import Problem, label_text
from stages.rows.columns import in_one_piece
from stages.rows.params import Bound

INVISIBLE = {"Cc", "Cf", "Zs"}
"""Unicode's categories of control characters (NUL), format characters (zero-width ones) and spaces."""

AT_ONCE = 10_000
"""Values of a column that are Python objects at a time."""

NO_WORD = {code: " " for code in range(128) if not re.match(r"\w", chr(code))}
"""ASCII characters that are no part of a word: text of ASCII alone is split three times as fast without a pattern."""

MARKS = "".join(chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M"))
"""The combining marks of the Basic Multilingual Plane, such as the vowel signs of Hindi and Thai. With those beyond it,
of rare scripts, finding the words of a text that is not ASCII takes nearly twice as long."""

WORD = re.compile(rf"\w+(?:[{MARKS}]+\w*)*")
"""A word: letters and digits, with the marks that follow them."""


def classify(rows: pd.DataFrame, classes: dict[str, str | float | list[Bound]], dropped: Counter) -> pd.DataFrame:
    """Turn each label into the class that has its value, or whose [above, below] contains it; drop rows in no class.

    Intervals are for numbers: if no label is a number, each label stays a class of its own.

    Raises:
        PipelineError: the classes are intervals, and some labels are numbers, but not all are finite numbers; or no
            label is of a class.
    """
    names = pd.Series(pd.NA, index=rows.index, dtype="string")
    if not all(isinstance(value, list) for value in classes.values()):
        for name, value in classes.items():
            names[rows["label"] == label_text(value)] = name
        check_values(classes, rows["label"], names)
    else:
        numbers = pd.to_numeric(rows["label"], errors="coerce")
        if numbers.isna().all():
            return rows
        odd = rows[~np.isfinite(numbers)]
        if len(odd):
            raise PipelineError(
                f"data.classes: expected finite numbers as labels, found {odd['label'].iloc[0]!r} in row "
                f"{odd['row'].iloc[0]}"
            )
        for name, (low, high) in classes.items():
            inside = (numbers > (-math.inf if low is None else low)) & (numbers < (math.inf if high is None else high))
            names[inside] = name
    dropped["in_no_class"] += int(names.isna().sum())
    return rows.assign(label=names).dropna(subset="label")


def check_values(classes: dict[str, str | float], labels: pd.Series, names: pd.Series) -> None:
    """Name the classes that no label has, with the labels that are in no class.

    Raises:
        PipelineError: no label is of any class.
    """
    absent = {name: value for name, value in classes.items() if not (names == name).any()}
    other = labels[names.isna()].value_counts()
    if absent and len(other):
        wanted = ", ".join(f"{label_text(value)!r} ({name})" for name, value in absent.items())
        found = ", ".join(f"{label!r} ({rows:,} rows)" for label, rows in other.items())
        line = f"data.classes: expected labels with the value {wanted}, found {texts.shortened(found, 300)}"
        if len(absent) == len(classes):
            raise PipelineError(f"{line}; correct data.classes, or null takes every label as a class")
        progress.say(f"warning: {line}")


def clean_rows(
    rows: pd.DataFrame,
    problem: Problem,
    dropped: Counter,
    *,
    place: str = "",
    spread: Callable[..., Iterator[Any]] = map,
) -> pd.DataFrame:
    """Clean the texts; drop blank texts and duplicates (ignoring case). Where labels of a text disagree, its rows are
    printed, and `Problem.settled` says which label it keeps, if any.

    Args:
        place: what the rows are of, for this line: " of train".
        spread: see `stages.compute.engine.mapping`.
    """
    blank = pd.Series(False, index=rows.index)
    for name in rows.columns.intersection(texts.COLUMNS):
        rows = rows.assign(**{name: mapped(rows[name], texts.clean, spread)})
        rows = rows.assign(**{name: in_one_piece(rows[name])})
        blank |= mapped(rows[name], is_blank, spread).astype(bool)
    dropped["blank"] += int(blank.sum())
    rows = rows[~blank]

    alike = with_shared_text(rows)
    same_text = texts_ignoring_case(alike)
    labels = problem.settled(alike["label"], same_text)
    warn_of_several_labels(alike, labels.notna().groupby(same_text).transform("any"), problem, place)
    dropped["conflicting_labels"] += int(labels.isna().sum())
    labels = labels.dropna()
    repeated = same_text[labels.index].duplicated()
    dropped["duplicate"] += int(repeated.sum())
    kept = labels[~repeated]
    rows = rows.drop(index=alike.index.difference(kept.index))
    return rows.assign(label=kept.combine_first(rows["label"])) if len(kept) else rows


def warn_of_several_labels(rows: pd.DataFrame, settled: pd.Series, problem: Problem, place: str) -> None:
    """Print the numbers of the rows whose text has another label elsewhere.

    Args:
        settled: whether each row's text keeps a label, (rows,) bool; place: see `clean_rows`.
    """
    several = several_labels(rows, texts_ignoring_case(rows))
    for some, done in ((rows[several & settled], problem.settling), (rows[several & ~settled], "are left out")):
        if len(some):
            named = "row " + some["row"].astype(str)
            progress.say(
                f"warning: texts{place} whose rows have different labels {done}, {contradictions(some, named)}"
            )


def warn_of_contradictions_between(tables: dict[str, pd.DataFrame]) -> None:
    """Print the numbers of the rows whose text has another label in another ready split, where it may be kept."""
    rows = with_shared_text(pd.concat([rows.assign(split=name) for name, rows in tables.items()], ignore_index=True))
    if several_labels(rows, texts_ignoring_case(rows)).any():
        named = "row " + rows["row"].astype(str) + " of " + rows["split"]
        progress.say(
            f"warning: texts with another label in another split stay in one of them, {contradictions(rows, named)}"
        )


def with_shared_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose text others may have too, ignoring case: those that share its hash, and so all that share it."""
    return rows[mapped(texts.joined(rows), lambda text: hash(text.casefold())).duplicated(keep=False)]


def texts_ignoring_case(rows: pd.DataFrame) -> pd.Series:
    """What rows of the same text have in common."""
    return texts.joined(rows).str.casefold()


def several_labels(rows: pd.DataFrame, same_text: pd.Series) -> pd.Series:
    """Whether rows of the same text have another label, (rows,) bool."""
    return rows["label"].groupby(same_text).transform("nunique") > 1


def contradictions(rows: pd.DataFrame, named: pd.Series) -> str:
    """How many texts have different labels, and the names and labels of their rows.

    Args:
        named: what each row is called.
    """
    same_text = texts_ignoring_case(rows)
    odd = several_labels(rows, same_text)
    labelled = named[odd] + " (" + rows["label"][odd].astype(str) + ")"
    by_text = labelled.groupby(same_text[odd], sort=False).agg(" and ".join)
    return f"{len(by_text):,} in all; correct them: {texts.shortened('; '.join(by_text), 300)}"


def is_blank(text: str) -> bool:
    """Whether `text` has no visible character."""
    return all(unicodedata.category(character) in INVISIBLE for character in text)


def plain(text: str) -> str:
    """The text without case and punctuation; a text of emoji alone is kept."""
    folded = text.casefold()
    words = folded.translate(NO_WORD).split() if folded.isascii() else WORD.findall(folded)
    return " ".join(words) or text


def mapped(values: pd.Series, function: Callable[[Any], Any], spread: Callable[..., Iterator[Any]] = map) -> pd.Series:
    """`function` of each value. Python's objects take many times the memory of a column, so few are made at once.

    Args:
        spread: see `stages.compute.engine.mapping`.
    """
    some = (values.iloc[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
    parts = list(spread(partial(of_each, function), some))
    return pd.concat(parts) if parts else values.map(function)


def of_each(function: Callable[[Any], Any], values: pd.Series) -> pd.Series:
    """`function` of each value."""
    return values.map(function)
