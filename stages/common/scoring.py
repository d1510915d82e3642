"""From labels and predictions to scores, intervals and tests: the same for every model and problem, without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import datasets
import evaluate
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import BaseEstimator

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

RESAMPLES = 1_000
"""Bootstrap resamples behind the interval of a mean over the rows."""


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
    """What a kind of problem is to the stages; each is a module that `stages.common.problems` names.

    `labels` are what `stages.common.store` holds: the class of each row, (rows,) int64; which labels it has, (rows,
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


class Scores(evaluate.Metric):
    """The scores of a problem, as an `evaluate` metric that needs no hub."""

    def __init__(self, problem: Problem, **options: Any) -> None:
        self.problem = problem
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.problem.scores.__doc__,
            citation="",
            inputs_description="predictions and references (labels), one a row.",
            features=datasets.Features(self.problem.FEATURES),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return self.problem.scores(np.asarray(references), np.asarray(predictions))


def score(problem: Problem, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Every metric of the problem, (rows,) or (rows, ...) of labels and predictions checked."""
    return Scores(problem, keep_in_memory=True).compute(predictions=predictions, references=labels)


def intervals(
    problem: Problem, labels: np.ndarray, predictions: np.ndarray, resamples: int
) -> dict[str, dict[str, float]]:
    """The 95 % confidence interval, `low` and `high`, of every metric of `score`.

    They are percentiles over bootstrap resamples of the rows (Efron 1979); the main score's is `main_interval`'s. A
    resample on which not every metric is defined, as it lacks some class, is left out.
    """
    drawn = (
        problem.scores(labels[rows], predictions[rows])
        for rows in resampled(len(labels), resamples)
        if problem.complete(labels[rows], predictions[rows])
    )
    table = pd.DataFrame(drawn).quantile(BOUNDS)
    result = {name: dict(zip(("low", "high"), map(float, column), strict=True)) for name, column in table.items()}
    return result | {problem.MAIN.key: main_interval(problem, labels, predictions)}


def main_interval(problem: Problem, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The 95 % confidence interval of the main score, `low` and `high`.

    Where rows are right or wrong it is Wilson's (1927), else the bootstrap's.
    """
    values = problem.row_scores(labels, predictions)
    if values.dtype == bool:
        interval = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
        return {"low": float(interval.low), "high": float(interval.high)}
    values = problem.MAIN.sign * values
    low, high = np.quantile([values[rows].mean() for rows in resampled(len(values), RESAMPLES)], BOUNDS)
    return {"low": float(low), "high": float(high)}


def gain(
    problem: Problem, labels: np.ndarray, tuned: np.ndarray, rival: np.ndarray, resamples: int
) -> dict[str, float]:
    """How much better `tuned` is than `rival` on the same rows, in the main score; positive is better.

    Args:
        labels: of the rows; tuned, rival: their predictions.

    Returns:
        `gain`, its 95 % interval `gain_low` and `gain_high` (paired bootstrap over rows), and `p_value`, two-sided,
        of "a row gains as often as it loses" (exact sign test; where rows are right or wrong, that is the exact test
        of McNemar 1947). It is 1 where more rows speak for one model and the mean for the other.
    """
    difference = problem.row_scores(labels, tuned).astype(float) - problem.row_scores(labels, rival)
    drawn = [difference[rows].mean() for rows in resampled(len(labels), resamples)]
    low, high = np.quantile(drawn, BOUNDS)
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    agree = (better - worse) * difference.mean() > 0
    p_value = stats.binomtest(better, better + worse).pvalue if agree else 1.0
    values = {"gain": difference.mean(), "gain_low": low, "gain_high": high, "p_value": p_value}
    return {name: float(value) for name, value in values.items()}


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """Row numbers drawn with replacement, (rows,), so many times; the same in every run."""
    generator = np.random.default_rng(0)
    return (generator.integers(rows, size=rows) for _ in range(resamples))
