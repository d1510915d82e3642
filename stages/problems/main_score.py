"""The scores by which models can be compared, and how each is composed of the rows.

Most code needs a score's `value` alone. How it is composed decides how a gain is tested, see `stages.evidence`: a mean
over the rows, a function of the counts of each class, or the area under the ROC curve.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGNIFICANT = 0.05
"""The p-value below which a difference between two scores counts as significant."""

AUTO = "auto"
"""The value of `evaluate.main` that leaves the choice to the problem."""

LOSS = "loss"
"""The value of `train.select_by`, and the key in metrics/train.json, of the loss on the validation rows."""

WEIGHTED_LOG_LOSS = "weighted_log_loss"
"""The key there of the calibrated log loss with rows of rare classes weighted."""

LOSSES = (WEIGHTED_LOG_LOSS, "log_loss", "mae", LOSS)
"""The keys there of the losses: calibrated and weighted, calibrated, that of numbers, and the Trainer's own, which is a
mean over windows where texts have several."""


def selected_by(choice: str, main: str, scores: Mapping[str, Any]) -> str:
    """The key of the score on the validation rows by which weights, seeds and trials are compared.

    Args:
        choice: `train.select_by`; main: the key of the main score; scores: by their keys; of the losses the first of
            `LOSSES` counts that there is.
    """
    return main if choice != LOSS else next(key for key in LOSSES if key in scores)


@dataclass(frozen=True, kw_only=True)
class MainScore(ABC):
    """A score by which models can be compared.

    The functions in its fields take labels and predictions, as described in `Problem`.
    """

    key: str
    """Its name in the metrics files."""
    name: str
    """Its name in texts."""
    sign: int = 1
    """1: higher is better; -1: lower is better."""
    share: bool = True
    """Whether it is between 0 and 1."""
    from_answers: bool = True
    """Whether the answers alone determine it; else it depends on their probabilities."""

    @property
    def lowest(self) -> float:
        """The lowest value: a score that is no share but has two bounds is a correlation."""
        return 0 if self.share or self.sign < 0 else -1

    @property
    def widest(self) -> float:
        """The largest difference between the scores of two models."""
        return 1 - self.lowest if self.sign > 0 else np.inf

    def value(self, labels: np.ndarray, predictions: Any) -> float:
        """The score of a model's predictions for some rows."""
        return float(self.values(labels, predictions, np.ones((1, len(labels))))[0])

    @abstractmethod
    def values(self, labels: np.ndarray, predictions: Any, counts: np.ndarray) -> np.ndarray:
        """The score of each of many draws of the rows, (draws,); NaN where the drawn rows do not define it.

        Args:
            counts: how often each row is in each draw, (draws, rows) float.
        """

    @abstractmethod
    def of_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        """What each row adds to the score, (rows,); the mean is the score, or near it."""

    def right_or_wrong(self, labels: np.ndarray, predictions: Any) -> bool:
        """Whether it is the share of rows that are right."""
        return False


@dataclass(frozen=True, kw_only=True)
class RowMean(MainScore):
    """The mean of a score that every row has."""

    of_rows: Callable[[np.ndarray, Any], np.ndarray]
    """The score of each row, (rows,); bool where an answer is either right or wrong."""

    def value(self, labels: np.ndarray, predictions: Any) -> float:
        return float(self.of_rows(labels, predictions).mean())

    def values(self, labels: np.ndarray, predictions: Any, counts: np.ndarray) -> np.ndarray:
        return counts @ self.of_rows(labels, predictions) / counts.sum(axis=1)

    def of_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        return self.of_rows(labels, predictions).astype(float)

    def right_or_wrong(self, labels: np.ndarray, predictions: Any) -> bool:
        return self.of_rows(labels, predictions).dtype == bool


@dataclass(frozen=True, kw_only=True)
class OfAllRows(MainScore):
    """A score that is no mean over the rows."""

    def of_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        """The jackknife's pseudo-values (Tukey 1958): n times the score, less n - 1 times the score without the row."""
        rows = len(labels)
        return rows * self.value(labels, predictions) - (rows - 1) * self.without_each(labels, predictions)

    @abstractmethod
    def without_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        """The score of all rows but one, for each row, (rows,)."""


