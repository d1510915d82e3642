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
from stages.problems.main_score import below
from stages.problems.multi_label import Decisions, MultiLabel, row_f1
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem


class ScoredMultiLabel(MultiLabel, ScoredProblem):
    """Predictions are `Decisions`."""

    label_type = List(Value("float64"))
    prediction_type: ClassVar[dict[str, Any]] = {"probabilities": List(Value("float64")), "given": List(Value("bool"))}

    def scores_of_draws(self, labels: np.ndarray, predictions: Decisions, counts: np.ndarray) -> dict[str, np.ndarray]:
        """F1 averaged over rows, labels and all decisions; exact matches; Hamming loss; log loss, Brier score and
        expected calibration error over all decisions; ROC AUC and average precision, means over the labels that some
        rows have and some do not."""
        main = {key: score.values(labels, predictions, counts) for key, score in self.main_scores.items()}
        probabilities, given, true = predictions.probabilities, predictions.given, labels > 0
        hits, either = (counts @ one.sum(axis=1) for one in (true & given, given.astype(float) + true))
        gaps = curves.calibration_gaps(*each_decision(labels, probabilities))
        rows = counts.sum(axis=1)
        return {
            "f1_samples": main["f1_samples"],
            "accuracy": main["accuracy"],
            "f1_micro": 2 * hits / np.maximum(either, 1),
            "f1_macro": main["f1_macro"],
            "hamming_loss": counts @ (true != given).mean(axis=1) / rows,
            "log_loss": main["log_loss"],
            "brier": counts @ np.square(probabilities - labels).mean(axis=1) / rows,
            "calibration_error": curves.calibration_error(gaps.reshape(*true.shape, -1).mean(axis=1), counts),
            "roc_auc": main["roc_auc"],
            "average_precision": average_precision(true, probabilities, counts),
        }

    def complete(self, labels: np.ndarray) -> bool:
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

    def loss(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Log loss, the mean over all decisions."""
        weights = None if weights is None else np.repeat(weights, labels.shape[1])
        return metrics.log_loss(labels.ravel(), outputs.ravel(), sample_weight=weights, labels=[0, 1])

    def rows_of_each(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return labels.sum(axis=0)

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray, learnt: np.ndarray) -> dict[str, np.ndarray]:
        """Suspect are rows of which at least one label is, given or missing, each label being judged as one of two
        classes is; the quality is a mean over labels in which the worst count most (Thyagarajan et al. 2022). A label
        that is not learnt, or that all rows have, or none, is not judged; every row is, by its other labels."""
        from cleanlab.multilabel_classification import filter, get_label_quality_scores

        judged = learnt & (np.ptp(labels, axis=0) > 0)
        some, has, of_judged = judged.any(), labels[:, judged], outputs[:, judged]
        if judged.sum() == 1:  # cleanlab takes two labels or more: of a single one, the other is to lack it
            has, of_judged = np.hstack([has, 1 - has]), np.hstack([of_judged, 1 - of_judged])
        given = [np.flatnonzero(row).tolist() for row in has]
        return {
            "quality": get_label_quality_scores(given, of_judged) if some else np.ones(len(labels)),
            "label_probability": self.confidence(Decisions(probabilities=outputs, given=labels > 0))["probability"],
            "judged": np.ones(len(labels), dtype=bool),
            "suspect": filter.find_label_issues(given, of_judged, n_jobs=1) if some else np.zeros(len(labels), bool),
        }


def average_precision(true: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The average precision of each draw, (draws,), averaged over the labels that some of its rows have and some do
    not; without such a label, the share of labels that the rows have.

    Of one label it is the mean, over the rows that have it, of the precision among all rows with at least the same
    probability (Manning, Raghavan & Schütze 2008, section 8.4).

    Args:
        true, probabilities: (rows, labels); counts: see `ScoredProblem.scores_of_draws`.
    """
    drawn, rows = np.ascontiguousarray(counts.T), counts.sum(axis=1)
    total, labels = np.zeros((2, len(counts)))
    for has, scores in zip(true.T, probabilities.T, strict=True):
        values, with_label, positive = scores[has], drawn[has], drawn[has].sum(axis=0)
        hits, answered = (
            of.sum(axis=0) - below(values, among, of)[0] for among, of in ((values, with_label), (scores, drawn))
        )
        precision = np.divide(hits, answered, out=np.zeros_like(hits), where=answered > 0)
        mixed = (positive > 0) & (positive < rows)
        total += np.divide((with_label * precision).sum(axis=0), positive, out=np.zeros_like(rows), where=mixed)
        labels += mixed
    return np.divide(total, labels, out=counts @ true.mean(axis=1) / rows, where=labels > 0)


def each_decision(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of row and label as a binary decision: the class, (decisions,), and probabilities, (decisions, 2)."""
    yes = probabilities.ravel()
    return labels.ravel().astype(int), np.column_stack([1 - yes, yes])
