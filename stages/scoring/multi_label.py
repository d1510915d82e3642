"""Scores of multi-label classification."""

from typing import Any, ClassVar

import numpy as np
from datasets import List, Value
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from stages.common import rivals
from stages.problems.multi_label import Decisions, MultiLabel, row_f1
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem


class ScoredMultiLabel(MultiLabel, ScoredProblem):
    """Predictions are `Decisions`."""

    label_type = List(Value("float64"))
    prediction_type: ClassVar[dict[str, Any]] = {"probabilities": List(Value("float64")), "given": List(Value("bool"))}

    def scores(self, labels: np.ndarray, predictions: Decisions) -> dict[str, float]:
        """F1 averaged over rows, labels and all decisions; exact matches; Hamming loss; log loss, Brier score and
        expected calibration error over all decisions; ROC AUC and average precision, means over the labels that some
        rows have and some do not."""
        probabilities, given = predictions.probabilities, predictions.given
        mixed = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
        ranked = [(labels[:, column], probabilities[:, column]) for column in mixed]
        values = {
            "f1_samples": row_f1(labels, predictions).mean(),
            "accuracy": metrics.accuracy_score(labels, given),
            "f1_micro": metrics.f1_score(labels, given, average="micro", zero_division=0),
            "f1_macro": metrics.f1_score(labels, given, average="macro", zero_division=0),
            "hamming_loss": metrics.hamming_loss(labels, given),
            "log_loss": self.loss(labels, probabilities),
            "brier": np.square(probabilities - labels).mean(),
            "calibration_error": curves.calibration_error(*each_decision(labels, probabilities)),
            "roc_auc": np.mean([metrics.roc_auc_score(*column) for column in ranked] or [0.5]),
            "average_precision": np.mean(
                [metrics.average_precision_score(*column) for column in ranked] or [labels.mean()]
            ),
        }
        return {name: float(value) for name, value in values.items()}

    def complete(self, labels: np.ndarray, predictions: Decisions) -> bool:
        """Whether at least one label is present in some rows and absent in others."""
        return bool((np.ptp(labels, axis=0) > 0).any())

    def row_errors(self, labels: np.ndarray, predictions: Decisions) -> np.ndarray:
        """1 - F1 of each row's labels, (rows,)."""
        return 1 - row_f1(labels, predictions)

    def class_scores(self, labels: np.ndarray, predictions: Decisions, names: list[str]) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of each label, by its name."""
        columns = metrics.precision_recall_fscore_support(labels, predictions.given, zero_division=0)
        return {
            name: dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
            for name, *values in zip(names, *columns[:3], strict=True)
        }

    def curves(self, labels: np.ndarray, predictions: Decisions, most: int) -> dict[str, list[dict[str, float]]]:
        """The curves of a binary classification, over all decisions."""
        return curves.of_classes(*each_decision(labels, predictions.probabilities), most)

    def constant(self) -> tuple[str, BaseEstimator]:
        """Predicts each label's share of the rows it was fitted on."""
        return rivals.MAJORITY, OneVsRestClassifier(DummyClassifier(strategy="prior"))

    def linear(self, strength: float) -> BaseEstimator:
        """A logistic regression for each label."""
        return OneVsRestClassifier(LogisticRegression(C=strength, solver="newton-cg", max_iter=1000))

    def fitted(self, model: BaseEstimator, inputs: np.ndarray, names: list[str]) -> np.ndarray:
        """The model's probability of each label."""
        return model.predict_proba(inputs)

    def loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Log loss, the mean over all decisions."""
        return metrics.log_loss(labels.ravel(), outputs.ravel(), labels=[0, 1])

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Suspect are rows of which at least one label is, given or missing, each label being judged as one of two
        classes is; the quality is a mean over labels in which the worst count most (Thyagarajan et al. 2022)."""
        from cleanlab.multilabel_classification import filter, get_label_quality_scores

        given = [np.flatnonzero(row).tolist() for row in labels]
        return {
            "quality": get_label_quality_scores(given, outputs),
            "label_probability": self.confidence(Decisions(probabilities=outputs, given=labels > 0))["probability"],
            "suspect": filter.find_label_issues(given, outputs, n_jobs=1),
        }


def each_decision(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of row and label as a binary decision: the class, (decisions,), and probabilities, (decisions, 2)."""
    yes = probabilities.ravel()
    return labels.ravel().astype(int), np.column_stack([1 - yes, yes])
