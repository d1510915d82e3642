"""Scores of single-label classification."""

from collections import Counter
from typing import Any

import numpy as np
from datasets import List, Value
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from stages.common import rivals
from stages.problems.single_label import SingleLabel, right
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem


class ScoredSingleLabel(SingleLabel, ScoredProblem):
    """Predictions are class probabilities, (rows, classes)."""

    label_type = Value("int64")
    prediction_type = List(Value("float64"))

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Accuracy, plain and balanced; macro-averaged precision, recall and F1; MCC; log loss, Brier score, expected
        calibration error; ROC AUC, with more than two classes the one-vs-rest mean. Means are over the classes that
        have rows."""
        answers, classes = predictions.argmax(axis=1), np.arange(predictions.shape[1])
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
            "log_loss": metrics.log_loss(labels, predictions, labels=classes),
            "brier": metrics.brier_score_loss(labels, predictions, labels=classes),
            "calibration_error": curves.calibration_error(labels, predictions),
            "roc_auc": np.mean([metrics.roc_auc_score(labels == name, predictions[:, name]) for name in ranked]),
        }
        return {name: float(value) for name, value in values.items()}

    def complete(self, labels: np.ndarray, predictions: np.ndarray) -> bool:
        """Whether at least two classes have rows."""
        return len(np.unique(labels)) > 1

    def row_errors(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Whether each row's most probable class is another than its label, (rows,) bool."""
        return ~right(labels, predictions)

    def class_scores(
        self, labels: np.ndarray, predictions: np.ndarray, names: list[str]
    ) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of each class, by its name."""
        columns = metrics.precision_recall_fscore_support(
            labels, predictions.argmax(axis=1), labels=np.arange(len(names)), zero_division=0
        )
        return {
            name: dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
            for name, *values in zip(names, *columns[:3], strict=True)
        }

    def curves(self, labels: np.ndarray, predictions: np.ndarray, most: int) -> dict[str, list[dict[str, float]]]:
        risk = {"risk_coverage": curves.risk_coverage_points(labels, predictions, most)}
        return curves.of_classes(labels, predictions, most) | risk

    def answer_tables(self, truth: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
        """How many rows of each class are given each answer, where any are."""
        counts = [
            {"model": model, "label": label, "answer": answer, "rows": rows}
            for model, given in answers.items()
            for (label, answer), rows in sorted(Counter(zip(truth, given, strict=True)).items())
        ]
        return {"confusion": counts}

    def constant(self) -> tuple[str, BaseEstimator]:
        """Predicts each class's share of the rows it was fitted on."""
        return rivals.MAJORITY, DummyClassifier(strategy="prior")

    def linear(self, strength: float) -> BaseEstimator:
        """Logistic regression; on a probe's features `newton-cg` is several times faster than the default solver."""
        return LogisticRegression(C=strength, solver="newton-cg", max_iter=1000)

    def fitted(self, model: BaseEstimator, inputs: np.ndarray) -> np.ndarray:
        """The model's class probabilities."""
        return model.predict_proba(inputs)

    def loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Log loss."""
        return metrics.log_loss(labels, outputs, labels=range(outputs.shape[1]))

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Of each class, as many labels are suspect as are estimated to be wrong, those with the lowest quality first
        (Northcutt, Jiang & Chuang 2021, section 3, "prune by noise rate"). The quality is the margin of the label's
        probability over the highest of the others, scaled to [0, 1]."""
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        return {
            "quality": get_label_quality_scores(labels, outputs, method="normalized_margin"),
            "label_probability": outputs[np.arange(len(labels)), labels],
            "suspect": find_label_issues(labels, outputs, n_jobs=1),
        }
