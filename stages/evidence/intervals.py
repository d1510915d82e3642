"""Confidence intervals of scores: the same for every model and problem."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stages.evidence.significance import BOUNDS, over_draws, resampled, wilson
from stages.problems.main_score import MainScore, RowMean
from stages.scoring.scored import ScoredProblem

RESAMPLES = 1_000
"""Bootstrap resamples behind the interval of a main score."""


def intervals(
    problem: ScoredProblem, main: MainScore, *, labels: np.ndarray, predictions: Any, resamples: int
) -> dict[str, dict[str, float]]:
    """The 95 % confidence interval, `low` and `high`, of every metric.

    The intervals are percentiles over bootstrap resamples of the rows (Efron 1979); that of the main score comes from
    `main_interval`. A resample without the classes that some metric needs is left out. The calibration error has none:
    resampled rows are always calibrated worse, so that its percentiles lie too high.
    """
    drawn = []
    for counts in resampled(len(labels), resamples):
        kept = [problem.complete(labels[times > 0], predictions[times > 0]) for times in counts]
        drawn.append(pd.DataFrame(problem.scores_of_draws(labels, predictions, counts[kept])))
    table = pd.concat(drawn).drop(columns="calibration_error", errors="ignore").quantile(BOUNDS)
    result = {name: dict(zip(("low", "high"), map(float, column), strict=True)) for name, column in table.items()}
    return result | {main.key: main_interval(main, labels=labels, predictions=predictions)}


def main_interval(main: MainScore, *, labels: np.ndarray, predictions: Any) -> dict[str, float]:
    """The 95 % confidence interval of the main score, `low` and `high`.

    Where each row is either right or wrong, it is Wilson's interval (1927); else a bootstrap interval.
    """
    if isinstance(main, RowMean):
        values = main.of_rows(labels, predictions)
        if values.dtype == bool:
            return wilson(values)
    drawn = over_draws(partial(main.values, labels, predictions), len(labels), RESAMPLES)
    low, high = np.quantile(drawn, BOUNDS)
    return {"low": float(low), "high": float(high)}
