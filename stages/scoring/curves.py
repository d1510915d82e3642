"""Points of the curves that `dvc plots` draws, and the calibration error that one of them shows."""

import numpy as np
import pandas as pd
from sklearn import metrics

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""


def of_classes(labels: np.ndarray, probabilities: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
    """The points of every curve of class probabilities, by its name; of the first two, at most `most` points each.

    Args:
        labels: (rows,); probabilities: (rows, classes).
    """
    return {
        "roc": roc_points(labels, probabilities, most),
        "precision_recall": precision_recall_points(labels, probabilities, most),
        "reliability": reliability_points(labels, probabilities),
    }


def roc_points(labels: np.ndarray, probabilities: np.ndarray, most: int) -> list[dict[str, float]]:
    """Points of the ROC curve; with more than two classes, of the micro-average over one-vs-rest decisions."""
    false, true, _ = metrics.roc_curve(*decisions(labels, probabilities))
    return thinned({"false_positive_rate": false, "true_positive_rate": true}, most)


def precision_recall_points(labels: np.ndarray, probabilities: np.ndarray, most: int) -> list[dict[str, float]]:
    """Points of the precision-recall curve; averaged over classes like `roc_points`."""
    precision, recall, _ = metrics.precision_recall_curve(*decisions(labels, probabilities))
    return thinned({"recall": recall, "precision": precision}, most)


def decisions(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The binary labels that a curve is drawn over, and their scores."""
    if probabilities.shape[1] == 2:
        return labels, probabilities[:, 1]
    return np.eye(probabilities.shape[1])[labels].ravel(), probabilities.ravel()


def reliability_points(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """Points of the reliability diagram: for each bin of `calibration_error` with rows, their means and number."""
    bins, confidence, right = by_confidence(labels, probabilities)
    table = pd.DataFrame({"confidence": confidence, "accuracy": right, "rows": 1}).groupby(bins)
    return table.agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"}).to_dict("records")


def calibration_error(gaps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Expected calibration error of each draw, (draws,): the mean distance between confidence and accuracy (Guo et al.
    2017, eq. 3).

    Args:
        gaps: see `calibration_gaps`; counts: how often each row is in each draw, (draws, rows) float.
    """
    return np.abs(counts @ gaps).sum(axis=1) / counts.sum(axis=1)


def calibration_gaps(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Each row's accuracy minus confidence in its bin, 0 in the others, (rows, bins).

    Rows are grouped by the probability of their answer, into `CALIBRATION_BINS` bins of equal width.
    """
    bins, confidence, right = by_confidence(labels, probabilities)
    return np.eye(CALIBRATION_BINS)[bins] * (right - confidence)[:, None]


def by_confidence(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's bin, the probability of its answer, and whether the answer is right."""
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins, confidence, probabilities.argmax(axis=1) == labels


def risk_coverage_points(labels: np.ndarray, probabilities: np.ndarray, most: int) -> list[dict[str, float]]:
    """The share of wrong answers among the most confident ones, by the share of rows that these are (El-Yaniv and
    Wiener 2010); at most `most` points."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    rows = np.arange(1, len(labels) + 1)
    return thinned({"coverage": rows / len(labels), "risk": np.cumsum(wrong) / rows}, most)


def of_errors(errors: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
    """The share of rows whose absolute error, (rows,), is within a bound (REC curve; Bi & Bennett 2003)."""
    shares = np.arange(1, len(errors) + 1) / len(errors)
    return {"error_characteristic": thinned({"error": np.sort(errors), "rows_within": shares}, most)}


def thinned(curve: dict[str, np.ndarray], most: int) -> list[dict[str, float]]:
    """At most `most` points of a curve, evenly spaced, both ends included."""
    length = len(next(iter(curve.values())))
    kept = np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int))
    return [{name: float(values[index]) for name, values in curve.items()} for index in kept]
