"""What a label is in each kind of problem: read from a file, spread over the splits, stored and counted.

In a table a label is the name of a class; or, of a row that may have several, the JSON list of their sorted names; or a
number. So equal labels are equal values, whatever the problem.
"""

import json
from typing import Any, Protocol

import numpy as np
import pandas as pd
from datasets import ClassLabel, List, Value

from stages.common.errors import PipelineError
from stages.common.paths import SPLITS
from stages.common.texts import clean

MISSING = ("", "nan", "null")
"""What stands for no label, in small letters."""

ANSWERS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
"""What may stand in the column of one label."""

RARE = 10
"""Combinations of labels with fewer rows are spread over the splits together, as one."""

BINS = 10
"""Groups of like numbers that are spread over the splits evenly."""

LARGEST = float(np.finfo(np.float32).max)
"""Numbers are stored in float32."""


class Kind(Protocol):
    """What the labels of a problem are to `stages.prepare` and `stages.encode`."""

    noun: str
    needed_in: tuple[str, ...]
    """The splits in which every name has to have rows."""

    def read(self, value: Any, column: str | list[str]) -> str | float | None:
        """A file's value as a label; None: there is none.

        Raises:
            ValueError: it is something else; says what was expected and found.
        """

    def names(self, labels: pd.Series) -> list[str]:
        """Those that occur, sorted."""

    def refuse_few(self, labels: pd.Series, splits: int, remedy: str) -> None:
        """Check that there are rows and names enough to make so many splits of.

        Raises:
            PipelineError: there are not.
        """

    def strata(self, labels: pd.Series) -> pd.Series:
        """The group that each row is of, where every stretch of the rows is to hold the groups in proportion."""

    def feature(self, names: list[str]) -> Any:
        """The column's type in the terms of `datasets`."""

    def stored(self, labels: pd.Series, names: list[str]) -> list:
        """The values of that type."""

    def array(self, stored: list, names: list[str]) -> np.ndarray:
        """The same as `stages.backbone.store` holds them."""

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, float]:
        """What is known about a split's labels."""


class Classes:
    """Each row has one of several classes."""

    noun = "class"
    needed_in = SPLITS

    def read(self, value: Any, column: str) -> str | None:
        text = label_text(value)
        return None if text.lower() in MISSING else text

    def names(self, labels: pd.Series) -> list[str]:
        return sorted(set(labels))

    def refuse_few(self, labels: pd.Series, splits: int, remedy: str) -> None:
        counts = labels.value_counts()
        if len(counts) < 2:
            raise PipelineError(
                f"expected at least two classes, found {', '.join(counts.index) or 'no usable row'}{remedy}"
            )
        if counts.min() < splits:
            raise PipelineError(
                f"class {counts.idxmin()!r}: expected at least {splits} rows, one for each split, "
                f"found {counts.min()}; add rows or merge the class into another"
            )

    def strata(self, labels: pd.Series) -> pd.Series:
        return labels

    def feature(self, names: list[str]) -> ClassLabel:
        return ClassLabel(names=names)

    def stored(self, labels: pd.Series, names: list[str]) -> list[int]:
        return labels.map(names.index).tolist()

    def array(self, stored: list[int], names: list[str]) -> np.ndarray:
        return np.asarray(stored, dtype=np.int64)

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, int]:
        by_name = labels.value_counts()
        return {name: int(by_name[name]) for name in names}


