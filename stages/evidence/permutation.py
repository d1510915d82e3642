"""Whether one model's score is better than another's on the same rows: a paired permutation test.

Were the two models equally good, their predictions for any row could be swapped. The test swaps the predictions for
each row with probability 1/2, many times, and counts how often the scores then differ at least as much as without a
swap (Fisher 1935, chapter III; for F1, Yeh 2000). For a ROC AUC, each model's predictions are first replaced by their
ranks, so that the test does not depend on the scale of the probabilities (Bandos et al. 2005).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata

from stages.problems.main_score import MainScore, OfCounts, RocAuc, RowMean, placements

PERMUTATIONS = 9_999
"""How often rows are swapped at random; the lowest p-value is 1 / 10,000."""

AT_ONCE = 4_000_000
"""How many swaps, permutations times rows, are computed at once: this limits the memory."""

ROUNDING = 1e-12
"""Differences that differ by less than this part of the scores are equal."""

Differences = Callable[[np.ndarray], np.ndarray]
"""From swaps, (permutations, rows), 1 where a row's predictions are swapped, to differences, (permutations,)."""


def p_value(main: MainScore, *, labels: np.ndarray, one: Any, other: Any) -> float:
    """The two-sided p-value of the difference between two models' scores; never 0 (Phipson & Smyth 2010).

    Args:
        labels: of the rows; one, other: each model's predictions for them.
    """
    differences, rows = after_swaps(main, labels, one, other)
    rounding = ROUNDING * (abs(main.value(labels, one)) + abs(main.value(labels, other)))
    least = abs(differences(np.zeros((1, rows), dtype=np.float32))[0]) - rounding
    generator, left, extreme = np.random.default_rng(0), PERMUTATIONS, 0
    while left:
        drawn = min(left, max(1, AT_ONCE // max(1, rows)))
        swaps = generator.integers(2, size=(drawn, rows), dtype=np.uint8).astype(np.float32)
        extreme += int((np.abs(differences(swaps)) >= least).sum())
        left -= drawn
    return (extreme + 1) / (PERMUTATIONS + 1)


def after_swaps(main: MainScore, labels: np.ndarray, one: Any, other: Any) -> tuple[Differences, int]:
    """The difference of the two scores as a function of swaps, and the number of rows whose swap could change it."""
    match main:
        case RowMean():
            shares = (main.of_rows(labels, one).astype(float) - main.of_rows(labels, other)) / len(labels)
            return of_sums(shares)
        case RocAuc():
            return of_sums(roc_auc_shares(main, labels, one, other))
        case OfCounts():
            return of_counts(main, labels, one, other)
    raise TypeError(f"expected a score that is composed in a known way, found {main}")


def of_sums(shares: np.ndarray) -> tuple[Differences, int]:
    """For a difference that is a sum over the rows, (rows,): a swap changes the sign of a row's share."""
    shares = shares[shares != 0]
    return lambda swaps: shares.sum() - 2 * (swaps @ shares), len(shares)


def of_counts(main: OfCounts, labels: np.ndarray, one: Any, other: Any) -> tuple[Differences, int]:
    """For a score of counts: a swap moves a row's hits and answers from one model's counts to the other's."""
    (true, given), (_, given_other) = main.decisions(labels, one), main.decisions(labels, other)
    change = np.hstack([true & given_other, given_other]).astype(np.float32) - np.hstack([true & given, given])
    changed = change[change.any(axis=1)]
    first, second = (np.hstack([true & answers, answers]).sum(axis=0) for answers in (given, given_other))

    def score(counts: np.ndarray) -> np.ndarray:
        hits, answers = np.split(counts, 2, axis=-1)
        return main.of_counts(hits, answers, true.sum(axis=0))

    def differences(swaps: np.ndarray) -> np.ndarray:
        moved = (swaps @ changed).astype(float)  # whole numbers, exact in float32
        return score(first + moved) - score(second - moved)

    return differences, len(changed)


def roc_auc_shares(main: RocAuc, labels: np.ndarray, one: Any, other: Any) -> np.ndarray:
    """Each row's share of the difference between two ROC AUCs, (rows,); their sum is the difference.

    A pair of a positive row i and a negative row j is in order or not. Whether i, j, both or neither are swapped, the
    difference between the models on that pair is s_i u_ij + s_j v_ij, where s is -1 for a swapped row and 1 otherwise.
    So the difference of the AUCs is a sum over the rows, in which a swap changes the sign of a row's share. The share
    is how much higher one of the row's ranks lies than the other, among both ranks of all rows of the other kind.
    """
    (true, first), (_, second) = (main.mixed(labels, predictions) for predictions in (one, other))
    shares = np.zeros(true.shape)
    for column, has in enumerate(true.T):
        ranks = [rankdata(values[:, column]) for values in (first, second)]
        for rows, sign in ((has, 1), (~has, -1)):
            against = np.concatenate([values[~rows] for values in ranks])
            above, below = (placements(values[rows], against) for values in ranks)
            shares[rows, column] = sign * (above - below) / (2 * has.sum() * (~has).sum())
    return shares.mean(axis=1) if true.shape[1] else np.zeros(len(labels))
