"""From a label's probability to yes or no."""

import numpy as np
from sklearn.metrics import precision_recall_curve

UNSEEN = 0.5
"""The threshold of a label that no row has."""


def best(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """For each label the threshold with the highest F1; a label is given where its probability exceeds it.

    It lies halfway between the probabilities of two rows. Of a model that knows nothing about a label, the best F1 is
    that of always giving it (Lipton et al. 2014).

    Args:
        labels: which each row has, (rows, labels); probabilities: of the same shape. Of rows that were not trained on.
    """
    return [best_of_one(*columns) for columns in zip(labels.T, probabilities.T, strict=True)]


def best_of_one(has: np.ndarray, probabilities: np.ndarray) -> float:
    """That of one label, (rows,) each."""
    if not has.any():
        return UNSEEN
    precision, recall, lowest = precision_recall_curve(has, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    index = (
        len(lowest) - 1 - int(f1[-2::-1].argmax())
    )  # of equals the highest; the last point gives the label to no row
    return float((lowest[index] + (lowest[index - 1] if index else 0)) / 2)
