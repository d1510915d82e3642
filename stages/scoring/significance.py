"""From labels and predictions to scores, intervals and tests: the same for every model and problem, without torch."""

from collections.abc import Iterator
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd
import sklearn
from scipy import stats

from stages.scoring.problem import Problem

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

RESAMPLES = 1_000
"""Bootstrap resamples behind the interval of a mean over the rows."""


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
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # `score` checks the same rows
        drawn = [
            problem.scores(labels[rows], predictions[rows])
            for rows in resampled(len(labels), resamples)
            if problem.complete(labels[rows], predictions[rows])
        ]
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
