"""Confidence intervals of scores: the same for every model and problem."""

from typing import Any

import numpy as np
import pandas as pd
import sklearn

from stages.evidence.significance import BOUNDS, resampled, wilson
from stages.problems.main_score import MainScore, RowMean
from stages.scoring.scored import ScoredProblem

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
            return wilson(values)
        drawn = [values[rows].mean() for rows in resampled(len(values), RESAMPLES)]
    else:
        drawn = [main.value(labels[rows], predictions[rows]) for rows in resampled(len(labels), RESAMPLES)]
    low, high = np.quantile(drawn, BOUNDS)
    return {"low": float(low), "high": float(high)}
