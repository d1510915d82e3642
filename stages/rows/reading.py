"""From files to labelled rows, each with its number in its source.

A table of rows is a pandas data frame with the columns `row` (the number in its source, from 1), `text`, for pairs
`text_pair`, and `label` (see stages/problems/problem.py); with `data.slices` also `slices`, a dictionary of the values
in these columns.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common import progress, texts
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.rows import columns, formats
from stages.rows.cleaning import mapped
from stages.rows.params import Data

SAMPLE = 100_000
"""Rows, at most, by which columns are chosen: spread over all, as files may be sorted by label."""


def with_columns(path: Path, data: Data) -> Data:
    """`data` with the columns of a file or folder where it names no text or label, by `SAMPLE` of its rows; what was
    chosen is printed.

    Raises:
        PipelineError: several columns could be meant, or none, or the file cannot be read.
    """
    if data.text is not None and data.label is not None:
        return data
    sample = formats.read_all(path, format=data.format, names=data.columns, most=SAMPLE)
    chosen = columns.choose(sample, data, path)
    named = ", ".join(f"data.{role}: {column!r}" for role, column in chosen.items())
    progress.say(f"prepare: {path.name}: {named} (chosen)")
    return data.model_copy(update=chosen)


def read(path: Path, data: Data, dropped: Counter) -> pd.DataFrame:
    """The rows of a file or folder, with labels of the kind that `data.problem` has.

    Rows without text and label, as spreadsheets leave them at the end, are left out, and counted as blank.

    Raises:
        PipelineError: the file cannot be read as `data` says, or a row has no label, or one of another kind.
    """
    # slices first: of a column that is wanted twice, the other role decides which values it may hold
    wanted = {"slices": data.slices, "text": data.text, "text_pair": data.text_pair, "label": data.label}
    wanted = {role: column for role, column in wanted.items() if column}
    lists = ("label",) if PROBLEMS[data.problem].several_answers else ()
    rows = formats.read(path, wanted=wanted, format=data.format, names=data.columns, lists=lists)
    rows.insert(0, "row", range(1, len(rows) + 1))
    if (empty := is_empty(rows)).any():
        dropped["blank"] += int(empty.sum())
        rows = rows[~empty].reset_index(drop=True)
    rows["label"] = read_labels(rows, path, data)
    return rows


def is_empty(rows: pd.DataFrame) -> pd.Series:
    """Whether a row has neither text nor label."""

    def is_missing(value: object) -> bool:
        cells = value.values() if isinstance(value, dict) else [value]
        return all(map(columns.is_missing, cells))

    empty = mapped(rows["label"], is_missing).astype(bool)
    for name in rows.columns.intersection(texts.COLUMNS):
        empty[empty] = rows[name][empty].map(is_missing).astype(bool)
    return empty


def read_labels(rows: pd.DataFrame, path: Path, data: Data) -> pd.Series:
    """Each row's label.

    Raises:
        PipelineError: a row has no label, or one of another kind.
    """
    numbers = iter(rows["row"])

    def read(value: Any) -> str | float | None:
        row = next(numbers)
        try:
            return PROBLEMS[data.problem].read(value, data.label)
        except ValueError as error:
            raise PipelineError(f"{path.name}: {error} in row {row}; correct it, or remove the row") from None

    labels = mapped(rows["label"], read)
    if (missing := labels.isna()).any():
        raise PipelineError(
            f"{path.name}: expected a label in every row, found {missing.sum()} without one, the first in row "
            f"{rows['row'][missing].iloc[0]} of column {data.label!r}; label them or remove them"
        )
    return labels
