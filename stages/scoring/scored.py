"""What scoring adds to a kind of problem: metrics, the curves behind them, and the rivals' models."""

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from stages.problems.problem import Problem


class ScoredProblem(Problem):
    """A problem whose predictions can be scored; see `Problem` for what labels, outputs and predictions are."""

    compared: ClassVar[tuple[str, ...]] = ("f1_macro", "accuracy")
    """Scores in metrics/headline.json, before and after tuning: the first that is not the main score."""
    after_tuning: ClassVar[tuple[str, ...]] = ("log_loss", "calibration_error")
    """Further scores of the tuned model there."""
    label_type: ClassVar[Any]
    """The `datasets` feature of one row's label; `prediction_type`: that of one row's prediction."""
    prediction_type: ClassVar[Any]

    def scores(self, labels: np.ndarray, predictions: Any) -> dict[str, float]:
        """Every metric, all finite: an area under the ROC curve that the rows do not define is 0.5."""
        found = self.scores_of_draws(labels, predictions, np.ones((1, len(labels))))
        return {name: float(np.nan_to_num(values[0], nan=0.5)) for name, values in found.items()}

    @abstractmethod
    def scores_of_draws(self, labels: np.ndarray, predictions: Any, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of each of many draws of the rows, (draws,); NaN where the drawn rows do not define it.

        Args:
            counts: how often each row is in each draw, (draws, rows) float.
        """

    @abstractmethod
    def complete(self, labels: np.ndarray) -> bool:
        """Whether every metric is defined on these rows."""

    @abstractmethod
    def row_errors(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        """How wrong each row's answer is, (rows,): 0 if right, 1 if all wrong; a number's absolute error."""

    @abstractmethod
    def class_scores(self, labels: np.ndarray, predictions: Any, names: list[str]) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of each class or label; nothing for regression."""

    @abstractmethod
    def curves(self, labels: np.ndarray, predictions: Any, most: int) -> dict[str, list[dict[str, float]]]:
        """The points of every curve, by its name; at most `most` for curves with one point per row."""

    def answer_tables(self, truth: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
        """The tables in which answers are compared with the truth, by their names in metrics/plots: by default none.

        Args:
            truth: of each row, see `Problem.truth`; answers: every model's, by the model's name.
        """
        return {}

    @abstractmethod
    def constant(self) -> tuple[str, BaseEstimator]:
        """The rival that does not read the text, and its name."""

    @abstractmethod
    def linear(self, strength: float) -> BaseEstimator:
        """A linear model with this inverse regularization strength."""

    def candidates(self, strength: float) -> list[BaseEstimator]:
        """The linear models of this strength among which the validation rows choose a rival; the first is `linear`."""
        return [self.linear(strength)]

    @abstractmethod
    def fitted(self, model: BaseEstimator, inputs: np.ndarray, names: list[str]) -> np.ndarray:
        """The outputs of a fitted `constant` or `linear` model; names: of all outputs, as in `output_names`."""

    @abstractmethod
    def loss(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
        """The loss by which the rivals' settings are chosen, on the validation rows; weights: of the rows, (rows,)."""

    @abstractmethod
    def rows_of_each(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """How many rows have each class or label, (outputs,); of numbers, how many there are, (1,)."""

    @abstractmethod
    def label_quality(self, labels: np.ndarray, outputs: np.ndarray, learnt: np.ndarray) -> dict[str, np.ndarray]:
        """How well each row's label agrees with the outputs of models that were not trained on the row.

        Args:
            learnt: which outputs the models had enough rows to learn, (outputs,) bool.

        Returns:
            `quality`, (rows,), from 0, certainly wrong, to 1; `judged`, (rows,) bool, whether the models have learnt
            what the label may be; `suspect`, (rows,) bool, whether it is judged and probably wrong; and
            `label_probability`, (rows,), unless labels are numbers.
        """


def fit(model: BaseEstimator, inputs: Any, labels: np.ndarray, **weights: np.ndarray) -> BaseEstimator:
    """The model, fitted on rows. It is judged as it is, so nothing warns of one that has not converged, or of a label
    that all of the rows have, or none."""
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)  # float32 is too inexact for scikit-learn's sums
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        return model.fit(inputs, labels, **weights)


class Metric(evaluate.Metric):
    """The scores of a problem, as an `evaluate` metric that needs no hub."""

    def __init__(self, problem: ScoredProblem, **options: Any) -> None:
        self.problem = problem
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        types = {"predictions": self.problem.prediction_type, "references": self.problem.label_type}
        return evaluate.MetricInfo(
            description=self.problem.scores_of_draws.__doc__,
            citation="",
            inputs_description="predictions and references (labels), one a row.",
            features=datasets.Features(types),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return self.problem.scores(np.asarray(references), self.problem.predictions(predictions))


def score(problem: ScoredProblem, labels: np.ndarray, predictions: Any) -> dict[str, float]:
    """Every metric of the problem; the types of labels and predictions are checked."""
    metric = Metric(problem, keep_in_memory=True)
    return metric.compute(predictions=problem.column(predictions), references=labels)
