"""From labels and probabilities to metrics and curves; the same for every model, without torch."""

import datasets
import evaluate
import numpy as np
from sklearn import metrics


class ClassificationScores(evaluate.Metric):
    """Scores of class probabilities against labels, as an `evaluate` metric that needs no hub."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, macro-averaged precision, recall and F1, MCC, log loss and ROC AUC.",
            citation="",
            inputs_description="predictions: probabilities of each class; references: index of the true class.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        probabilities, labels = np.asarray(predictions), np.asarray(references)
        answers = probabilities.argmax(axis=1)
        classes = np.arange(probabilities.shape[1])
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, answers, labels=classes, average="macro", zero_division=0
        )
        positive = probabilities[:, 1] if len(classes) == 2 else probabilities
        scores = {
            "accuracy": metrics.accuracy_score(labels, answers),
            "precision_macro": precision,
            "recall_macro": recall,
            "f1_macro": f1,
            "mcc": metrics.matthews_corrcoef(labels, answers),
            "log_loss": metrics.log_loss(labels, probabilities, labels=classes),
            "roc_auc": metrics.roc_auc_score(labels, positive, labels=classes, multi_class="ovr"),
        }
        return {name: float(score) for name, score in scores.items()}


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of `ClassificationScores`.

    Args:
        labels: index of the true class, (rows,).
        probabilities: of each class, (rows, classes); rows sum to 1.
    """
    return ClassificationScores(keep_in_memory=True).compute(predictions=probabilities, references=labels)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (rows, classes), float64, whose rows sum to 1 as exactly as float64 can."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


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
