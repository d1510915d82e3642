"""From labels and probabilities to metrics, intervals, tests and curves; the same for every model, without torch."""

from collections.abc import Iterator

import datasets
import evaluate
import numpy as np
import pandas as pd
from scipy import special, stats
from sklearn import metrics

LEVEL = 0.95
"""Confidence of every interval."""

BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""


class ClassificationScores(evaluate.Metric):
    """Scores of class probabilities against labels, as an `evaluate` metric that needs no hub."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, plain and balanced; macro-averaged precision, recall and F1; MCC; log loss, Brier "
            "score, expected calibration error; ROC AUC.",
            citation="",
            inputs_description="predictions: probabilities of each class; references: index of the true class.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        return scores(np.asarray(references), np.asarray(predictions))


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of `ClassificationScores`.

    Args:
        labels: index of the true class, (rows,).
        probabilities: of each class, (rows, classes); rows sum to 1.
    """
    return ClassificationScores(keep_in_memory=True).compute(predictions=probabilities, references=labels)


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """What `score` returns, from arrays that are known to be sound."""
    answers, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, answers, labels=classes, average="macro", zero_division=0
    )
    positive = probabilities[:, 1] if len(classes) == 2 else probabilities
    values = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, answers),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "mcc": metrics.matthews_corrcoef(labels, answers),
        "log_loss": metrics.log_loss(labels, probabilities, labels=classes),
        "brier": metrics.brier_score_loss(labels, probabilities, labels=classes),
        "calibration_error": calibration_error(labels, probabilities),
        "roc_auc": metrics.roc_auc_score(labels, positive, labels=classes, multi_class="ovr"),
    }
    return {name: float(value) for name, value in values.items()}


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy (Guo et al. 2017, eq. 3).

    Rows are grouped by the probability of their answer, into `CALIBRATION_BINS` bins of equal width.
    """
    bins, confidence, right = by_confidence(probabilities, labels)
    return np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels)


def reliability_points(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """Points of the reliability diagram: for each bin of `calibration_error` that holds rows, its means."""
    bins, confidence, right = by_confidence(probabilities, labels)
    table = pd.DataFrame({"confidence": confidence, "accuracy": right, "rows": 1}).groupby(bins)
    return table.agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"}).to_dict("records")


def by_confidence(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's bin, the probability of its answer, and whether that is right."""
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins, confidence, correct(labels, probabilities)


def class_scores(labels: np.ndarray, probabilities: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each class, by its name."""
    columns = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(names)), zero_division=0
    )
    return {
        name: dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
        for name, *values in zip(names, *columns[:3], strict=True)
    }


def intervals(labels: np.ndarray, probabilities: np.ndarray, resamples: int) -> dict[str, dict[str, float]]:
    """The 95 % confidence interval, `low` and `high`, of every metric of `score`.

    Accuracy's is Wilson's; the others are percentiles over bootstrap resamples of the rows (Efron 1979). A resample
    that lacks some class is left out: not every metric is defined on it.
    """
    drawn = (
        scores(labels[rows], probabilities[rows])
        for rows in resampled(len(labels), resamples)
        if len(np.unique(labels[rows])) == probabilities.shape[1]
    )
    table = pd.DataFrame(drawn).quantile(BOUNDS)
    result = {name: dict(zip(("low", "high"), map(float, column), strict=True)) for name, column in table.items()}
    return result | {"accuracy": accuracy_interval(labels, probabilities)}


def accuracy_interval(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The 95 % confidence interval of the accuracy, `low` and `high` (Wilson 1927)."""
    right = int(correct(labels, probabilities).sum())
    interval = stats.binomtest(right, len(labels)).proportion_ci(LEVEL, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def gain(labels: np.ndarray, tuned: np.ndarray, rival: np.ndarray, resamples: int) -> dict[str, float]:
    """How much more accurate `tuned` is than `rival` on the same rows, in shares of 1.

    Args:
        labels: (rows,); tuned, rival: probabilities, (rows, classes).

    Returns:
        `gain`, its 95 % interval `gain_low` and `gain_high` (paired bootstrap over rows), and `p_value`, two-sided,
        of "both are right equally often" (exact McNemar test; McNemar 1947).
    """
    difference = correct(labels, tuned).astype(int) - correct(labels, rival)
    drawn = [difference[rows].mean() for rows in resampled(len(labels), resamples)]
    low, high = np.quantile(drawn, BOUNDS)
    fixed, broken = int((difference > 0).sum()), int((difference < 0).sum())
    p_value = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    values = {"gain": difference.mean(), "gain_low": low, "gain_high": high, "p_value": p_value}
    return {name: float(value) for name, value in values.items()}


def resampled(rows: int, resamples: int) -> Iterator[np.ndarray]:
    """Row numbers drawn with replacement, (rows,), so many times; the same in every run."""
    generator = np.random.default_rng(0)
    return (generator.integers(rows, size=rows) for _ in range(resamples))


def correct(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether each row's most probable class is its label, (rows,) bool."""
    return probabilities.argmax(axis=1) == labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (rows, classes) in float64: in float32 their sums miss 1 by more than scikit-learn allows."""
    return special.softmax(logits.astype(np.float64), axis=1)


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
