"""Labelled rows: from files to clean, distinct texts in three splits that share nothing.

A table is a pandas data frame with the columns `row` (its number in its source, from 1), `text`, of pairs `text_pair`,
and `label` (see stages/rows/labels.py). Every function that drops rows counts them by reason in the `dropped` counter
it is given.
"""

import math
import textwrap
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from stages.common import texts
from stages.common.errors import PipelineError
from stages.common.paths import SPLITS
from stages.params import Bound, Data
from stages.rows import formats
from stages.rows.labels import KINDS, label_text
from stages.rows.near import near_earlier

INVISIBLE = {"Cc", "Cf", "Zs"}
"""Unicode's categories of control and format characters (zero-width ones, NUL) and spaces."""


def read(path: Path, data: Data) -> pd.DataFrame:
    """The rows of a file or folder, with labels as `data.problem` has them.

    Raises:
        PipelineError: it cannot be read as `data` says, or a row has no label, or one of another kind.
    """
    wanted = {"text": data.text, "text_pair": data.text_pair, "label": data.label}
    wanted = {role: column for role, column in wanted.items() if column}
    lists = ("label",) if data.problem == "multi_label" else ()
    rows = formats.read(path, wanted=wanted, format=data.format, names=data.columns, lists=lists)
    rows.insert(0, "row", range(1, len(rows) + 1))
    rows["label"] = read_labels(rows, path, data)
    return rows


def read_labels(rows: pd.DataFrame, path: Path, data: Data) -> list[str | float]:
    """Each row's label.

    Raises:
        PipelineError: a row has none, or one of another kind.
    """
    labels = []
    for row, value in zip(rows["row"], rows["label"], strict=True):
        try:
            labels.append(KINDS[data.problem].read(value, data.label))
        except ValueError as error:
            raise PipelineError(f"{path.name}: {error} in row {row}; correct it, or take the row out") from None
    if None in labels:
        raise PipelineError(
            f"{path.name}: expected a label in every row, found {labels.count(None)} without one, the first in row "
            f"{labels.index(None) + 1} of column {data.label!r}; label them or take them out"
        )
    return labels


def classify(rows: pd.DataFrame, classes: dict[str, str | bool | int | list[Bound]], dropped: Counter) -> pd.DataFrame:
    """Turn labels into the classes whose value they are, or whose [above, below] holds them; drop those in no class.

    Intervals are for numbers: where no label is one, each label stays a class of its own.

    Raises:
        PipelineError: some labels are finite numbers, and some are not, where intervals are asked for.
    """
    names = pd.Series(pd.NA, index=rows.index, dtype="string")
    if not all(isinstance(value, list) for value in classes.values()):
        for name, value in classes.items():
            names[rows["label"] == label_text(value)] = name
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


def is_blank(text: str) -> bool:
    """Whether nothing of `text` can be seen."""
    return all(unicodedata.category(character) in INVISIBLE for character in text)


def clean_rows(rows: pd.DataFrame, dropped: Counter) -> pd.DataFrame:
    """Clean the texts; drop blank ones and repetitions (in any case), and all of a text whose labels disagree."""
    blank = pd.Series(False, index=rows.index)
    for name in rows.columns.intersection(texts.COLUMNS):
        rows = rows.assign(**{name: rows[name].map(texts.clean)})
        blank |= rows[name].map(is_blank).astype(bool)
    dropped["blank"] += int(blank.sum())
    rows = rows[~blank]

    same_text = texts.joined(rows).str.casefold()
    conflicting = rows["label"].groupby(same_text).transform("nunique") > 1
    dropped["conflicting_labels"] += int(conflicting.sum())
    repeated = same_text.duplicated() & ~conflicting
    dropped["duplicate"] += int(repeated.sum())
    return rows[~conflicting & ~repeated]


def split(tables: dict[str, pd.DataFrame], data: Data) -> dict[str, pd.DataFrame]:
    """The ready splits, and those that are missing cut from train; in an order whose every prefix is stratified.

    Raises:
        PipelineError: there are too few classes, or rows of one, for train to give any away.
    """
    kind = KINDS[data.problem]
    tables = {name: rows.iloc[stratified_order(kind.strata(rows["label"]), data.seed)] for name, rows in tables.items()}
    train = tables["train"]
    missing = [name for name in reversed(SPLITS) if name not in tables]
    remedy = "; data.classes: null takes every label as a class" if data.classes else ""
    kind.refuse_few(train["label"], 1 + len(missing), remedy)
    start = 0
    for name in missing:
        end = start + round(len(train) * getattr(data.split, name))
        tables[name] = train[start:end]
        start = end
    return tables | {"train": train[start:]}


