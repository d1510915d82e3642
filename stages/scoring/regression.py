"""Scores of regression."""

from typing import Any

import numpy as np
from datasets import Value
from scipy import stats
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge

from stages.common import rivals
from stages.problems.regression import Regression, absolute_errors
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem

MOST_SPREADS = 3.5
"""A label whose error is more robust standard deviations is suspect."""


class ScoredRegression(Regression, ScoredProblem):
    """Predictions are numbers, (rows,)."""

    compared = ("rmse",)
    after_tuning = ("pearson", "spearman")
    label_type = Value("float64")
    prediction_type = Value("float64")

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Mean absolute error; mean squared error and its root; R²; Pearson and Spearman correlations, which are 0
        where labels or predictions are constant."""
        varies = np.ptp(labels) > 0
        related = varies and np.ptp(predictions) > 0
        mse = metrics.mean_squared_error(labels, predictions)
        values = {
            "mae": metrics.mean_absolute_error(labels, predictions),
            "mse": mse,
            "rmse": np.sqrt(mse),
            "r2": metrics.r2_score(labels, predictions) if varies else 0,
            "pearson": stats.pearsonr(labels, predictions).statistic if related else 0,
            "spearman": stats.spearmanr(labels, predictions).statistic if related else 0,
        }
        return {name: float(value) for name, value in values.items()}

    def complete(self, labels: np.ndarray, predictions: np.ndarray) -> bool:
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

    def fitted(self, model: BaseEstimator, inputs: np.ndarray, names: list[str]) -> np.ndarray:
        """The model's numbers."""
        return model.predict(inputs)

    def loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Mean squared error, which the linear models minimise on the training rows too."""
        return metrics.mean_squared_error(labels, outputs)

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """By the error in units of its robust standard deviation, the scaled median of absolute errors: suspect above
        `MOST_SPREADS` (Iglewicz & Hoaglin 1993); the quality falls exponentially with it, as in cleanlab."""
        distance = np.abs(labels.astype(np.float64) - outputs)
        spread = np.median(distance) / stats.norm.ppf(0.75)
        distance = distance / max(spread, np.finfo(float).tiny)
        return {"quality": np.exp(-distance), "suspect": distance > MOST_SPREADS}
