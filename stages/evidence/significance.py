"""Whether one model is better than another on the same rows: the same test for every model and problem."""

from typing import Any

import numpy as np
from scipy import stats

from stages.evidence import permutation
from stages.problems.main_score import SIGNIFICANT, MainScore

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def gain(main: MainScore, *, labels: np.ndarray, tuned: Any, rival: Any) -> dict[str, float]:
    """How much better `tuned` is than `rival` on the same rows, in the main score; positive is better.

    Args:
        labels: of the rows; tuned, rival: the predictions of each model.

    Returns:
        `gain`, its 95 % interval `gain_low` and `gain_high`, and `p_value`, two-sided: where each row is either right
        or wrong, of `agresti_min` and `mcnemar`; else Student's interval, for the rows' differences in
        `MainScore.of_each`, and `permutation.p_value`. The interval is made to agree with the test, see `agreeing`.
    """
    found = main.sign * (main.value(labels, tuned) - main.value(labels, rival))
    difference = main.sign * (main.of_each(labels, tuned) - main.of_each(labels, rival))
    if main.right_or_wrong(labels, tuned):
        (low, high), p_value = agresti_min(difference), mcnemar(difference)
    else:
        reach = stats.t.ppf(BOUNDS[1], len(labels) - 1) * stats.sem(difference)
        low, high = found - reach, found + reach
        p_value = permutation.p_value(main, labels=labels, one=tuned, other=rival)
    return agreeing(main, {"gain": found, "gain_low": low, "gain_high": high, "p_value": p_value})


def agreeing(main: MainScore, values: dict[str, float]) -> dict[str, float]:
    """The values of a gain, as floats; its interval has 0 if the gain is not significant, and ends where scores do.

    Where a few rows decide, such as those of a rare class, they may have next to no variance: the interval is too
    narrow then, and the p-value, which needs no variance, is right.

    Args:
        values: `gain`, `gain_low`, `gain_high` and `p_value`.
    """
    low, high = values["gain_low"], values["gain_high"]
    if values["p_value"] >= SIGNIFICANT:
        low, high = min(low, 0), max(high, 0)
    ends = {"gain_low": max(low, -main.widest), "gain_high": min(high, main.widest)}
    return {name: float(value) for name, value in (values | ends).items()}


def strongest(main: MainScore, *, labels: np.ndarray, rivals: dict[str, Any]) -> Any:
    """The predictions of the rival with the best main score.

    Args:
        labels: of the rows; rivals: the predictions of each rival, by its name.
    """
    return max(rivals.values(), key=lambda predictions: main.sign * main.value(labels, predictions))


def of_strongest(main: MainScore, gains: dict[str, dict[str, float]]) -> dict[str, float]:
    """The gain over the rival over which it is least, tested against all of them.

    Which rival is the strongest, the same rows decide, and another one may be as strong. A gain is proven over each
    rival, so its p-value is the highest (an intersection-union test, Berger 1982), and its interval begins where the
    lowest does. The best of several rivals is better by chance, so the p-value of a loss is multiplied by their number
    (Bonferroni), and its interval as much wider as a normal one at that level.

    Args:
        gains: `gain`, `gain_low`, `gain_high` and `p_value` of each rival, by its name.
    """
    least = min(gains.values(), key=lambda values: values["gain"])
    if least["gain"] < 0:
        wider = stats.norm.isf(BOUNDS[0] / len(gains)) / stats.norm.isf(BOUNDS[0])
        ends = {end: least["gain"] + float(wider) * (least[end] - least["gain"]) for end in ("gain_low", "gain_high")}
        return agreeing(main, least | ends | {"p_value": min(1.0, least["p_value"] * len(gains))})
    lows, p_values = ([values[key] for values in gains.values()] for key in ("gain_low", "p_value"))
    return least | {"gain_low": min(lows), "p_value": max(p_values)}


def agresti_min(difference: np.ndarray) -> np.ndarray:
    """The 95 % interval of the mean difference, (2,): a normal one with half a row added to each of the four cells that
    `mcnemar` counts, as without them it is too narrow where few rows differ (Agresti & Min 2005).

    Args:
        difference: see `mcnemar`.
    """
    better, worse, rows = (difference > 0).sum() + 0.5, (difference < 0).sum() + 0.5, len(difference) + 2
    middle = (better - worse) / rows
    error = np.sqrt((better + worse) / rows - middle**2) / np.sqrt(rows)
    return np.clip(middle + error * stats.norm.ppf(BOUNDS), -1, 1)


def mcnemar(difference: np.ndarray) -> float:
    """The p-value of the exact test of McNemar 1947.

    Args:
        difference: (rows,): 1 where only one model is right, -1 where only the other is, else 0.
    """
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return stats.binomtest(better, better + worse).pvalue if better + worse else 1.0


def wilson(correct: np.ndarray, level: float = LEVEL) -> dict[str, float]:
    """The confidence interval, `low` and `high`, of the share of rows that are right (Wilson 1927).

    Args:
        correct: (rows,) bool.
    """
    interval = stats.binomtest(int(correct.sum()), len(correct)).proportion_ci(level, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}
