"""The scores of slices of the test rows, and whether a slice differs from the rest by more than chance.

Among many slices one is always the worst, so chance is counted over all of them: p-values are corrected by Holm's
method, and the intervals of one score hold together in 95 % of cases (Bonferroni).
"""

from typing import Any

import numpy as np
from scipy import stats

from stages.common.rivals import STRONGEST_RIVAL
from stages.evidence.intervals import defined, of_main_scores
from stages.evidence.permutation import ROUNDING
from stages.evidence.significance import LEVEL, strongest
from stages.problems.main_score import MainScore
from stages.scoring.scored import ScoredProblem

FEWEST = 20
"""Test rows that a slice must have, and that must be outside of it: fewer say next to nothing."""

DRAWS, EXTREME = 9_999, 20
"""Most random draws for a p-value, and how many that differ as much as the slice end it early."""

AT_ONCE = 99
"""Draws that are computed at once, a divisor of `DRAWS`."""

Slices = dict[tuple[str, str], np.ndarray]
"""Which rows belong to each slice, (rows,) bool, by the slice's column and value."""


def by_slice(
    problem: ScoredProblem,
    main: MainScore,
    slices: Slices,
    *,
    labels: np.ndarray,
    tuned: Any,
    rivals: dict[str, Any],
) -> dict[str, dict[str, dict]]:
    """The scores of every slice, by column and value.

    A slice without `FEWEST` rows, inside or outside, or where the main score is not defined, is left out.

    Args:
        labels: of the rows; tuned: the tuned model's predictions; rivals: those of each rival, by its name.

    Returns:
        Of each slice: `rows`; every score by which models can be compared, as far as it is defined there, and its
        `interval`; `rest`, the main score of all other rows; `p_value`, of the difference between the two;
        `strongest_rival`, the main score of the rival that is strongest on all rows; and `gain` over it.
    """
    kept = {
        name: inside
        for name, inside in slices.items()
        if min(inside.sum(), (~inside).sum()) >= FEWEST
        and all(defined(problem, main, labels[rows]) for rows in (inside, ~inside))
    }
    rival = strongest(main, labels=labels, rivals=rivals)
    p_values = holm([p_value(main, inside, labels=labels, predictions=tuned) for inside in kept.values()])
    level = 1 - (1 - LEVEL) / max(1, len(kept))
    found: dict[str, dict[str, dict]] = {}
    for ((column, value), inside), corrected in zip(kept.items(), p_values, strict=True):
        of_slice = scores(problem, labels=labels[inside], predictions=tuned[inside], level=level)
        of_rival = main.value(labels[inside], rival[inside])
        found.setdefault(column, {})[value] = of_slice | {
            "rows": int(inside.sum()),
            "rest": main.value(labels[~inside], tuned[~inside]),
            "p_value": float(corrected),
            STRONGEST_RIVAL: of_rival,
            "gain": main.sign * (of_slice[main.key] - of_rival),
        }
    return found


def scores(problem: ScoredProblem, *, labels: np.ndarray, predictions: Any, level: float) -> dict[str, float | dict]:
    """Every score by which models can be compared, as far as the rows define it, and `interval`, that of each."""
    found = of_main_scores(problem, labels=labels, predictions=predictions, level=level)
    return {key: problem.main_scores[key].value(labels, predictions) for key in found} | {"interval": found}


def p_value(main: MainScore, inside: np.ndarray, *, labels: np.ndarray, predictions: Any) -> float:
    """The two-sided p-value, uncorrected, of the hypothesis that a slice is a random draw of the rows.

    The statistic is the difference between the scores of the slice and of the other rows. Where each row is either
    right or wrong, it is Fisher's exact test; else as many rows are drawn at random, again and again, until `EXTREME`
    draws differ at least as much from the others, or `DRAWS` are done (Besag & Clifford 1991).

    Args:
        inside: which rows belong to the slice, (rows,) bool.
    """
    if main.right_or_wrong(labels, predictions):
        right = main.of_rows(labels, predictions)
        table = [[(right[rows] == answer).sum() for rows in (inside, ~inside)] for answer in (True, False)]
        return float(stats.fisher_exact(table).pvalue)

    def differences(rows: np.ndarray) -> np.ndarray:
        of_rows, of_others = (main.values(labels, predictions, some.astype(float)) for some in (rows, ~rows))
        return np.abs(of_rows - of_others)

    least = differences(inside[None])[0] - ROUNDING * abs(main.value(labels, predictions))
    generator, extreme = np.random.default_rng(0), np.zeros(0)
    while len(extreme) < DRAWS and extreme.sum() < EXTREME:
        drawn = np.array([generator.permutation(inside) for _ in range(AT_ONCE)])
        extreme = np.append(extreme, ~(differences(drawn) < least))  # a draw that does not define the score is extreme
    if extreme.sum() < EXTREME:
        return float((extreme.sum() + 1) / (DRAWS + 1))
    return float(EXTREME / (np.searchsorted(extreme.cumsum(), EXTREME) + 1))


def holm(p_values: list[float]) -> np.ndarray:
    """P-values corrected for their number (Holm 1979): the chance of one false claim or more stays below the level."""
    ordered = np.sort(p_values)
    corrected = np.maximum.accumulate(np.minimum(1, ordered * np.arange(len(ordered), 0, -1)))
    ranks = np.argsort(np.argsort(p_values, kind="stable"), kind="stable")
    return corrected[ranks]
