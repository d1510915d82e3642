"""Temperature scaling, which calibrates probabilities and changes no answer (Guo et al. 2017, section 4.2)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = (0.05, 20.0)
"""The lowest and the highest temperature."""

PRIOR = 0.5
"""Standard deviation of the normal prior on log T, whose mean is 0. Without it, a few rows that are all classified
correctly would drive T to its lowest value; hundreds of rows outweigh the prior."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The most probable T within `RANGE`, given the log loss of the probabilities of logits / T, and `PRIOR`.

    Args:
        logits: (rows, classes); or (rows, labels), whose probabilities are sigmoids. Of rows that were not trained on.
        labels: of the same rows: (rows,), classes; or (rows, labels), 1 for the labels that a row has.
    """
    loss = class_loss if labels.ndim == 1 else label_loss

    def loss_at(log_temperature: float) -> float:
        prior = (log_temperature / PRIOR) ** 2 / 2
        return loss(logits.astype(np.float64) / np.exp(log_temperature), labels) + prior / labels.size

    return float(np.exp(minimize_scalar(loss_at, bounds=np.log(RANGE), method="bounded").x))


def class_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss over the rows, each of one class."""
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def label_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss over all labels of all rows."""
    return (np.logaddexp(0, logits) - labels * logits).mean()
