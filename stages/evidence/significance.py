"""Whether one model is better than another on the same rows: the same test for every model and problem."""

from typing import Any

import numpy as np
from scipy import stats

from stages.evidence import permutation
from stages.problems.main_score import MainScore

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def gain(main: MainScore, *, labels: np.ndarray, tuned: Any, rival: Any) -> dict[str, float]:
    """How much better `tuned` is than `rival` on the same rows, in the main score; positive is better.

    Args:
        labels: of the rows; tuned, rival: the predictions of each model.

    Returns:
        `gain`, its 95 % interval `gain_low` and `gain_high` (Student's, for the rows' differences in
        `MainScore.of_each`), and `p_value`, two-sided: of `mcnemar` where each row is either right or wrong, else of
        `permutation.p_value`.
    """
    found = main.sign * (main.value(labels, tuned) - main.value(labels, rival))
    difference = main.sign * (main.of_each(labels, tuned) - main.of_each(labels, rival))
    reach = stats.t.ppf(BOUNDS[1], len(labels) - 1) * stats.sem(difference)
    if main.right_or_wrong(labels, tuned):
        p_value = mcnemar(difference)
    else:
        p_value = permutation.p_value(main, labels=labels, one=tuned, other=rival)
    values = {"gain": found, "gain_low": found - reach, "gain_high": found + reach, "p_value": p_value}
    return {name: float(value) for name, value in values.items()}


def strongest(main: MainScore, *, labels: np.ndarray, rivals: dict[str, Any]) -> Any:
    """The predictions of the rival with the best main score.

    Args:
        labels: of the rows; rivals: the predictions of each rival, by its name.
    """
    return max(rivals.values(), key=lambda predictions: main.sign * main.value(labels, predictions))


def of_strongest(gains: dict[str, dict[str, float]]) -> dict[str, float]:
    """The gain over the rival over which it is least, tested against all of them.

    Which rival is the strongest, the same rows decide, and another one may be as strong. A gain is proven over each
    rival, so its p-value is the highest (an intersection-union test, Berger 1982), and its interval begins where the
    lowest does. The best of several rivals is better by chance, so the p-value of a loss is multiplied by their number
    (Bonferroni).

    Args:
        gains: `gain`, `gain_low`, `gain_high` and `p_value` of each rival, by its name.
    """
    least = min(gains.values(), key=lambda values: values["gain"])
    if least["gain"] < 0:
        return least | {"p_value": min(1.0, least["p_value"] * len(gains))}
    lows, p_values = ([values[key] for values in gains.values()] for key in ("gain_low", "p_value"))
    return least | {"gain_low": min(lows), "p_value": max(p_values)}


def mcnemar(difference: np.ndarray) -> float:
    """The p-value of the exact test of McNemar 1947.

    Args:
        difference: (rows,): 1 where only one model is right, -1 where only the other is, else 0.
    """
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return stats.binomtest(better, better + worse).pvalue if better + worse else 1.0


def wilson(correct: np.ndarray) -> dict[str, float]:
    """The 95 % confidence interval, `low` and `high`, of the share of rows that are right (Wilson 1927).

    Args:
        correct: (rows,) bool.
    """
    interval = stats.binomtest(int(correct.sum()), len(correct)).proportion_ci(LEVEL, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}
