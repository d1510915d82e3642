"""Each text has any of several labels, or none: every label is a decision of its own.

Predictions have one row a text: every label's probability, then whether the model gives it (1.0) or not, its
probability being above the label's threshold; (rows, 2 * labels). Before `decide` they are the probabilities alone.
"""

from collections.abc import Sequence

import numpy as np
from datasets import List, Value
from scipy import special
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from stages.scoring import single_label, thresholds
from stages.scoring.problem import Main

MAIN = Main(
    key="f1_samples",
    name="row F1",
    sign=1,
    factor=100,
    digits=".1f",
    mark="%",
    unit="points",
    test="exact sign test",
)
"""Exact matches say little where texts have many labels, and micro- and macro-F1 are no means over rows."""

NOUN = "label"

COUNTED = "rows, by label"

ANSWER = "labels"

ANSWERS = "answers"

COLUMNS = {
    "accuracy": "exact match",
    "f1_micro": "micro-F1",
    "f1_macro": "macro-F1",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
}

DETAIL = ".3f"

FIGURE = "Row F1 with intervals, ROC, reliability and the F1 of each label"

FEATURES = {"predictions": List(Value("float64")), "references": List(Value("float64"))}

NONE = "(none)"
"""How an answer without a label is told."""


def predictions(logits: np.ndarray) -> np.ndarray:
    """Sigmoid, in float64."""
    return special.expit(logits.astype(np.float64))


def choose(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """Each label's threshold."""
    return thresholds.best(labels, probabilities)


def decide(probabilities: np.ndarray, chosen: Sequence[float]) -> np.ndarray:
    """The probabilities with the answers beside them; without thresholds, those above a half."""
    return np.hstack([probabilities, probabilities > np.asarray(chosen or thresholds.UNSEEN)])


def parted(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities, (rows, labels), and the answers as booleans."""
    probabilities, given = np.hsplit(predictions, 2)
    return probabilities, given.astype(bool)


def scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """F1 averaged over rows, labels and all decisions; exact matches; Hamming loss; log loss, Brier score and expected
    calibration error over all decisions; ROC AUC and average precision, means over the labels that some rows have and
    some do not."""
    probabilities, given = parted(predictions)
    told = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    ranked = [(labels[:, column], probabilities[:, column]) for column in told]
    values = {
        "f1_samples": row_scores(labels, predictions).mean(),
        "accuracy": metrics.accuracy_score(labels, given),
        "f1_micro": metrics.f1_score(labels, given, average="micro", zero_division=0),
        "f1_macro": metrics.f1_score(labels, given, average="macro", zero_division=0),
        "hamming_loss": metrics.hamming_loss(labels, given),
        "log_loss": loss(labels, probabilities),
        "brier": np.square(probabilities - labels).mean(),
        "calibration_error": single_label.calibration_error(*decisions(labels, probabilities)),
        "roc_auc": np.mean([metrics.roc_auc_score(*column) for column in ranked] or [0.5]),
        "average_precision": np.mean(
            [metrics.average_precision_score(*column) for column in ranked] or [labels.mean()]
        ),
    }
    return {name: float(value) for name, value in values.items()}


def complete(labels: np.ndarray, predictions: np.ndarray) -> bool:
    """Whether some label is there in some rows and not in others."""
    return bool((np.ptp(labels, axis=0) > 0).any())


def row_scores(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """F1 of each row's labels, (rows,); 1 where it has none and is given none."""
    _, given = parted(predictions)
    both, either = (labels * given).sum(axis=1), labels.sum(axis=1) + given.sum(axis=1)
    return np.divide(2 * both, either, out=np.ones(len(labels)), where=either > 0)


def class_scores(labels: np.ndarray, predictions: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each label, by its name."""
    _, given = parted(predictions)
    columns = metrics.precision_recall_fscore_support(labels, given, zero_division=0)
    return {
        name: dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
        for name, *values in zip(names, *columns[:3], strict=True)
    }


def curves(labels: np.ndarray, predictions: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
    """Those of one class against another, over all decisions."""
    return single_label.curves(*decisions(labels, parted(predictions)[0]), most)


def decisions(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a row has a label, as a row of two classes for every row and label, and their probabilities."""
    yes = probabilities.ravel()
    return labels.ravel().astype(int), np.column_stack([1 - yes, yes])


def truth(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """The names of each row's labels, with commas between them."""
    rows = [", ".join(name for name, has in zip(names, row, strict=True) if has) for row in labels]
    return np.array([row or NONE for row in rows], dtype=object)


def answers(predictions: np.ndarray, names: list[str]) -> np.ndarray:
    """The names of the labels that each row is given."""
    return truth(parted(predictions)[1], names)


def confidence(predictions: np.ndarray) -> dict[str, np.ndarray]:
    """The probability of a row's whole answer, were its labels independent."""
    probabilities, given = parted(predictions)
    return {"probability": np.where(given, probabilities, 1 - probabilities).prod(axis=1)}


def detail(predictions: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The probability of every label."""
    return dict(zip(names, parted(predictions)[0].T, strict=True))


def constant() -> tuple[str, BaseEstimator]:
    """The labels' shares."""
    return "majority", OneVsRestClassifier(DummyClassifier(strategy="prior"))


def linear(strength: float) -> BaseEstimator:
    """A logistic regression for each label."""
    return OneVsRestClassifier(LogisticRegression(C=strength, solver="newton-cg", max_iter=1000))


def fitted(model: BaseEstimator, inputs: np.ndarray) -> np.ndarray:
    """The model's probability of each label."""
    return model.predict_proba(inputs)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Log loss, the mean over all decisions."""
    return metrics.log_loss(labels.ravel(), probabilities.ravel(), labels=[0, 1])
