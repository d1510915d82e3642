"""Whether one model is better than another on the same rows: the same test for every model and problem."""

from collections.abc import Callable, Iterator
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
    rows = len(labels)
    if isinstance(main, RowMean):
        difference = main.sign * (main.of_rows(labels, tuned).astype(float) - main.of_rows(labels, rival))
        found, drawn = difference.mean(), over_draws(lambda counts: counts @ difference / rows, rows, resamples)
    else:
        found = main.sign * (main.value(labels, tuned) - main.value(labels, rival))
        drawn = main.sign * over_draws(
            lambda counts: main.values(labels, tuned, counts) - main.values(labels, rival, counts), rows, resamples
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


def over_draws(values: Callable[[np.ndarray], np.ndarray], rows: int, resamples: int) -> np.ndarray:
    """What `values` makes of each resample, (resamples,), from the blocks of `resampled`."""
    return np.concatenate([values(counts) for counts in resampled(rows, resamples)])


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each row is among `rows` rows drawn with replacement, in blocks of (draws, rows) float; `resamples`
    draws in all, the same in every run."""
    generator, most = np.random.default_rng(0), max(1, permutation.AT_ONCE // rows)
    for start in range(0, resamples, most):
        drawn = (generator.integers(rows, size=rows) for _ in range(min(most, resamples - start)))
        yield np.array([np.bincount(each, minlength=rows) for each in drawn], dtype=float)
