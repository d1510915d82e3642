"""Whether one model is better than another on the same rows: the same test for every model and problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from stages.evidence import permutation
from stages.problems.main_score import MainScore, RowMean

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


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


def wilson(correct: np.ndarray) -> dict[str, float]:
    """The 95 % confidence interval, `low` and `high`, of the share of rows that are right (Wilson 1927).

    Args:
        correct: (rows,) bool.
    """
    interval = stats.binomtest(int(correct.sum()), len(correct)).proportion_ci(LEVEL, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """Row indices drawn with replacement, (rows,), `resamples` times; the same in every run."""
    generator = np.random.default_rng(0)
    return (generator.integers(rows, size=rows) for _ in range(resamples))
