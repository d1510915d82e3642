"""Scores of regression."""

from typing import Any

import numpy as np
from datasets import Value
from scipy import stats
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import RobustScaler
from sklearn.svm import LinearSVR

from stages.common import rivals
from stages.problems.main_score import below
from stages.problems.regression import Regression, absolute_errors
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem

MAX_ITERATIONS = 300
"""Passes over the rows of the rival that minimises the absolute errors."""

MOST_SPREADS = 3.5
"""A label whose error is more robust standard deviations is suspect."""


class ScoredRegression(Regression, ScoredProblem):
    """Predictions are numbers, (rows,)."""

    compared = ("rmse",)
    after_tuning = ("pearson", "spearman")
    label_type = Value("float64")
    prediction_type = Value("float64")

    def scores_of_draws(self, labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Mean absolute error; mean squared error and its root; R²; Pearson and Spearman correlations, which are 0
        where labels or predictions are constant."""
        labels, rows = labels.astype(np.float64), counts.sum(axis=1)
        mse = counts @ np.square(predictions - labels) / rows
        spread = (counts * np.square(centred(labels, counts))).sum(axis=1) / rows
        ranks = [sum(below(values, values, counts.T)).T for values in (labels, predictions)]
        return {
            "mae": self.main_scores["mae"].values(labels, predictions, counts),
            "mse": mse,
            "rmse": np.sqrt(mse),
            "r2": 1 - np.divide(mse, spread, out=np.ones_like(mse), where=spread > 0),
            "pearson": correlation(labels, predictions, counts),
            "spearman": correlation(*ranks, counts),
        }

    def complete(self, labels: np.ndarray) -> bool:
        """Whether the labels differ."""
        return bool(np.ptp(labels) > 0)

    def row_errors(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Each row's absolute error, (rows,)."""
        return absolute_errors(labels, predictions)

    def class_scores(
        self, labels: np.ndarray, predictions: np.ndarray, names: list[str]
    ) -> dict[str, dict[str, float]]:
        """Nothing: there are no classes."""
        return {}

    def curves(self, labels: np.ndarray, predictions: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
        return curves.of_errors(self.row_errors(labels, predictions), most)

    def answer_tables(self, truth: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
        """Every row's true number and the models'."""
        pairs = [
            {"model": model, "label": label, "answer": answer}
            for model, given in answers.items()
            for label, answer in zip(truth, given, strict=True)
        ]
        return {"numbers": pairs}

    def constant(self) -> tuple[str, BaseEstimator]:
        """The median, the constant with the lowest MAE."""
        return rivals.MEDIAN, DummyRegressor(strategy="median")

    def linear(self, strength: float) -> BaseEstimator:
        """Ridge regression; `strength` has the meaning of a support vector machine's C."""
        return Ridge(alpha=1 / (2 * strength))

    def candidates(self, strength: float) -> list[BaseEstimator]:
        """Ridge regression, and a support vector machine that minimises the absolute errors: better where a few numbers
        are very large. With fewer iterations than it may take to converge."""
        absolute = LinearSVR(C=strength, random_state=0, max_iter=MAX_ITERATIONS)
        return [self.linear(strength), TransformedTargetRegressor(absolute, transformer=RobustScaler())]

    def fitted(self, model: BaseEstimator, inputs: np.ndarray, names: list[str]) -> np.ndarray:
        """The model's numbers."""
        return model.predict(inputs)

    def loss(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Mean absolute error, by which the models are compared."""
        return metrics.mean_absolute_error(labels, outputs, sample_weight=weights)

    def rows_of_each(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.array([len(labels)])

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray, learnt: np.ndarray) -> dict[str, np.ndarray]:
        """By the error in units of its robust standard deviation, the scaled median of absolute errors: suspect above
        `MOST_SPREADS` (Iglewicz & Hoaglin 1993); the quality falls exponentially with it, as in cleanlab."""
        distance = np.abs(labels.astype(np.float64) - outputs)
        spread = np.median(distance) / stats.norm.ppf(0.75)
        distance = distance / max(spread, np.finfo(float).tiny)
        judged = np.full(len(labels), learnt.all())
        return {"quality": np.exp(-distance), "judged": judged, "suspect": judged & (distance > MOST_SPREADS)}


def correlation(one: np.ndarray, other: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation in each draw, (draws,); 0 where one side is constant.

    Args:
        one, other: of each row, (rows,), or of each row in each draw, (draws, rows).
        counts: how often each row is in each draw, (draws, rows) float.
    """
    one, other = centred(one, counts), centred(other, counts)
    spread = np.sqrt((counts * one**2).sum(axis=1) * (counts * other**2).sum(axis=1))
    return np.divide((counts * one * other).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 0)


def centred(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The values of the rows minus their mean in each draw, (draws, rows); 0 where all drawn values are equal."""
    drawn = np.where(counts > 0, values, np.nan)
    constant = np.nanmin(drawn, axis=1) == np.nanmax(drawn, axis=1)
    mean = (counts * values).sum(axis=1) / counts.sum(axis=1)
    return (values - mean[:, None]) * ~constant[:, None]
