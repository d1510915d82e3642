"""What the validation rows tell of a trained model, by kind of problem: scores, and what is fitted to its logits."""

from collections.abc import Callable

import numpy as np
from scipy.special import expit
from sklearn.metrics import accuracy_score

from stages.scoring import thresholds
from stages.training import calibration

Measured = dict[str, float | list[float]]


def single_label(logits: np.ndarray, labels: np.ndarray, unit: float = 1.0) -> Measured:
    """Accuracy, and the temperature that makes the probabilities most truthful.

    Args:
        logits: (rows, classes); labels: (rows,); unit: not read.
    """
    return {
        "accuracy": accuracy_score(labels, logits.argmax(axis=1)),
        "temperature": calibration.temperature(logits, labels),
    }


def multi_label(logits: np.ndarray, labels: np.ndarray, unit: float = 1.0) -> Measured:
    """The same, of exact matches and one temperature for all labels; and each label's threshold, at that temperature.

    Args:
        logits, labels: (rows, labels); unit: not read.
    """
    temperature = calibration.temperature(logits, labels)
    probabilities = expit(logits.astype(np.float64) / temperature)
    chosen = thresholds.best(labels, probabilities)
    return {
        "accuracy": accuracy_score(labels, probabilities > np.asarray(chosen)),
        "temperature": temperature,
        "thresholds": chosen,
    }


def regression(logits: np.ndarray, labels: np.ndarray, unit: float = 1.0) -> Measured:
    """The mean absolute error.

    Args:
        logits: (rows, 1); labels: (rows,), both in units of `unit`.
    """
    return {"mae": unit * float(np.abs(logits[:, 0] - labels).mean())}


MEASURES: dict[str, Callable[..., Measured]] = {
    "single_label": single_label,
    "multi_label": multi_label,
    "regression": regression,
}
"""By the value of `data.problem`."""
