"""Each text has one of several classes: outputs are class probabilities, (rows, classes), whose rows sum to 1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from stages.common.errors import PipelineError
from stages.common.paths import SPLITS
from stages.common.texts import rarest
from stages.problems.main_score import (
    WEIGHTED_LOG_LOSS,
    MainScore,
    OfCounts,
    RocAuc,
    RowMean,
    log_loss,
    mcc,
    mean_f1,
    surprise,
)
from stages.problems.problem import Problem, label_text

if TYPE_CHECKING:
    from datasets import ClassLabel

UNBALANCED = 3
"""Classes are unbalanced if the most frequent one has at least this many times the training rows of the rarest: of two
such classes, always answering the frequent one is right for three rows of four."""

WEIGHTING = 0.5
"""The power of the inverse share of a class by which its rows are weighted, where they are: 0 counts all rows alike, 1
all classes. With weights of 1, many rows of a frequent class are taken for one of a rare class."""


def row_weights(labels: np.ndarray, weighting: float = WEIGHTING) -> np.ndarray:
    """The weight of each row, (rows,), by how rare its class is among them, see `WEIGHTING`."""
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight("balanced", labels) ** weighting


def right(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Whether each row's most probable class is its label, (rows,)."""
    return predictions.argmax(axis=1) == labels


def decisions(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's class, and its most probable one, as two arrays, (rows, classes) bool."""
    classes = np.arange(predictions.shape[1])
    return labels[:, None] == classes, predictions.argmax(axis=1)[:, None] == classes


def ranked(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each class against the others, see `RocAuc`; of two classes, the second."""
    classes = np.arange(predictions.shape[1])[predictions.shape[1] == 2 :]
    return labels[:, None] == classes, predictions[:, classes]


def log_losses(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The log loss of each row, (rows,)."""
    return surprise(predictions[np.arange(len(labels)), labels])


SCORES = (
    RowMean(key="accuracy", name="accuracy", of_rows=right),
    OfCounts(key="f1_macro", name="macro-F1", decisions=decisions, of_counts=mean_f1),
    OfCounts(key="mcc", name="MCC", share=False, decisions=decisions, of_counts=mcc),
    RocAuc(key="roc_auc", name="ROC AUC", ranked=ranked),
    log_loss(log_losses),
)


class SingleLabel(Problem):
    """One class per row: the most probable one is the answer, and predictions are the outputs."""

    name = "single_label"
    noun = "class"
    answer = "label"
    main_scores: ClassVar[dict[str, MainScore]] = {score.key: score for score in SCORES}
    needed_in = SPLITS

    def read(self, value: Any, column: str | list[str]) -> str | None:
        return label_text(value) or None

    def names(self, labels: pd.Series) -> list[str]:
        return sorted(labels.unique())

    def check_enough_rows(self, labels: pd.Series, splits: int, remedy: str) -> None:
        counts = labels.value_counts()
        if len(counts) < 2:
            raise PipelineError(
                f"expected at least two classes, found {', '.join(counts.index) or 'no usable row'}{remedy}"
            )
        if rare := rarest(counts, splits):
            raise PipelineError(
                f"expected at least {splits} rows of every class, one for each split, found fewer of {rare}; "
                "add rows, remove those, or name the classes to keep in data.classes"
            )

    def strata(self, labels: pd.Series) -> pd.Series:
        return labels

    def feature(self, names: list[str]) -> "ClassLabel":
        from datasets import ClassLabel

        return ClassLabel(names=names)

    def output_names(self, feature: "ClassLabel") -> list[str]:
        return feature.names

    def stored(self, labels: pd.Series, names: list[str]) -> list[int]:
        return pd.Index(names).get_indexer(labels).tolist()

    def array(self, stored: list[int], names: list[str]) -> np.ndarray:
        return np.asarray(stored, dtype=np.int64)

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, int]:
        by_name = labels.value_counts()
        return {name: int(by_name.get(name, 0)) for name in names}

    def default_main(self, labels: np.ndarray) -> str:
        """Accuracy; macro-F1 for unbalanced classes, as accuracy hardly depends on the rare ones."""
        rows = np.unique(labels, return_counts=True)[1]
        return "f1_macro" if rows.max() >= UNBALANCED * rows.min() else "accuracy"

    def weighs_rare_classes(self, main: MainScore) -> bool:
        """For macro-F1."""
        return main.key == "f1_macro"

    def why_main(self, counts: dict[str, float]) -> str:
        return (
            f"The most frequent class has {max(counts.values()):,} training rows, the rarest {min(counts.values()):,}; "
            f"from {UNBALANCED} times as many on it is macro-F1, as accuracy hardly depends on rare classes."
        )

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Softmax, in float64: in float32 the sums differ from 1 by more than scikit-learn allows."""
        from scipy.special import softmax

        return softmax(logits.astype(np.float64), axis=1)

    def validate(self, logits: np.ndarray, labels: np.ndarray, *, unit: float, main: MainScore) -> dict[str, float]:
        """The main score, the temperature that calibrates the probabilities, and with it applied the log loss; for
        macro-F1 also with the rows weighted, as a training that weighs them may raise the other."""
        from stages.problems import calibration

        temperature = calibration.temperature(logits, labels)
        predictions = self.outputs(logits.astype(np.float64) / temperature)
        log_loss = float(calibration.class_loss(logits / temperature, labels))
        found = {"temperature": temperature, "log_loss": log_loss, main.key: main.value(labels, predictions)}
        if self.weighs_rare_classes(main):
            losses = log_losses(labels, predictions)
            found[WEIGHTED_LOG_LOSS] = float(np.average(losses, weights=row_weights(labels)))
        return found

    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The name of each row's class."""
        return np.asarray(names)[labels]

    def answers(self, predictions: np.ndarray, names: list[str]) -> np.ndarray:
        """The name of each row's most probable class."""
        return self.truth(predictions.argmax(axis=1), names)

    def labels_of(self, answers: Sequence[str], names: list[str]) -> np.ndarray:
        return np.array([names.index(answer) for answer in answers])

    def certain(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        return np.eye(len(names))[labels]

    def confidence(self, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of each row's most probable class."""
        return {"probability": predictions.max(axis=1)}

    def detail(self, predictions: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """The probability of every class."""
        return dict(zip(names, predictions.T, strict=True))