class Sets:
    """Each row has any of several labels, or none."""

    noun = "label"
    needed_in = ("train",)

    def read(self, value: Any, column: str | list[str]) -> str | None:
        if value is None:
            return None
        if isinstance(value, dict):
            cells = {name: label_text(cell).lower() for name, cell in value.items()}
            if set(cells.values()) & set(MISSING):
                return None
            if odd := [name for name, text in cells.items() if text not in ANSWERS]:
                raise ValueError(f"expected 0, 1, true or false in column {odd[0]!r}, found {value[odd[0]]!r}")
            names = {name for name, text in cells.items() if ANSWERS[text]}
        elif isinstance(value, list):
            if odd := [item for item in value if not isinstance(item, str | int) or not label_text(item)]:
                raise ValueError(f"expected the names of labels in the list of column {column!r}, found {odd[0]!r}")
            names = {label_text(item) for item in value}
        else:
            raise ValueError(
                f"expected a list of labels in column {column!r}, or a column for each label named in data.label: "
                f"[a, b], found {value!r}"
            )
        return json.dumps(sorted(names))

    def names(self, labels: pd.Series) -> list[str]:
        return sorted({name for combination in set(labels) for name in json.loads(combination)})

    def refuse_few(self, labels: pd.Series, splits: int, remedy: str) -> None:
        names = self.names(labels)
        if len(names) < 2:
            raise PipelineError(f"expected at least two labels, found {', '.join(names) or 'no row with one'}")

    def strata(self, labels: pd.Series) -> pd.Series:
        return labels.where(labels.groupby(labels).transform("size") >= RARE, "rare")

    def feature(self, names: list[str]) -> List:
        return List(ClassLabel(names=names))

    def stored(self, labels: pd.Series, names: list[str]) -> list[list[int]]:
        return [[names.index(name) for name in json.loads(combination)] for combination in labels]

    def array(self, stored: list[list[int]], names: list[str]) -> np.ndarray:
        labels = np.zeros((len(stored), len(names)), dtype=np.float32)
        for row, indices in zip(labels, stored, strict=True):
            row[indices] = 1
        return labels

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, int]:
        columns = self.array(self.stored(labels, names), names).sum(axis=0, dtype=int)
        return dict(zip(names, columns.tolist(), strict=True))


class Numbers:
    """Each row has a number."""

    noun = "number"
    needed_in = ()

    def read(self, value: Any, column: str) -> float | None:
        text = label_text(value)
        if text.lower() in MISSING:
            return None
        try:
            number = float(text)
        except ValueError:
            number = np.nan
        if not abs(number) < LARGEST:
            raise ValueError(f"expected a finite number in column {column!r}, found {value!r}")
        return number

    def names(self, labels: pd.Series) -> list[str]:
        return []

    def refuse_few(self, labels: pd.Series, splits: int, remedy: str) -> None:
        if labels.nunique() < 2:
            found = f"{labels.iloc[0]:g} in every row" if len(labels) else "no usable row"
            raise PipelineError(f"expected numbers that differ, found {found}")

    def strata(self, labels: pd.Series) -> pd.Series:
        return (labels.rank(method="first") - 1) * BINS // len(labels)

    def feature(self, names: list[str]) -> Value:
        return Value("float64")

    def stored(self, labels: pd.Series, names: list[str]) -> list[float]:
        return labels.tolist()

    def array(self, stored: list[float], names: list[str]) -> np.ndarray:
        return np.asarray(stored, dtype=np.float32)

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, float]:
        return {"mean": float(labels.mean()), "standard_deviation": float(labels.std(ddof=0))}


KINDS: dict[str, Kind] = {"single_label": Classes(), "multi_label": Sets(), "regression": Numbers()}
"""By the value of `data.problem`."""

VALUE = "value"
"""The name of the only output where labels are numbers."""


def described(feature: ClassLabel | List | Value) -> dict[str, Any]:
    """The `problem` that a prepared column of labels poses, and the `class_names` of the model's outputs."""
    if isinstance(feature, ClassLabel):
        return {"problem": "single_label", "class_names": feature.names}
    if isinstance(feature, List):
        return {"problem": "multi_label", "class_names": feature.feature.names}
    return {"problem": "regression", "class_names": [VALUE]}


def label_text(label: str | float | bool | None) -> str:
    """A label as text: a boolean as JSON writes it, a missing one as nothing."""
    return str(label).lower() if isinstance(label, bool) else clean(label)