def stratified_order(labels: pd.Series, seed: int) -> np.ndarray:
    """A shuffled order of the rows in which every stretch holds the classes in proportion, to within one row each.

    Each class is shuffled, then its rows are spread evenly over [0, 1); sorting by that place interleaves the classes.
    So a split is a slice, a limit is a prefix, and a smaller limit is a subset of a larger one.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    within = labels.iloc[shuffled].groupby(labels.iloc[shuffled])
    place = (within.cumcount() + 0.5) / within.transform("size")
    return shuffled[np.argsort(place.to_numpy(), kind="stable")]


def refuse_leak(splits: dict[str, pd.DataFrame], data: Data) -> None:
    """Stop where a ready test split shares texts with the rows that a model is trained and chosen on.

    Raises:
        PipelineError: the share of the test rows that are nearly training or validation rows is over `data.max_leak`.
    """
    if not isinstance(data.file, dict) or "test" not in data.file:
        return
    test = splits["test"]
    seen = pd.concat([splits[name].assign(split=name) for name in ("train", "validation")])
    both = np.concatenate([texts.joined(rows).to_numpy(dtype=object) for rows in (seen, test)])
    earlier = near_earlier(both, np.repeat([0, 1], [len(seen), len(test)]), data.near_duplicate)[len(seen) :]
    leaked = np.flatnonzero(earlier >= 0)
    if len(leaked) > data.max_leak * len(test):
        row, other = test.iloc[leaked[0]], seen.iloc[earlier[leaked[0]]]
        raise PipelineError(
            f"data.max_leak: expected at most {data.max_leak:.1%} of the test rows among the others, found "
            f"{len(leaked):,} of {len(test):,}, the first: row {row['row']} of test and row {other['row']} of "
            f"{other['split']} ({textwrap.shorten(row['text'], 60, placeholder=' …')!r}); correct data.file, or raise "
            "data.max_leak to drop them from the others"
        )


def separate(splits: dict[str, pd.DataFrame], threshold: float, dropped: Counter) -> dict[str, pd.DataFrame]:
    """Drop from train what is nearly a validation or test text, and from validation what is nearly a test text."""
    groups = list(reversed(SPLITS))
    sizes = [len(splits[name]) for name in groups]
    together = np.concatenate([texts.joined(splits[name]).to_numpy(dtype=object) for name in groups])
    near = near_earlier(together, np.repeat(range(len(groups)), sizes), threshold) >= 0
    dropped["near_duplicate_across_splits"] += int(near.sum())
    parts = dict(zip(groups, np.split(near, np.cumsum(sizes)[:-1]), strict=True))
    return {name: splits[name][~parts[name]] for name in SPLITS}


def limit(splits: dict[str, pd.DataFrame], data: Data, dropped: Counter) -> dict[str, pd.DataFrame]:
    """The first rows of each split, at most as many as its limit, classes in proportion.

    Raises:
        PipelineError: a class is left without a row in a split that needs some, or a split without any.
    """
    kind, limits = KINDS[data.problem], data.limit.model_dump()
    kept = {name: rows[: limits[name]] for name, rows in splits.items()}
    names = {*kind.names(pd.concat(splits.values())["label"]), *label_columns(data)}
    for name, rows in kept.items():
        dropped[f"over_limit_{name}"] += len(splits[name]) - len(rows)
        missing = names.difference(kind.names(rows["label"])) if name in kind.needed_in else set()
        if missing or rows.empty:
            which = f"expected rows of every {kind.noun}, found none of {', '.join(sorted(missing))} among {len(rows)}"
            raise PipelineError(
                f"split {name!r}: {which if missing else 'expected rows, found none'}; raise data.limit.{name} or "
                "data.split, or add rows"
            )
    kind.refuse_few(kept["train"]["label"], 1, "")
    return kept


def class_names(splits: dict[str, pd.DataFrame], data: Data) -> list[str]:
    """The classes or labels of the rows: those that `data` names in its order, any others sorted."""
    found = KINDS[data.problem].names(splits["train"]["label"])
    ordered = [name for name in data.classes or label_columns(data) if name in found]
    return ordered + [name for name in found if name not in ordered]


def label_columns(data: Data) -> list[str]:
    """The columns that stand for a label each."""
    return data.label if isinstance(data.label, list) else []
