"""Each text has a number: predictions are numbers, (rows,)."""

from collections.abc import Sequence

import numpy as np
from datasets import Value
from scipy import stats
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge

from stages.scoring.problem import Main
from stages.scoring.single_label import thinned

MAIN = Main(key="mae", name="MAE", sign=-1, factor=1, digits=".4g", mark="", unit="", test="exact sign test")

NOUN = "number"

COUNTED = "numbers"

ANSWER = "value"

ANSWERS = "numbers"

COLUMNS = {"rmse": "RMSE", "r2": "R²", "pearson": "Pearson", "spearman": "Spearman"}

DETAIL = ".4g"

FIGURE = "MAE with intervals, and how far the answers are from the numbers"

FEATURES = {"predictions": Value("float64"), "references": Value("float64")}


def predictions(logits: np.ndarray) -> np.ndarray:
    """The only logit, in float64."""
    return logits[:, 0].astype(np.float64)


def choose(labels: np.ndarray, numbers: np.ndarray) -> list[float]:
    """None: a number is an answer."""
    return []


def decide(numbers: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """The numbers as they are."""
    return numbers


def scores(labels: np.ndarray, numbers: np.ndarray) -> dict[str, float]:
    """Mean absolute and squared error, and the latter's root; R²; the correlations of Pearson and Spearman, which are 0
    where one side is constant."""
    varies = np.ptp(labels) > 0
    related = varies and np.ptp(numbers) > 0
    mse = metrics.mean_squared_error(labels, numbers)
    values = {
        "mae": metrics.mean_absolute_error(labels, numbers),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "r2": metrics.r2_score(labels, numbers) if varies else 0,
        "pearson": stats.pearsonr(labels, numbers).statistic if related else 0,
        "spearman": stats.spearmanr(labels, numbers).statistic if related else 0,
    }
    return {name: float(value) for name, value in values.items()}


def complete(labels: np.ndarray, numbers: np.ndarray) -> bool:
    """Whether the labels differ."""
    return bool(np.ptp(labels) > 0)


def row_scores(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Minus each row's absolute error, (rows,)."""
    return -np.abs(labels.astype(np.float64) - numbers)


def class_scores(labels: np.ndarray, numbers: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Nothing: there are no classes."""
    return {}


def curves(labels: np.ndarray, numbers: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
    """The share of rows whose error is within a bound (REC curve; Bi & Bennett 2003)."""
    errors = np.sort(-row_scores(labels, numbers))
    shares = np.arange(1, len(errors) + 1) / len(errors)
    return {"error_characteristic": thinned({"error": errors, "rows_within": shares}, most)}


def truth(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """The numbers."""
    return labels


def answers(numbers: np.ndarray, names: list[str]) -> np.ndarray:
    """The numbers."""
    return numbers


def confidence(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Nothing: a number comes without a probability."""
    return {}


def detail(numbers: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Nothing beside the number."""
    return {}


def constant() -> tuple[str, BaseEstimator]:
    """The median, of all constants the one with the lowest MAE."""
    return "median", DummyRegressor(strategy="median")


def linear(strength: float) -> BaseEstimator:
    """Ridge regression; `strength` is that of a support vector machine's C."""
    return Ridge(alpha=1 / (2 * strength))


def fitted(model: BaseEstimator, inputs: np.ndarray) -> np.ndarray:
    """The model's numbers."""
    return model.predict(inputs)


def loss(labels: np.ndarray, numbers: np.ndarray) -> float:
    """Mean squared error, which the linear models minimise on the training rows too."""
    return metrics.mean_squared_error(labels, numbers)
