"""Each text has any of several labels, or none: every label is a decision of its own.

Outputs are every label's probability, (rows, labels); predictions also hold the labels that each row is given: those
whose probability is above the label's threshold.
"""

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from stages.common.errors import PipelineError
from stages.common.texts import NOTHING_LISTED, listed
from stages.problems.main_score import MainScore, OfCounts, RocAuc, RowMean, log_loss, mean_f1, surprise
from stages.problems.problem import Problem, label_text

if TYPE_CHECKING:
    from datasets import List

YES_OR_NO = {"1": True, "true": True, "0": False, "false": False}
"""The values allowed in a column that holds one label, as `label_text` spells them."""

RARE = 10
"""Combinations of labels with fewer rows than this share one stratum."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """A model's predictions: `probabilities`, (rows, labels), and which labels are `given`, (rows, labels) bool."""

    probabilities: np.ndarray
    given: np.ndarray

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, rows: np.ndarray) -> Self:
        return type(self)(probabilities=self.probabilities[rows], given=self.given[rows])


def row_f1(labels: np.ndarray, predictions: Decisions) -> np.ndarray:
    """F1 of each row's labels, (rows,); 1 where a row has no labels, true or predicted."""
    given = predictions.given
    both, either = (labels * given).sum(axis=1), labels.sum(axis=1) + given.sum(axis=1)
    return np.divide(2 * both, either, out=np.ones(len(labels)), where=either > 0)


def exact(labels: np.ndarray, predictions: Decisions) -> np.ndarray:
    """Whether each row is given all of its labels and no other, (rows,)."""
    return (predictions.given == labels).all(axis=1)


def log_losses(labels: np.ndarray, predictions: Decisions) -> np.ndarray:
    """The log loss of each row, (rows,): the mean over its decisions."""
    yes = predictions.probabilities
    return surprise(np.where(labels > 0, yes, 1 - yes)).mean(axis=1)


SCORES = (
    RowMean(key="f1_samples", name="row F1", of_rows=row_f1),
    RowMean(key="accuracy", name="accuracy", of_rows=exact),
    OfCounts(
        key="f1_macro",
        name="macro-F1",
        decisions=lambda labels, predictions: (labels > 0, predictions.given),
        of_counts=mean_f1,
    ),
    RocAuc(
        key="roc_auc",
        name="ROC AUC",
        ranked=lambda labels, predictions: (labels > 0, predictions.probabilities),
    ),
    log_loss(log_losses),
)


