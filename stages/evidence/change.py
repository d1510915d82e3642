"""How the tuned model's main score changed since another revision, tested on the same rows where that is possible."""

from dataclasses import dataclass

import pandas as pd

from stages.common import texts
from stages.common.rivals import TUNED
from stages.problems.main_score import MainScore
from stages.problems.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Change:
    """The tuned model's main score at another revision, `before`, and now, `after`."""

    before: float
    after: float
    intervals: tuple[dict[str, float], dict[str, float]]
    """The 95 % intervals of both, `low` and `high`."""
    rows: int
    """The number of test rows now."""
    same_rows: bool
    """Whether both were scored on the same test rows, with the same labels; otherwise they cannot be compared."""
    paired: dict[str, float] | None = None
    """What `significance.gain` finds for this model against the other; None: without the answers to each row."""


def between(
    problem: Problem,
    main: MainScore,
    *,
    before: dict,
    after: dict,
    answers: tuple[pd.DataFrame | None, pd.DataFrame],
    same_file: bool,
) -> Change:
    """The change between two runs.

    Args:
        before, after: metrics/evaluate.json of each; both have the main score.
        answers: data/predictions/test.csv of each, all of it as text; None: it is lost.
        same_file: whether the file of the test rows is the same; it counts where the answers before are lost.
    """
    earlier, later = answers
    same_rows = same_file if earlier is None else rows_of(earlier).equals(rows_of(later))
    paired = None
    if earlier is not None and same_rows and main.from_answers:
        names = sorted({*before.get("classes", {}), *after.get("classes", {})})
        paired = gain(problem, main, before=earlier, after=later, names=names)
    return Change(
        before=before[main.key],
        after=after[main.key],
        intervals=(before["interval"][main.key], after["interval"][main.key]),
        rows=len(later),
        same_rows=same_rows,
        paired=paired,
    )


def rows_of(answers: pd.DataFrame) -> pd.DataFrame:
    """The texts and labels that were answered, by the rows' numbers and in their order as text."""
    return answers.filter([*texts.COLUMNS, "label"]).set_index(answers["row"]).sort_index()


def gain(
    problem: Problem, main: MainScore, *, before: pd.DataFrame, after: pd.DataFrame, names: list[str]
) -> dict[str, float]:
    """The gain of the answers after over those before, to the same rows, as `significance.gain` returns it.

    Args:
        names: of the classes or labels.
    """
    from stages.evidence import significance  # here: without a revision the report needs no scipy, which takes a second

    before = before.set_index("row").loc[after["row"]]
    tuned, rival = (problem.certain(problem.labels_of(table[TUNED], names), names) for table in (after, before))
    labels = problem.labels_of(after["label"], names)
    return significance.gain(main, labels=labels, tuned=tuned, rival=rival)
