"""Each text has one of several classes: outputs are class probabilities, (rows, classes), whose rows sum to 1."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.common.errors import PipelineError
from stages.common.paths import SPLITS
from stages.problems.problem import MISSING, MainScore, Problem, label_text

if TYPE_CHECKING:
    from datasets import ClassLabel


class SingleLabel(Problem):
    """One class per row: the most probable one is the answer, and predictions are the outputs."""

    name = "single_label"
    noun = "class"
    answer = "label"
    main = MainScore(key="accuracy", sign=1)
    needed_in = SPLITS

    def read(self, value: Any, column: str | list[str]) -> str | None:
        text = label_text(value)
        return None if text.lower() in MISSING else text

    def names(self, labels: pd.Series) -> list[str]:
        return sorted(set(labels))

    def check_enough_rows(self, labels: pd.Series, splits: int, remedy: str) -> None:
        counts = labels.value_counts()
        if len(counts) < 2:
            raise PipelineError(
                f"expected at least two classes, found {', '.join(counts.index) or 'no usable row'}{remedy}"
            )
        if counts.min() < splits:
            raise PipelineError(
                f"class {counts.idxmin()!r}: expected at least {splits} rows, one for each split, "
                f"found {counts.min()}; add rows or merge it with another class"
            )

    def strata(self, labels: pd.Series) -> pd.Series:
        return labels

    def feature(self, names: list[str]) -> "ClassLabel":
        from datasets import ClassLabel

        return ClassLabel(names=names)

    def output_names(self, feature: "ClassLabel") -> list[str]:
        return feature.names

    def stored(self, labels: pd.Series, names: list[str]) -> list[int]:
        return labels.map(names.index).tolist()

    def array(self, stored: list[int], names: list[str]) -> np.ndarray:
        return np.asarray(stored, dtype=np.int64)

    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, int]:
        by_name = labels.value_counts()
        return {name: int(by_name[name]) for name in names}

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Softmax, in float64: in float32 the sums differ from 1 by more than scikit-learn allows."""
        from scipy.special import softmax

        return softmax(logits.astype(np.float64), axis=1)

    def validate(self, logits: np.ndarray, labels: np.ndarray, *, unit: float) -> dict[str, float]:
        """Accuracy, the temperature that calibrates the probabilities, and the log loss with it applied."""
        from stages.problems import calibration

        temperature = calibration.temperature(logits, labels)
        return {
            "accuracy": float((logits.argmax(axis=1) == labels).mean()),
            "temperature": temperature,
            "log_loss": float(calibration.class_loss(logits / temperature, labels)),
        }

    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The name of each row's class."""
        return np.asarray(names)[labels]

    def answers(self, predictions: np.ndarray, names: list[str]) -> np.ndarray:
        """The name of each row's most probable class."""
        return self.truth(predictions.argmax(axis=1), names)

    def confidence(self, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """The probability of each row's most probable class."""
        return {"probability": predictions.max(axis=1)}

    def detail(self, predictions: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """The probability of every class."""
        return dict(zip(names, predictions.T, strict=True))
