"""Temperature scaling, which calibrates probabilities and changes no answer (Guo et al. 2017, section 4.2)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = (0.05, 20.0)
"""The lowest and the highest temperature."""

PRIOR = 0.5
"""Standard deviation of the normal prior on log T below 0. Few rows are no reason for making a model surer than it is;
hundreds outweigh the prior. Making it less sure needs no reason: trained models are mostly too sure."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T within `RANGE` that is most probable, given `PRIOR` and the log loss of the probabilities of logits / T, if
    each label is wrong with probability 1 / (rows + 2).

    By Laplace's rule of succession, that is how likely an error still is after as many rows without one; Platt (1999,
    section 2.2) calibrates support vector machines with this rule, class by class. Few rows by which a training was
    chosen make it look better than it is, and this makes up for much of that.

    Args:
        logits: (rows, classes); or (rows, labels), whose probabilities are sigmoids. Of rows that were not trained on.
        labels: of the same rows: (rows,), classes; or (rows, labels), 1 for the labels that a row has.
    """
    loss, logits = class_loss if labels.ndim == 1 else label_loss, logits.astype(np.float64)
    wrong = 1 / (len(labels) + 2)

    def loss_at(log_temperature: float) -> float:
        prior = (min(log_temperature, 0) / PRIOR) ** 2 / 2
        return loss(logits / np.exp(log_temperature), labels, wrong) + prior / labels.size

    return float(np.exp(minimize_scalar(loss_at, bounds=np.log(RANGE), method="bounded").x))


def class_loss(logits: np.ndarray, labels: np.ndarray, wrong: float = 0.0) -> float:
    """The mean log loss over the rows, each of one class, which is another one with probability `wrong`."""
    log_probabilities = log_softmax(logits, axis=1)
    own = log_probabilities[np.arange(len(labels)), labels]
    others = (log_probabilities.sum(axis=1) - own) / (logits.shape[1] - 1)
    return -((1 - wrong) * own + wrong * others).mean()


def label_loss(logits: np.ndarray, labels: np.ndarray, wrong: float = 0.0) -> float:
    """The mean log loss over all labels of all rows, each of which is wrong with this probability."""
    return (np.logaddexp(0, logits) - np.abs(labels - wrong) * logits).mean()
