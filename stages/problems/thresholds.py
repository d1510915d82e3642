"""The thresholds that turn each label's probability into yes or no."""

import numpy as np
from sklearn.metrics import precision_recall_curve

UNSEEN = 0.5
"""The threshold of a label that no row has."""

COMMON = np.linspace(0.01, 0.99, 99)
"""The thresholds that are tried where all labels have the same."""


def best(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """For each label the threshold with the highest F1; a row is given the label if its probability is higher.

    The threshold is halfway between the probabilities of two rows. If a model knows nothing about a label, always
    giving the label has the best F1 (Lipton et al. 2014).

    Args:
        labels: (rows, labels), 1 for the labels that a row has. Of rows that were not trained on.
        probabilities: (rows, labels), of the same rows.
    """
    return [best_threshold(*columns) for columns in zip(labels.T, probabilities.T, strict=True)]


def best_threshold(has: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold of one label; both arguments are (rows,)."""
    if not has.any():
        return UNSEEN
    precision, recall, lowest = precision_recall_curve(has, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    index = (
        len(lowest) - 1 - int(f1[-2::-1].argmax())
    )  # the highest threshold of equal F1; the last point gives the label to no row
    return float((lowest[index] + (lowest[index - 1] if index else 0)) / 2)


def middle_of_best(values: list[float]) -> float:
    """The one of the thresholds in `COMMON` with the highest value; of equal ones, that in their middle."""
    equal = np.flatnonzero(np.array(values) == max(values))
    return float(COMMON[equal[len(equal) // 2]])
