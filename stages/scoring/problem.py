"""What a kind of problem is to the stages; each kind is a module that `stages.scoring.problems` names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator


@dataclass(frozen=True, kw_only=True)
class Main:
    """The score in which models are compared, a mean over the rows, and how it is told."""

    key: str
    """Its name in the metrics files."""
    name: str
    sign: int
    """1: higher is better; -1: lower is."""
    factor: float
    """Times what it is shown: 100 for shares."""
    digits: str
    """How it is formatted then."""
    mark: str
    unit: str
    """What differences of it are in, if anything."""
    test: str
    """What `gain` computes the p-value with."""

    def shortfall(self, row_scores: np.ndarray) -> np.ndarray:
        """What each row's score misses of the best one: a right row nothing, a wrong one 1, a number its error."""
        return int(self.sign > 0) - row_scores

    def bare(self, value: float) -> str:
        """A score as it is shown, without its mark."""
        return f"{self.factor * value:{self.digits}}"

    def amount(self, value: float) -> str:
        """The same with it."""
        return self.bare(value) + self.mark

    def difference(self, value: float) -> str:
        """A gain, with its sign."""
        return f"{self.factor * value:+{self.digits}}"

    def titled(self, what: str) -> str:
        """The title of a column of differences."""
        return f"{what}, {self.unit}" if self.unit else what


class Problem(Protocol):
    """What such a module offers.

    `labels` are what `stages.backbone.store` holds: the class of each row, (rows,) int64; which labels it has, (rows,
    labels) float32; or its number, (rows,) float32. `predictions` are a model's, one a row.
    """

    MAIN: Main
    NOUN: str
    """What an answer is, or is made of."""
    COUNTED: str
    """What metrics/data.json tells of each split's labels."""
    ANSWER: str
    """What an answer is called in a table."""
    ANSWERS: str
    """The file that holds those of all models for `dvc plots`; `answers` is drawn as confusion matrices."""
    COLUMNS: dict[str, str]
    """The other scores that a comparison shows, by their key, with their titles."""
    DETAIL: str
    """How those are formatted."""
    FIGURE: str
    """What the summary figure shows."""
    FEATURES: dict[str, Any]
    """The types of `predictions` and `references`, in the terms of `datasets`."""

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """From logits, (rows, outputs), to probabilities or numbers in float64."""

    def choose(self, labels: np.ndarray, predictions: np.ndarray) -> list[float]:
        """The thresholds that make answers of predictions, if any; from rows that were not trained on."""

    def decide(self, predictions: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """The predictions together with the answers that the thresholds make of them."""

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Every metric, all finite."""

    def complete(self, labels: np.ndarray, predictions: np.ndarray) -> bool:
        """Whether every metric says something about these rows."""

    def row_scores(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """How good each row's prediction is, (rows,); higher is better, the mean is `sign` times the main score."""

    def class_scores(
        self, labels: np.ndarray, predictions: np.ndarray, names: list[str]
    ) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of each class or label; of a number, nothing."""

    def curves(self, labels: np.ndarray, predictions: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
        """The points of every curve, by its name; at most so many of those that have a point a row."""

    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The labels as people read them, (rows,)."""

    def answers(self, predictions: np.ndarray, names: list[str]) -> np.ndarray:
        """The predictions in the same terms, (rows,)."""

    def confidence(self, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of each row's answer, where it has one."""

    def detail(self, predictions: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """What each row's answer was chosen from, by class or label."""

    def constant(self) -> tuple[str, BaseEstimator]:
        """The rival that does not read the text, and its name."""

    def linear(self, strength: float) -> BaseEstimator:
        """A linear model of that inverse regularization strength."""

    def fitted(self, model: BaseEstimator, inputs: np.ndarray) -> np.ndarray:
        """What a fitted model of those predicts."""

    def loss(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        """What the rivals' choices minimise on the validation rows."""
