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
from stages.problems.single_label import SingleLabel, decisions, right
from stages.scoring import curves
from stages.scoring.scored import ScoredProblem


class ScoredSingleLabel(SingleLabel, ScoredProblem):
    """Predictions are class probabilities, (rows, classes)."""

    label_type = Value("int64")
    prediction_type = List(Value("float64"))

    def scores_of_draws(self, labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy, plain and balanced; macro-averaged precision, recall and F1; MCC; log loss, Brier score, expected
        calibration error; ROC AUC, with more than two classes the one-vs-rest mean. Means are over the classes that
        have rows."""
        main = {key: score.values(labels, predictions, counts) for key, score in self.main_scores.items()}
        true, given = decisions(labels, predictions)
        hits, answered, rows = (counts @ one.astype(float) for one in (true & given, given, true))
        classes = (rows > 0).sum(axis=1)
        precision, recall = ((hits / np.maximum(of, 1) * (rows > 0)).sum(axis=1) / classes for of in (answered, rows))
        squares = np.square(predictions - true).sum(axis=1) / (2 if true.shape[1] == 2 else 1)
        return {
            "accuracy": main["accuracy"],
            "balanced_accuracy": recall,
            "precision_macro": precision,
            "recall_macro": recall,
            "f1_macro": main["f1_macro"],
            "mcc": main["mcc"],
            "log_loss": main["log_loss"],
            "brier": counts @ squares / counts.sum(axis=1),
            "calibration_error": curves.calibration_error(curves.calibration_gaps(labels, predictions), counts),
            "roc_auc": main["roc_auc"],
        }

    def complete(self, labels: np.ndarray) -> bool:
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

    def fitted(self, model: BaseEstimator, inputs: np.ndarray, names: list[str]) -> np.ndarray:
        """The model's class probabilities, 0 for a class without rows among those it was fitted on."""
        of_fitted = model.predict_proba(inputs)
        outputs = np.zeros((len(of_fitted), len(names)))
        outputs[:, model.classes_] = of_fitted
        return outputs

    def loss(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Log loss."""
        return metrics.log_loss(labels, outputs, sample_weight=weights, labels=range(outputs.shape[1]))

    def rows_of_each(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.bincount(labels, minlength=len(names))

    def label_quality(self, labels: np.ndarray, outputs: np.ndarray, learnt: np.ndarray) -> dict[str, np.ndarray]:
        """Of each class, as many labels are suspect as are estimated to be wrong, those with the lowest quality first
        (Northcutt, Jiang & Chuang 2021, section 3, "prune by noise rate"). The quality is the margin of the label's
        probability over the highest of the others, scaled to [0, 1]. A class that is not learnt is not judged."""
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        return {
            "quality": get_label_quality_scores(labels, outputs, method="normalized_margin"),
            "label_probability": outputs[np.arange(len(labels)), labels],
            "judged": learnt[labels],
            "suspect": find_label_issues(labels, outputs, n_jobs=1) & learnt[labels],
        }
