"""The kinds of problem that a text can pose; `stages.common.protocol.Problem` says what each module offers."""

from stages.common import multi_label, regression, single_label
from stages.common.protocol import Problem

PROBLEMS: dict[str, Problem] = {"single_label": single_label, "multi_label": multi_label, "regression": regression}
"""By the value of `data.problem`."""


def of_run(params: dict) -> Problem:
    """The problem that a run's parameters name."""
    return PROBLEMS[params["data"]["problem"]]
