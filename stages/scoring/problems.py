"""The kinds of problem that a text can pose; `stages.scoring.problem.Problem` says what each module offers."""

from stages.scoring import multi_label, regression, single_label
from stages.scoring.problem import Problem

PROBLEMS: dict[str, Problem] = {"single_label": single_label, "multi_label": multi_label, "regression": regression}
"""By the value of `data.problem`."""


def of_run(params: dict) -> Problem:
    """The problem that a run's parameters name."""
    return PROBLEMS[params["data"]["problem"]]
