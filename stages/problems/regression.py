"""Each text has a number: outputs and predictions are numbers, (rows,)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from stages.common.errors import PipelineError
from stages.problems.main_score import MainScore, RowMean
from stages.problems.problem import Problem, label_text

if TYPE_CHECKING:
    from datasets import Value

BINS = 10
"""Strata of similar numbers, spread evenly over the splits."""

LARGEST = float(np.finfo(np.float32).max)
"""The bound of a label's absolute value, as labels are stored in float32."""

OUTPUT = "value"
"""The name of a model's only output."""


def absolute_errors(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Each row's absolute error, (rows,)."""
    return np.abs(labels.astype(np.float64) - predictions)


class Regression(Problem):
    """One number per row."""

    name = "regression"
    noun = "number"
    answer = "value"
    main_scores: ClassVar[dict[str, MainScore]] = {
        "mae": RowMean(key="mae", name="MAE", sign=-1, share=False, of_rows=absolute_errors)
    }
    settling = "get the median"
    transformers_type = "regression"
    numeric = True
    without: ClassVar[dict[str, Any]] = {
        "data.classes": None,
        "data.split.calibration": 0.0,
        "encode.label_words": None,
        "train.label_smoothing": 0.0,
        "train.balance": None,
        "evaluate.target_accuracy": None,
        "gate.min_accuracy": None,
    }

    def read(self, value: Any, column: str | list[str]) -> float | None:
        text = label_text(value)
        if not text:
            return None
        try:
            number = np.nan if "_" in text else float(text)  # 2021_10 is a code, though a number for Python
        except ValueError:
            number = np.nan
        if not abs(number) < LARGEST:
            raise ValueError(f"expected a finite number in column {column!r}, found {value!r}")
        return number

    def settled(self, labels: pd.Series, same_text: pd.Series) -> pd.Series:
        """The median of each text's numbers."""
        return labels.groupby(same_text).transform("median")

    def names(self, labels: pd.Series) -> list[str]:
        """Empty: numbers have no names."""
        return []

    def check_enough_rows(self, labels: pd.Series, splits: int, remedy: str) -> None:
        if labels.astype(np.float32).nunique() < 2:  # as they are stored
            found = f"{labels.iloc[0]:g} in every row" if len(labels) else "no usable row"
            raise PipelineError(f"expected numbers that differ, found {found}")

    def strata(self, labels: pd.Series) -> pd.Series:
        return (labels.rank(method="first") - 1) * BINS // len(labels)

    def feature(self, names: list[str]) -> "Value":
        from datasets import Value

        return Value("float64")

    def output_names(self, feature: "Value") -> list[str]:
        return [OUTPUT]

    def stored(self, labels: pd.Series, names: list[str]) -> list[float]:
        return labels.tolist()

    def array(self, stored: list[float], names: list[str]) -> np.ndarray:
        return np.asarray(stored, dtype=np.float32)

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, float]:
        return {"mean": float(labels.mean()), "standard_deviation": float(labels.std(ddof=0))}

    def unit(self, labels: np.ndarray) -> float:
        """The labels' mean absolute deviation from their median, which is the error of the best constant.

        The median is not subtracted, as a decoder's head has no bias to which it could be added after training;
        instead, the head starts at the mean.
        """
        labels = labels.astype(np.float64)  # in float32 a sum of large numbers is infinite
        return float(np.abs(labels - np.median(labels)).mean())

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """The only logit, in float64."""
        return logits[:, 0].astype(np.float64)

    def validate(self, logits: np.ndarray, labels: np.ndarray, *, unit: float, main: MainScore) -> dict[str, float]:
        """The mean absolute error, in the numbers' own scale."""
        return {main.key: unit * main.value(labels, self.outputs(logits))}

    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The numbers."""
        return labels

    def answers(self, predictions: np.ndarray, names: list[str]) -> np.ndarray:
        """The numbers."""
        return predictions

    def labels_of(self, answers: Sequence[str], names: list[str]) -> np.ndarray:
        return np.array(answers, dtype=np.float64)

    def certain(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return labels

    def confidence(self, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Empty: a number has no probability."""
        return {}

    def detail(self, predictions: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """Empty: there are no probabilities."""
        return {}
