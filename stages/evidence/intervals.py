"""Confidence intervals of scores: the same for every model and problem."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from stages.evidence import permutation
from stages.evidence.significance import BOUNDS, LEVEL, wilson
from stages.problems.main_score import MainScore, RowMean
from stages.scoring.scored import ScoredProblem


def intervals(
    problem: ScoredProblem, *, labels: np.ndarray, predictions: Any, resamples: int
) -> dict[str, dict[str, float]]:
    """The 95 % confidence interval, `low` and `high`, of every metric.

    Those by which models can be compared have that of `of_main_scores`, the others percentiles over bootstrap
    resamples of the rows (Efron 1979). A resample without the classes that some metric needs is left out. The
    calibration error has none: resampled rows are always calibrated worse, so that its percentiles lie too high.
    """
    drawn = []
    for counts in resampled(len(labels), resamples):
        kept = [problem.complete(labels[times > 0]) for times in counts]
        drawn.append(pd.DataFrame(problem.scores_of_draws(labels, predictions, counts[kept])))
    table = pd.concat(drawn).drop(columns="calibration_error", errors="ignore").quantile(BOUNDS)
    result = {name: dict(zip(("low", "high"), map(float, column), strict=True)) for name, column in table.items()}
    return result | of_main_scores(problem, labels=labels, predictions=predictions)


def of_main_scores(
    problem: ScoredProblem, *, labels: np.ndarray, predictions: Any, level: float = LEVEL
) -> dict[str, dict[str, float]]:
    """The interval of every score by which models can be compared, as far as the rows define it."""
    return {
        key: interval(score, labels=labels, predictions=predictions, level=level)
        for key, score in problem.main_scores.items()
        if defined(problem, score, labels)
    }


def defined(problem: ScoredProblem, score: MainScore, labels: np.ndarray) -> bool:
    """Whether the rows define a score: a mean over rows always; others need, for example, rows of two classes."""
    return isinstance(score, RowMean) or problem.complete(labels)


def interval(score: MainScore, *, labels: np.ndarray, predictions: Any, level: float = LEVEL) -> dict[str, float]:
    """The confidence interval of a score, `low` and `high`; approximate where a class has only a few rows.

    The share of rows that are right has Wilson's interval (1927). Another score with two bounds has it, with Student's
    quantile, for the number of rows at which a share would be as uncertain (Dean & Pagano 2015). A score without an
    upper bound has Student's interval for its logarithm. The variance is that of `MainScore.of_each`: for a score that
    is no mean over rows, the jackknife's (Tukey 1958). Resamples would not do there: where a class has a few rows, many
    of them lack it, and their macro-F1 lies higher or lower than that of the rows.
    """
    if score.right_or_wrong(labels, predictions):
        return wilson(score.of_rows(labels, predictions), level)
    value, rows = score.value(labels, predictions), len(labels)
    variance = score.of_each(labels, predictions).var(ddof=1) / rows
    reach = stats.t.ppf((1 + level) / 2, rows - 1)
    if score.sign < 0:
        factor = np.exp(reach * np.sqrt(variance) / value) if value else 1.0
        return {"low": float(value / factor), "high": float(value * factor)}
    share, spread = (value - score.lowest) / score.widest, variance / score.widest**2
    certain = not spread or share in (0, 1)
    size = rows if certain else share * (1 - share) / spread
    middle = (share + reach**2 / (2 * size)) / (1 + reach**2 / size)
    half = reach * np.sqrt(share * (1 - share) / size + (reach / (2 * size)) ** 2) / (1 + reach**2 / size)
    low, high = score.lowest + score.widest * (middle + half * np.array([-1, 1]))
    return {"low": float(low), "high": float(high)}


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each row is among `rows` rows drawn with replacement, in blocks of (draws, rows) float; `resamples`
    draws in all, the same in every run."""
    generator, most = np.random.default_rng(0), max(1, permutation.AT_ONCE // rows)
    for start in range(0, resamples, most):
        drawn = (generator.integers(rows, size=rows) for _ in range(min(most, resamples - start)))
        yield np.array([np.bincount(each, minlength=rows) for each in drawn], dtype=float)
