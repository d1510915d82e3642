"""Each text has one of several classes: predictions are class probabilities, (rows, classes), whose rows sum to 1."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from datasets import List, Value
from scipy import special
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from stages.scoring.problem import Main

MAIN = Main(
    key="accuracy",
    name="accuracy",
    sign=1,
    factor=100,
    digits=".1f",
    mark="%",
    unit="points",
    test="exact McNemar test",
)

NOUN = "class"

COUNTED = "rows, by class"

ANSWER = "label"

ANSWERS = "answers"

COLUMNS = {"f1_macro": "macro-F1", "mcc": "MCC", "log_loss": "log loss", "roc_auc": "ROC AUC"}

DETAIL = ".3f"

FIGURE = "Accuracies with intervals, ROC, reliability and confusions"

FEATURES = {"predictions": List(Value("float64")), "references": Value("int64")}

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""


def predictions(logits: np.ndarray) -> np.ndarray:
    """Softmax, in float64: in float32 the sums miss 1 by more than scikit-learn allows."""
    return special.softmax(logits.astype(np.float64), axis=1)


def choose(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """None: the most probable class is the answer."""
    return []


def decide(probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """The probabilities as they are."""
    return probabilities


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, plain and balanced; macro-averaged precision, recall and F1; MCC; log loss, Brier score, expected
    calibration error; ROC AUC, of more than two classes the mean of each against the rest. Means are over the classes
    that have rows."""
    answers, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    present = np.unique(labels)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, answers, labels=present, average="macro", zero_division=0
    )
    ranked = present if len(classes) > 2 else classes[1:]
    values = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": recall,
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "mcc": metrics.matthews_corrcoef(labels, answers),
        "log_loss": metrics.log_loss(labels, probabilities, labels=classes),
        "brier": metrics.brier_score_loss(labels, probabilities, labels=classes),
        "calibration_error": calibration_error(labels, probabilities),
        "roc_auc": np.mean([metrics.roc_auc_score(labels == name, probabilities[:, name]) for name in ranked]),
    }
    return {name: float(value) for name, value in values.items()}


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy (Guo et al. 2017, eq. 3).

    Rows are grouped by the probability of their answer, into `CALIBRATION_BINS` bins of equal width.
    """
    bins, certainty, right = by_confidence(probabilities, labels)
    return np.abs(np.bincount(bins, weights=right - certainty)).sum() / len(labels)


def reliability_points(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """Points of the reliability diagram: for each bin of `calibration_error` that holds rows, its means."""
    bins, certainty, right = by_confidence(probabilities, labels)
    table = pd.DataFrame({"confidence": certainty, "accuracy": right, "rows": 1}).groupby(bins)
    return table.agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"}).to_dict("records")


def by_confidence(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's bin, the probability of its answer, and whether that is right."""
    certainty = probabilities.max(axis=1)
    bins = np.minimum((certainty * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins, certainty, row_scores(labels, probabilities)


def complete(labels: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether two classes have rows."""
    return len(np.unique(labels)) > 1


def row_scores(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether each row's most probable class is its label, (rows,) bool."""
    return probabilities.argmax(axis=1) == labels


def class_scores(labels: np.ndarray, probabilities: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each class, by its name."""
    columns = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(names)), zero_division=0
    )
    return {
        name: dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
        for name, *values in zip(names, *columns[:3], strict=True)
    }


def curves(labels: np.ndarray, probabilities: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
    """The points of every curve, by its name; at most `most` of each of the first two."""
    return {
        "roc": roc_points(labels, probabilities, most),
        "precision_recall": precision_recall_points(labels, probabilities, most),
        "reliability": reliability_points(labels, probabilities),
    }


def roc_points(labels: np.ndarray, probabilities: np.ndarray, most: int) -> list[dict[str, float]]:
    """Points of the ROC curve; with more than two classes, of the micro-average over one-against-rest decisions."""
    false, true, _ = metrics.roc_curve(*decisions(labels, probabilities))
    return thinned({"false_positive_rate": false, "true_positive_rate": true}, most)


def precision_recall_points(labels: np.ndarray, probabilities: np.ndarray, most: int) -> list[dict[str, float]]:
    """Points of the precision-recall curve; averaged over classes like `roc_points`."""
    precision, recall, _ = metrics.precision_recall_curve(*decisions(labels, probabilities))
    return thinned({"recall": recall, "precision": precision}, most)


def decisions(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The yes-or-no questions that a curve is drawn over, and their scores."""
    if probabilities.shape[1] == 2:
        return labels, probabilities[:, 1]
    return np.eye(probabilities.shape[1])[labels].ravel(), probabilities.ravel()


def thinned(curve: dict[str, np.ndarray], most: int) -> list[dict[str, float]]:
    """At most `most` points of a curve, evenly spaced, its ends among them."""
    length = len(next(iter(curve.values())))
    kept = np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int))
    return [{name: float(values[index]) for name, values in curve.items()} for index in kept]


def truth(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """The name of each row's class."""
    return np.asarray(names)[labels]


def answers(probabilities: np.ndarray, names: list[str]) -> np.ndarray:
    """The name of each row's most probable class."""
    return truth(probabilities.argmax(axis=1), names)


def confidence(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """The probability of that class."""
    return {"probability": probabilities.max(axis=1)}


def detail(probabilities: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The probability of every class."""
    return dict(zip(names, probabilities.T, strict=True))


def constant() -> tuple[str, BaseEstimator]:
    """The class shares."""
    return "majority", DummyClassifier(strategy="prior")


def linear(strength: float) -> BaseEstimator:
    """Logistic regression; on a probe's features `newton-cg` is several times faster than the default solver."""
    return LogisticRegression(C=strength, solver="newton-cg", max_iter=1000)


def fitted(model: BaseEstimator, inputs: np.ndarray) -> np.ndarray:
    """The model's class probabilities."""
    return model.predict_proba(inputs)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Log loss."""
    return metrics.log_loss(labels, probabilities)