class MultiLabel(Problem):
    """Several labels per row, or none. By default models are compared by the F1 of each row's labels, averaged over
    rows: exact matches say little where texts have many labels."""

    name = "multi_label"
    noun = "label"
    answer = "labels"
    main_scores: ClassVar[dict[str, MainScore]] = {score.key: score for score in SCORES}
    transformers_type = "multi_label_classification"
    needed_in = ("train",)
    several_answers = True
    without: ClassVar[dict[str, Any]] = {
        "data.classes": None,
        "data.split.calibration": 0.0,
        "train.label_smoothing": 0.0,
        "train.balance": None,
        "evaluate.target_accuracy": None,
    }

    def read(self, value: Any, column: str | list[str]) -> str | None:
        if value is None:
            return None
        if isinstance(value, dict):
            cells = {name: label_text(cell) for name, cell in value.items()}
            if not all(cells.values()):
                return None
            if odd := [name for name, text in cells.items() if text not in YES_OR_NO]:
                raise ValueError(f"expected 0, 1, true or false in column {odd[0]!r}, found {value[odd[0]]!r}")
            names = {name for name, text in cells.items() if YES_OR_NO[text]}
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
        return sorted({name for combination in labels.unique() for name in self.names_in(combination)})

    def names_in(self, label: str) -> list[str]:
        return json.loads(label)

    def check_enough_rows(self, labels: pd.Series, splits: int, remedy: str) -> None:
        names = self.names(labels)
        if len(names) < 2:
            raise PipelineError(f"expected at least two labels, found {', '.join(names) or 'no row with one'}")

    def strata(self, labels: pd.Series) -> pd.Series:
        return labels.where(labels.groupby(labels).transform("size") >= RARE, "rare")

    def feature(self, names: list[str]) -> "List":
        from datasets import ClassLabel, List

        return List(ClassLabel(names=names))

    def output_names(self, feature: "List") -> list[str]:
        return feature.feature.names

    def stored(self, labels: pd.Series, names: list[str]) -> list[list[int]]:
        numbers = {one: [names.index(name) for name in json.loads(one)] for one in labels.unique()}
        return labels.map(numbers).tolist()

    def array(self, stored: list[list[int]], names: list[str]) -> np.ndarray:
        labels = np.zeros((len(stored), len(names)), dtype=np.float32)
        for row, indices in zip(labels, stored, strict=True):
            row[indices] = 1
        return labels

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, int]:
        columns = self.array(self.stored(labels, names), names).sum(axis=0, dtype=int)
        return dict(zip(names, columns.tolist(), strict=True))

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Sigmoid."""
        from scipy.special import expit

        return expit(logits.astype(np.float64))

    def validate(
        self, logits: np.ndarray, labels: np.ndarray, *, unit: float, main: MainScore
    ) -> dict[str, float | list[float]]:
        """The main score, one temperature for all labels, and with it applied the labels' thresholds and the log
        loss."""
        from stages.problems import calibration

        temperature = calibration.temperature(logits, labels)
        probabilities = self.outputs(logits.astype(np.float64) / temperature)
        thresholds = self.thresholds(labels, probabilities, main)
        return {
            main.key: main.value(labels, self.decide(probabilities, thresholds)),
            "temperature": temperature,
            "log_loss": float(calibration.label_loss(logits / temperature, labels)),
            "thresholds": thresholds,
        }

    def thresholds(self, labels: np.ndarray, outputs: np.ndarray, main: MainScore) -> list[float]:
        """Each label's threshold: its own for macro-F1, else the same for all, by row F1 if the main score needs none.

        A rare label's F1 may be highest where many rows are given it, and each of them then has a wrong label.
        """
        from stages.problems import thresholds

        if main.key == "f1_macro":
            return thresholds.best(labels, outputs)
        score = main if main.from_answers else self.main_scores["f1_samples"]
        values = [score.value(labels, self.decide(outputs, [one])) for one in thresholds.COMMON]
        return [thresholds.middle_of_best(values)] * labels.shape[1]

    def decide(self, outputs: np.ndarray, thresholds: Sequence[float]) -> Decisions:
        """Which labels are given; without thresholds, those with a probability above 0.5."""
        return Decisions(probabilities=outputs, given=outputs > np.asarray(thresholds or 0.5))

    def column(self, predictions: Decisions) -> list[dict[str, np.ndarray]]:
        pairs = zip(predictions.probabilities, predictions.given, strict=True)
        return [{"probabilities": probabilities, "given": given} for probabilities, given in pairs]

    def predictions(self, column: Sequence[dict[str, Sequence]]) -> Decisions:
        columns = {key: np.stack([np.asarray(row[key]) for row in column]) for key in ("probabilities", "given")}
        return Decisions(**columns)

    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The names of each row's labels, see `listed`."""
        return np.array([listed(itertools.compress(names, has)) for has in labels], dtype=object)

    def answers(self, predictions: Decisions, names: list[str]) -> np.ndarray:
        """The names of the labels that each row is given."""
        return self.truth(predictions.given, names)

    def labels_of(self, answers: Sequence[str], names: list[str]) -> np.ndarray:
        labels = np.zeros((len(answers), len(names)), dtype=np.float32)
        taken_apart = csv.reader(answers, skipinitialspace=True)
        for row, (answer, given) in enumerate(zip(answers, taken_apart, strict=True)):
            labels[row] = [name in given and answer != NOTHING_LISTED for name in names]
        return labels

    def certain(self, labels: np.ndarray, names: list[str]) -> Decisions:
        return Decisions(probabilities=labels.astype(np.float64), given=labels > 0)

    def confidence(self, predictions: Decisions) -> dict[str, np.ndarray]:
        """The probability of each row's whole answer, as if labels were independent."""
        probabilities = predictions.probabilities
        return {"probability": np.where(predictions.given, probabilities, 1 - probabilities).prod(axis=1)}

    def detail(self, predictions: Decisions, names: list[str]) -> dict[str, np.ndarray]:
        """The probability of every label."""
        return dict(zip(names, predictions.probabilities.T, strict=True))