@dataclass(frozen=True, kw_only=True)
class OfCounts(OfAllRows):
    """A function of how many rows have each class, are given it, and both."""

    decisions: Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
    """Which classes each row has, and which it is given: two arrays, (rows, classes) bool."""
    of_counts: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """From the hits, the given and the true rows of each class, all (..., classes), to the score, (...)."""

    def values(self, labels: np.ndarray, predictions: Any, counts: np.ndarray) -> np.ndarray:
        return self.of_counts(*(counts @ rows for rows in self.counted(labels, predictions)))

    def without_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        return self.of_counts(*(rows.sum(axis=0) - rows for rows in self.counted(labels, predictions)))

    def counted(self, labels: np.ndarray, predictions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The hits, the given and the true classes of each row, all (rows, classes) float."""
        true, given = self.decisions(labels, predictions)
        return tuple(rows.astype(float) for rows in (true & given, given, true))


@dataclass(frozen=True, kw_only=True)
class RocAuc(OfAllRows):
    """The area under the ROC curve: the mean over the classes that some rows have and others do not."""

    ranked: Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
    """Which classes each row has, and by which probabilities it is ranked: two arrays, (rows, classes)."""
    from_answers: bool = False

    def value(self, labels: np.ndarray, predictions: Any) -> float:
        """0.5 where no class has a pair of a positive and a negative row."""
        return float(np.nan_to_num(super().value(labels, predictions), nan=0.5))

    def values(self, labels: np.ndarray, predictions: Any, counts: np.ndarray) -> np.ndarray:
        """From the number of pairs of a positive and a negative row that are in order (Mann & Whitney 1947, section 2).
        The rows are sorted once, whatever the number of draws."""
        true, probabilities = self.ranked(labels, predictions)
        drawn = np.ascontiguousarray(counts.T)  # the rows are taken in the order of each class
        areas, classes = np.zeros((2, len(counts)))
        for has, scores in zip(true.T, probabilities.T, strict=True):
            positive = drawn[has].sum(axis=0)
            pairs = positive * (drawn.sum(axis=0) - positive)
            lower, not_higher = below(scores[has], scores, drawn)
            in_order = (drawn[has] * (lower + not_higher)).sum(axis=0) / 2 - positive**2 / 2  # less pairs of positives
            areas += np.divide(in_order, pairs, out=np.zeros_like(pairs), where=pairs > 0)
            classes += pairs > 0
        return np.divide(areas, classes, out=np.full_like(areas, np.nan), where=classes > 0)

    def without_each(self, labels: np.ndarray, predictions: Any) -> np.ndarray:
        """From all pairs in order, less those of the row; 0.5 where no class is left with a pair."""
        true, probabilities = self.ranked(labels, predictions)
        areas, classes = np.zeros((2, len(true)))
        for has, scores in zip(true.T, probabilities.T, strict=True):
            in_order = np.where(has, placements(scores, scores[~has]), has.sum() - placements(scores, scores[has]))
            pairs = has.sum() * (~has).sum() - np.where(has, (~has).sum(), has.sum())
            areas += np.divide(in_order[has].sum() - in_order, pairs, out=np.zeros(len(has)), where=pairs > 0)
            classes += pairs > 0
        return np.divide(areas, classes, out=np.full_like(areas, 0.5), where=classes > 0)

    def mixed(self, labels: np.ndarray, predictions: Any) -> tuple[np.ndarray, np.ndarray]:
        """What `ranked` returns, for the classes that some of the rows have and others do not."""
        true, probabilities = self.ranked(labels, predictions)
        kept = true.any(axis=0) & ~true.all(axis=0)
        return true[:, kept], probabilities[:, kept]


def below(values: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the drawn rows have a lower score than each value, and how many have no higher one, (values, draws).

    Args:
        scores: of the rows, (rows,); drawn: how often each row is in each draw, (rows, draws).
    """
    order = np.argsort(scores)
    lowest = np.zeros((len(drawn) + 1, drawn.shape[1]))
    np.cumsum(drawn[order], axis=0, out=lowest[1:])
    lower, not_higher = (lowest[np.searchsorted(scores[order], values, side)] for side in ("left", "right"))
    return lower, not_higher


def placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each value exceeds, (values,); an equal one counts half."""
    others = np.sort(others)
    return (np.searchsorted(others, values) + np.searchsorted(others, values, side="right")) / 2


def log_loss(of_rows: Callable[[np.ndarray, Any], np.ndarray]) -> RowMean:
    """The mean of the log loss of the rows, which `of_rows` gives, (rows,)."""
    return RowMean(key="log_loss", name="log loss", of_rows=of_rows, sign=-1, share=False, from_answers=False)


def mean_f1(hits: np.ndarray, given: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The F1 of each class, averaged over the classes that have rows; 0 if none has any.

    Classes without rows are left out whether they are given or not, so that models are compared over the same ones.
    """
    present = true > 0
    total = (2 * hits / np.maximum(given + true, 1) * present).sum(axis=-1)
    return total / np.maximum(present.sum(axis=-1), 1)


def mcc(hits: np.ndarray, given: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Matthews correlation coefficient (Gorodkin 2004); 0 where all rows have, or are given, one class."""
    rows = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * rows - (given * true).sum(axis=-1)
    spread = np.sqrt((rows**2 - (given**2).sum(axis=-1)) * (rows**2 - (true**2).sum(axis=-1)).astype(float))
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)


def surprise(probabilities: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the probabilities of what was true, kept finite as in scikit-learn's `log_loss`."""
    tiny = np.finfo(probabilities.dtype).eps
    return -np.log(np.clip(probabilities, tiny, 1 - tiny))
