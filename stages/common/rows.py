"""Labelled rows: from a file of a named format to clean, distinct texts in three splits that share nothing.

A table is a pandas data frame with the columns `row` (its number in the source, from 1), `text` and `label`. Every
function that drops rows counts them by reason in the `dropped` counter it is given.
"""

import csv
import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from stages.common.errors import PipelineError
from stages.common.near import near_earlier
from stages.common.params import Bound, Data, Limit
from stages.common.paths import SPLITS


def read(path: Path, data: Data) -> pd.DataFrame:
    """The rows of a tsv, csv or jsonl file, every value as text except in jsonl.

    Raises:
        PipelineError: the file is empty, is not UTF-8, is not of the format, or lacks a column.
    """
    if not path.stat().st_size:
        raise PipelineError(f"{path.name}: expected labelled rows, found an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with too many fields would lose some
            table = parse(path, data)
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path.name}: expected UTF-8 text, found byte {error.object[error.start]:#04x} at {error.start}; "
            "convert the file to UTF-8"
        ) from None
    except (ValueError, pd.errors.ParserWarning) as error:
        raise PipelineError(f"{path.name}: expected {data.format}, found: {' '.join(str(error).split())}") from None
    for role, column in (("text", data.text), ("label", data.label)):
        if column not in table.columns:
            raise PipelineError(
                f"{path.name}: expected a column {column!r} (data.{role}), found {', '.join(map(str, table.columns))}"
            )
    rows = pd.DataFrame({"row": range(1, len(table) + 1), "text": table[data.text], "label": table[data.label]})
    unlabelled = rows[
        rows["label"].isna() | rows["label"].astype(str).str.strip().str.lower().isin(["", "nan", "null"])
    ]
    if len(unlabelled):
        raise PipelineError(
            f"{path.name}: expected a label in every row, found {len(unlabelled)} without one, the first in row "
            f"{unlabelled['row'].iloc[0]} of column {data.label!r}; label them or take them out"
        )
    return rows


def parse(path: Path, data: Data) -> pd.DataFrame:
    """The file as pandas reads its format."""
    if data.format == "jsonl":
        return pd.read_json(path, lines=True, dtype=False, convert_dates=False)
    return pd.read_csv(
        path,
        sep="\t" if data.format == "tsv" else ",",
        quoting=csv.QUOTE_NONE if data.format == "tsv" else csv.QUOTE_MINIMAL,
        names=data.columns,
        header=None if data.columns else 0,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        encoding="utf-8",
    )


def bin_labels(rows: pd.DataFrame, bins: dict[str, list[Bound]], dropped: Counter) -> pd.DataFrame:
    """Turn numeric labels into the classes whose [above, below] holds them; rows in no bin are dropped.

    Raises:
        PipelineError: a label is not a finite number.
    """
    numbers = pd.to_numeric(rows["label"], errors="coerce")
    odd = rows[~np.isfinite(numbers)]
    if len(odd):
        raise PipelineError(
            f"data.bins: expected finite numbers as labels, found {odd['label'].iloc[0]!r} in row {odd['row'].iloc[0]}"
        )
    classes = pd.Series(pd.NA, index=rows.index, dtype="string")
    for name, (low, high) in bins.items():
        inside = (numbers > (-math.inf if low is None else low)) & (numbers < (math.inf if high is None else high))
        classes[inside] = name
    dropped["outside_bins"] += int(classes.isna().sum())
    return rows.assign(label=classes).dropna(subset="label")


def clean(text: str) -> str:
    """`text` with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def clean_rows(rows: pd.DataFrame, dropped: Counter) -> pd.DataFrame:
    """Clean the texts; drop blank ones and repetitions (in any case), and all of a text whose labels disagree."""
    rows = rows.assign(text=rows["text"].fillna("").astype(str).map(clean))
    blank = rows["text"] == ""
    dropped["blank"] += int(blank.sum())
    rows = rows[~blank]

    same_text = rows["text"].str.casefold()
    conflicting = rows["label"].groupby(same_text).transform("nunique") > 1
    dropped["conflicting_labels"] += int(conflicting.sum())
    repeated = same_text.duplicated() & ~conflicting
    dropped["duplicate"] += int(repeated.sum())
    return rows[~conflicting & ~repeated]


def split(rows: pd.DataFrame, data: Data) -> dict[str, pd.DataFrame]:
    """Cut the rows into train, validation and test, each in an order whose every prefix is stratified.

    Raises:
        PipelineError: there are fewer than two classes, or a class has fewer rows than there are splits.
    """
    counts = rows["label"].value_counts()
    if len(counts) < 2:
        raise PipelineError(f"expected at least two classes, found {', '.join(counts.index) or 'no usable row'}")
    if counts.min() < len(SPLITS):
        raise PipelineError(
            f"class {counts.idxmin()!r}: expected at least {len(SPLITS)} rows, one for each split, "
            f"found {counts.min()}; add rows or merge the class into another"
        )
    rows = rows.iloc[stratified_order(rows["label"], data.seed)]
    test = round(len(rows) * data.split.test)
    validation = test + round(len(rows) * data.split.validation)
    return {"train": rows[validation:], "validation": rows[test:validation], "test": rows[:test]}


def stratified_order(labels: pd.Series, seed: int) -> np.ndarray:
    """A shuffled order of the rows in which every stretch holds the classes in proportion, to within one row each.

    Each class is shuffled, then its rows are spread evenly over [0, 1); sorting by that place interleaves the classes.
    So a split is a slice, a limit is a prefix, and a smaller limit is a subset of a larger one.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    within = labels.iloc[shuffled].groupby(labels.iloc[shuffled])
    place = (within.cumcount() + 0.5) / within.transform("size")
    return shuffled[np.argsort(place.to_numpy(), kind="stable")]


def separate(splits: dict[str, pd.DataFrame], threshold: float, dropped: Counter) -> dict[str, pd.DataFrame]:
    """Drop from train what is nearly a validation or test text, and from validation what is nearly a test text."""
    groups = list(reversed(SPLITS))
    sizes = [len(splits[name]) for name in groups]
    texts = np.concatenate([splits[name]["text"].to_numpy(dtype=object) for name in groups])
    near = near_earlier(texts, np.repeat(range(len(groups)), sizes), threshold)
    dropped["near_duplicate_across_splits"] += int(near.sum())
    parts = dict(zip(groups, np.split(near, np.cumsum(sizes)[:-1]), strict=True))
    return {name: splits[name][~parts[name]] for name in SPLITS}


def limit(splits: dict[str, pd.DataFrame], most: Limit, dropped: Counter) -> dict[str, pd.DataFrame]:
    """The first rows of each split, at most as many as its limit, classes in proportion.

    Raises:
        PipelineError: a class is left without a row in a split.
    """
    limits = most.model_dump()
    kept = {name: rows[: limits[name]] for name, rows in splits.items()}
    classes = set(pd.concat(splits.values())["label"])
    for name, rows in kept.items():
        dropped[f"over_limit_{name}"] += len(splits[name]) - len(rows)
        if missing := classes - set(rows["label"]):
            raise PipelineError(
                f"split {name!r}: expected rows of every class, found none of {', '.join(sorted(missing))} among "
                f"{len(rows)}; raise data.limit.{name} or data.split.{name}, or add rows"
            )
    return kept
