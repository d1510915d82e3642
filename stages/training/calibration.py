"""Temperature scaling: it makes probabilities truthful and changes no answer (Guo et al. 2017, section 4.2)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = (0.05, 20.0)
"""Temperatures tried."""

PRIOR = 0.5
"""Standard deviation of log T around 0 that is expected beforehand: a few rows that are all right do not prove that all
are, and hundreds outweigh it."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T within `RANGE` that is most probable, given the log loss of the probabilities of logits / T and `PRIOR`.

    Args:
        logits: (rows, classes); labels: (rows,), both of rows that were not trained on. Or (rows, labels) both: the
            probabilities are then sigmoids, and labels has a 1 for those that a row has.
    """
    loss = class_loss if labels.ndim == 1 else label_loss

    def loss_at(log_temperature: float) -> float:
        prior = (log_temperature / PRIOR) ** 2 / 2
        return loss(logits.astype(np.float64) / np.exp(log_temperature), labels) + prior / labels.size

    return float(np.exp(minimize_scalar(loss_at, bounds=np.log(RANGE), method="bounded").x))


def class_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss of one class a row."""
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def label_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss of all labels' decisions."""
    return (np.logaddexp(0, logits) - labels * logits).mean()
