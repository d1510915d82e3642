"""Confidence intervals of scores, and tests of gains: the same for every model and problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from scipy import stats

from stages.evidence import permutation
from stages.problems.main_score import MainScore, RowMean
from stages.scoring.scored import ScoredProblem

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

RESAMPLES = 1_000
"""Bootstrap resamples behind the interval of a main score."""


def intervals(
    problem: ScoredProblem, main: MainScore, *, labels: np.ndarray, predictions: Any, resamples: int
) -> dict[str, dict[str, float]]:
    """The 95 % confidence interval, `low` and `high`, of every metric.

    The intervals are percentiles over bootstrap resamples of the rows (Efron 1979); that of the main score comes from
    `main_interval`. A resample without the classes that some metric needs is left out.
    """
    with sklearn.config_context(
        assume_finite=True, skip_parameter_validation=True
    ):  # `scored.score` checks the same rows
        drawn = [
            problem.scores(labels[rows], predictions[rows])
            for rows in resampled(len(labels), resamples)
            if problem.complete(labels[rows], predictions[rows])
        ]
    table = pd.DataFrame(drawn).quantile(BOUNDS)
    result = {name: dict(zip(("low", "high"), map(float, column), strict=True)) for name, column in table.items()}
    return result | {main.key: main_interval(main, labels=labels, predictions=predictions)}


def main_interval(main: MainScore, *, labels: np.ndarray, predictions: Any) -> dict[str, float]:
    """The 95 % confidence interval of the main score, `low` and `high`.

    Where each row is either right or wrong, it is Wilson's interval (1927); else a bootstrap interval.
    """
    if isinstance(main, RowMean):
        values = main.of_rows(labels, predictions)
        if values.dtype == bool:
            interval = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
            return {"low": float(interval.low), "high": float(interval.high)}
        drawn = [values[rows].mean() for rows in resampled(len(values), RESAMPLES)]
    else:
        drawn = [main.value(labels[rows], predictions[rows]) for rows in resampled(len(labels), RESAMPLES)]
    low, high = np.quantile(drawn, BOUNDS)
    return {"low": float(low), "high": float(high)}


def gain(main: MainScore, *, labels: np.ndarray, tuned: Any, rival: Any, resamples: int) -> dict[str, float]:
    """How much better `tuned` is than `rival` on the same rows, in the main score; positive is better.

    Args:
        labels: of the rows; tuned, rival: the predictions of each model.

    Returns:
        `gain`, its 95 % interval `gain_low` and `gain_high` (paired bootstrap over rows), and `p_value`, two-sided: of
        `sign_test`, or where the score is no mean over the rows, or a few rows decide it, of `permutation.p_value`.
    """
    if isinstance(main, RowMean):
        difference = main.sign * (main.of_rows(labels, tuned).astype(float) - main.of_rows(labels, rival))
        found, drawn = difference.mean(), [difference[rows].mean() for rows in resampled(len(labels), resamples)]
    else:
        found, *drawn = (
            main.sign * (main.value(labels[rows], tuned[rows]) - main.value(labels[rows], rival[rows]))
            for rows in (np.arange(len(labels)), *resampled(len(labels), resamples))
        )
    low, high = np.quantile(drawn, BOUNDS)
    if isinstance(main, RowMean) and not main.few_rows_decide:
        p_value = sign_test(difference)
    else:
        p_value = permutation.p_value(main, labels=labels, one=tuned, other=rival)
    values = {"gain": found, "gain_low": low, "gain_high": high, "p_value": p_value}
    return {name: float(value) for name, value in values.items()}


def strongest(main: MainScore, *, labels: np.ndarray, rivals: dict[str, Any]) -> Any:
    """The predictions of the rival with the best main score.

    Args:
        labels: of the rows; rivals: the predictions of each rival, by its name.
    """
    return max(rivals.values(), key=lambda predictions: main.sign * main.value(labels, predictions))


def sign_test(difference: np.ndarray) -> float:
    """The p-value of the hypothesis that a row is as often better as worse, given each row's gain, (rows,).

    Where each row is either right or wrong, it is the exact test of McNemar 1947. It is 1 where more rows favour one
    model and the mean the other.
    """
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    agree = (better - worse) * difference.mean() > 0
    return stats.binomtest(better, better + worse).pvalue if agree else 1.0


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """Row indices drawn with replacement, (rows,), `resamples` times; the same in every run."""
    generator = np.random.default_rng(0)
    return (generator.integers(rows, size=rows) for _ in range(resamples))
