"""The kinds of problem: single-label, multi-label and regression."""

from stages.problems.multi_label import MultiLabel
from stages.problems.problem import Problem
from stages.problems.regression import Regression
from stages.problems.single_label import SingleLabel

PROBLEMS: dict[str, Problem] = {kind.name: kind() for kind in (SingleLabel, MultiLabel, Regression)}
"""The object of each kind, by the value of `data.problem`."""


def of_model(problem_type: str | None) -> Problem:
    """The problem of a model whose transformers configuration has this `problem_type`."""
    return next(problem for problem in PROBLEMS.values() if problem.transformers_type == problem_type)
