"""Which labels are probably wrong: those that linear models contradict that were not trained on their rows.

The method is confident learning (Northcutt, Jiang & Chuang 2021), as the library cleanlab implements it.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.scoring.scored import ScoredProblem, fit

FOLDS = 5
"""Parts of the rows; a model trained on the other parts judges the labels of each. Also the fewest rows of a class or
label that is judged: models that saw fewer would contradict all of them."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Rows: their features, (rows, hidden) float64, and their labels."""

    features: np.ndarray
    labels: np.ndarray


def judge(
    problem: ScoredProblem, names: list[str], *, known: Labelled, others: Labelled, strength: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well labels agree with linear probes that were trained on other rows.

    Args:
        names: of the classes or labels.
        known: the rows that probes are trained on, `FOLDS` times, each time without the rows that they judge.
        others: rows that are only judged, by all probes together. Their labels train no probe, but decide together
            from where on one of them is suspect: by the mean probability of each class, or the spread of numbers.
        strength: the probes' inverse regularization strength.
        seed: for which rows fall into which fold.

    Returns:
        For `known` and for `others`, a line for each row: its `label`; the `likely` one, which the probes give;
        `quality`, from 0 (certainly wrong) to 1; `label_probability` and `likely_probability`, unless labels are
        numbers; whether the label is `judged`, and whether it is `suspect`.
    """
    strata = problem.strata(pd.Series(problem.truth(known.labels, names)))  # as in `prepare`
    outputs, other_outputs = out_of_fold(
        problem, names, known, others=others.features, folds=stratified_folds(strata, seed), strength=strength
    )
    learnt = problem.rows_of_each(known.labels, names) >= FOLDS
    return (
        compared(problem, names, labels=known.labels, outputs=outputs, learnt=learnt),
        compared(problem, names, labels=others.labels, outputs=other_outputs, learnt=learnt),
    )


def stratified_folds(strata: pd.Series, seed: int) -> np.ndarray:
    """The fold of each row, (rows,): the rows of a stratum are dealt out evenly, in a shuffled order.

    Unlike with scikit-learn's `StratifiedKFold`, every stratum may have fewer rows than there are folds.
    """
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    dealt = shuffled[np.argsort(strata.to_numpy()[shuffled], kind="stable")]
    folds = np.empty(len(strata), dtype=int)
    folds[dealt] = np.arange(len(strata)) % FOLDS
    return folds


def out_of_fold(
    problem: ScoredProblem,
    names: list[str],
    known: Labelled,
    *,
    others: np.ndarray,
    folds: np.ndarray,
    strength: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of probes for the rows that they were not trained on: of one probe for each row of `known`, and the
    mean of all probes for each row of `others`."""
    positions, outputs, means = [], [], []
    for fold in np.unique(folds):
        probe = make_pipeline(StandardScaler(), problem.linear(strength))
        fit(probe, known.features[folds != fold], known.labels[folds != fold])
        positions.append(np.flatnonzero(folds == fold))
        outputs.append(problem.fitted(probe, known.features[folds == fold], names))
        means.append(problem.fitted(probe, others, names))
    return np.concatenate(outputs)[np.argsort(np.concatenate(positions))], np.mean(means, axis=0)


def compared(
    problem: ScoredProblem, names: list[str], *, labels: np.ndarray, outputs: np.ndarray, learnt: np.ndarray
) -> pd.DataFrame:
    """A line for each row, see `judge`."""
    answers = problem.decide(outputs, [])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues")  # of a class with a single row
        quality = problem.label_quality(labels, outputs, learnt)
    table = pd.DataFrame(
        {
            "label": problem.truth(labels, names),
            "likely": problem.answers(answers, names),
            **quality,
            **{f"likely_{name}": values for name, values in problem.confidence(answers).items()},
        }
    )
    return table.assign(suspect=table["suspect"] & (table["label"] != table["likely"]))
