"""Answer only when sure: a threshold on the answer's probability, and sets of classes, each with a promise.

Both are computed from rows that were used for nothing else: the split `calibration`. They are kept in a file beside the
adapter, where `predict` and `export` find them.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from scipy import stats

from stages.adapters import run
from stages.common import files
from stages.common.errors import PipelineError
from stages.common.texts import listed
from stages.evidence import significance
from stages.problems.single_label import right

CONFIDENCE = 0.95
"""Probability, over the choice of the rows, that the promised accuracy holds for all texts."""

STARTS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the rows at which a sequence of tests starts. In simulations a single sequence, from the fewest rows that
can prove anything, often ended at one wrong answer: with 1,000 rows of 88 % accuracy and a target of 90 %, it answered
39 % of the texts, and these four, each at a quarter of the error, 63 %."""

NOTHING, EVERYTHING = 1.0, 0.0
"""The thresholds above which no probability is, and every answer's."""


HIGHEST = 0.99999
"""The highest threshold in metrics, whose numbers have five digits: a higher one would be rounded to `NOTHING`."""


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """When to answer; the fields are the keys of the file."""

    target: float
    """The promised accuracy of the answers, and share of sets that have the true class."""
    confidence: float
    """See `CONFIDENCE`."""
    rows: int
    """The number of rows behind the thresholds."""
    threshold: float
    """A text is answered if its answer's probability is above this."""
    set_threshold: float | None
    """A class is in the set if its probability is at least this; None for two classes, which need no sets."""
    run: str
    """The sha256 of the run.json of the adapter whose probabilities these are."""

    @classmethod
    def calibrated(cls, probabilities: np.ndarray, labels: np.ndarray, *, target: float, adapter: Path) -> Self:
        """The thresholds that keep the promise, from rows that were used for nothing else.

        Args:
            probabilities: (rows, classes), of the model in the folder `adapter`; labels: (rows,).
        """
        several = probabilities.shape[1] > 2
        return cls(
            target=target,
            confidence=CONFIDENCE,
            rows=len(labels),
            threshold=answer_threshold(probabilities.max(axis=1), right(labels, probabilities), target),
            set_threshold=set_threshold(probabilities, labels, target) if several else None,
            run=fingerprint(adapter),
        )

    @classmethod
    def load(cls, path: Path, adapter: Path) -> Self | None:
        """What `save` wrote; None: there are no thresholds.

        Raises:
            PipelineError: they belong to another adapter than the one in the folder `adapter`, or are not finite.
        """
        values = files.read_json(path) if path.exists() else {}
        if values and values.get("run") != fingerprint(adapter):
            raise PipelineError(
                f"{path}: expected thresholds for the model in {adapter}, found those for another one; compute them "
                "again with: dvc repro"
            )
        return cls(**values) if values else None

    def answered(self, probabilities: np.ndarray) -> np.ndarray:
        """Which rows are answered, (rows,) bool, given (rows, classes)."""
        return probabilities.max(axis=1) > self.threshold

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Which classes are in each row's set, (rows, classes) bool; a set can be empty."""
        return probabilities >= self.set_threshold

    def columns(self, probabilities: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray | list[str]]:
        """Whether to abstain from each row's answer, and with more than two classes its set, as columns of a table."""
        columns = {"abstain": ~self.answered(probabilities)}
        if self.set_threshold is None:
            return columns
        return columns | {"set": [listed(itertools.compress(names, row)) for row in self.sets(probabilities)]}

    def measured(self, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
        """What becomes of the promises on other rows.

        Returns:
            `abstention`: the target, the threshold and the number of rows behind it, the share of rows that are
            `answered`, their `accuracy` and its 95 % interval (Wilson 1927), `low` and `high`, if any is answered;
            with more than two classes `sets`: the share that have the true class, and their mean size.
        """
        answered = self.answered(probabilities)
        values = {
            "target": self.target,
            "rows": self.rows,
            "threshold": min(self.threshold, HIGHEST) if self.threshold < NOTHING else NOTHING,
            "answered": float(answered.mean()),
        }
        if answered.any():
            correct = right(labels, probabilities)[answered]
            values |= {"accuracy": float(correct.mean())} | significance.wilson(correct)
        if self.set_threshold is None:
            return {"abstention": values}
        sets = self.sets(probabilities)
        coverage, size = sets[np.arange(len(labels)), labels].mean(), sets.sum(axis=1).mean()
        return {"abstention": values, "sets": {"coverage": float(coverage), "mean_size": float(size)}}


def answer_threshold(probability: np.ndarray, correct: np.ndarray, target: float) -> float:
    """The lowest threshold above which the answers' accuracy is proven to be at least `target`; see `CONFIDENCE`.

    The hypothesis that the answers above a threshold are less accurate is rejected if a binomial distribution has so
    few wrong ones among as many with probability 1 - CONFIDENCE at most (equivalent: the bound of Clopper and Pearson
    1934; Geifman and El-Yaniv 2017, lemma 3.1). Thresholds are tested in fixed sequences, each from a start in `STARTS`
    down to its first hypothesis that is not rejected, with an equal share of the error (Angelopoulos et al. 2021, Learn
    then Test, algorithm 1). The thresholds are the rows' own probabilities. Above each, without the row itself, the
    answers are a sample of all answers there, so every test is exact; the promise holds where higher probabilities are
    not less accurate.

    Args:
        probability: of each row's answer, (rows,); correct: whether it is right, (rows,) bool.

    Returns:
        A probability that an answer must exceed; `EVERYTHING`, or `NOTHING` if no threshold is proven.
    """
    order = np.argsort(-probability, kind="stable")
    wrong = np.concatenate([[0], np.cumsum(~correct[order])])
    thresholds = np.append(probability[order], EVERYTHING)
    above = np.searchsorted(-probability[order], -thresholds)  # fewer than k where probabilities are equal
    p_values = stats.binom.cdf(wrong[above], above, 1 - target)
    rejected = p_values <= (1 - CONFIDENCE) / len(STARTS)
    found = NOTHING
    for start in np.searchsorted(above, np.multiply(STARTS, len(probability))):
        passed = np.logical_and.accumulate(rejected[start:])
        if passed[0]:
            found = min(found, float(thresholds[start:][passed][-1]))
    return found


def set_threshold(probabilities: np.ndarray, labels: np.ndarray, target: float) -> float:
    """The least probability of a class in a set, so that sets have the true class with probability `target` or more.

    Split conformal prediction with least ambiguous sets (Sadinle, Lei and Wasserman 2019): of the probabilities of the
    rows' true classes, the one that ceil(target · (rows + 1)) of them reach; 0, every class, if that is more than there
    are rows. The promise is about the mean over texts and over choices of the rows.

    Args:
        probabilities: (rows, classes); labels: (rows,).
    """
    of_true_class = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    place = int(np.ceil(np.round(target * (len(labels) + 1), 9)))  # 0.95 · 20 is 19, not a little more
    return float(of_true_class[place - 1]) if place <= len(labels) else 0.0


def fingerprint(adapter: Path) -> str:
    """The sha256 of an adapter's run.json."""
    return hashlib.sha256((adapter / run.FILE).read_bytes()).hexdigest()


def save(path: Path, abstention: Abstention | None) -> None:
    """Write the thresholds as JSON; an empty object if there are none."""
    files.write_json(path, vars(abstention) if abstention else {})
