"""search: good parameters, found on the validation rows with Optuna; every trial is a DVC experiment.

    python -m stages.search --trials 20 lora.r=4,8,16 train.lr=1e-4..3e-3

`a,b,c` tries these values; `low..high` tries numbers in that range, on a logarithmic scale. A trial runs the pipeline
up to `train` in a copy of the project, so nothing is scored on the test rows and the workspace stays unchanged; DVC
keeps the trial as the experiment NAME-NUMBER. A search continues from the existing experiments of its name. The score
of a trial is that of `train.select_by` on the validation rows: the loss, or the main score.

    python -m stages.search --trials 20 --storage /shared/search.log lora.r=4,8,16 train.lr=1e-4..3e-3

is one search, whatever the number of processes and machines that run this command at once: docs/scale.md. Each takes
the next trial until 20 are done.
"""

import argparse
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from stages.common import errors, files, paths
from stages.common.section import read_yaml
from stages.common.texts import literal
from stages.params import Params, check_parameter, unfit
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import AUTO, LOSS, selected_by
from stages.reporting import history
from stages.reporting.figure import as_png, as_written
from stages.reporting.history import Experiment
from stages.reporting.markdown import table
from stages.trials import journal
from stages.trials.journal import Journal

SHOWN = 5
"""Trials in the final table."""

BROKEN = 3
"""After as many trials that fail before one succeeds, a process leaves a shared search: its machine may be the cause,
and would soon have failed at all trials."""


def main() -> None:
    options = arguments()
    params = Params.load()
    select_by = params.train.select_by
    space = search_space(options.space, params)
    if options.storage:
        identity = journal.identity(params.model_dump(mode="json"), space)
        shared = Journal(options.storage, options.name, direction=direction(params), identity=identity)
        run_shared_trials(shared, space, total=options.trials, select_by=select_by)
        study = shared.study
    else:
        study = new_study(direction(params))
        run_trials(study, space, options.name, total=options.trials, params=params)
    print(best(study))
    if options.plot:
        files.write_bytes(options.plot, drawing(study))


def arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.search", description="Search for good parameters with Optuna."
    )
    parser.add_argument("space", nargs="+", metavar="PARAM=VALUES", help="values a,b,c or a range low..high")
    parser.add_argument("--trials", type=int, default=20, help="in total, earlier ones included (default: %(default)s)")
    parser.add_argument("--name", default="search", help="how the experiments' names start (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the trials as parallel coordinates")
    parser.add_argument(
        "--storage", type=Path, metavar="FILE.log", help="share the search with every process that names this file"
    )
    options = parser.parse_args()
    if options.trials < 1:
        parser.error(f"--trials: expected 1 or more, found {options.trials}")
    if options.plot:
        options.plot = files.destination("--plot", options.plot, endings=(".png",))
    if options.storage:
        options.storage = files.destination("--storage", options.storage, endings=(".log",))
    return options


def search_space(space: list[str], params: Params) -> dict[str, BaseDistribution]:
    """What to try for each parameter.

    Raises:
        PipelineError: a parameter is named twice; and see `distribution`.
    """
    found: dict[str, BaseDistribution] = {}
    for text in space:
        name, values = distribution(text, params)
        if name in found:
            raise errors.PipelineError(f"{name}: expected it once, found it twice; join its values: {name}=a,b,c")
        found[name] = values
    if "evaluate.main" in found:
        raise errors.PipelineError(
            "evaluate.main: expected one score for all trials, by which they are compared; set it in params.yaml"
        )
    return found


def distribution(text: str, params: Params) -> tuple[str, BaseDistribution]:
    """A parameter's name and the values to try, from `PARAM=a,b,c` or `PARAM=low..high`.

    Raises:
        PipelineError: `text` has neither form, params.yaml has no such parameter, or the parameter no such value.
    """
    name, _, values = text.partition("=")
    check_parameter(name)
    history.parameter(params.model_dump(), name)
    try:
        tried = read_yaml(f"[{values.replace('..', ',')}]")
    except ValueError:
        tried = []
    if not tried:
        raise errors.PipelineError(f"{name}: expected {name}=a,b,c or {name}=low..high, found {text}")
    if refused := list(filter(None, (unfit(name, value, params) for value in tried))):
        raise errors.PipelineError(refused[0])
    if found := [value for value in tried if isinstance(value, dict)]:
        raise errors.PipelineError(f"{name}: expected numbers, texts or lists, found {found[0]}; set it in params.yaml")
    if ".." not in values:
        return name, CategoricalDistribution(tried)
    if len(tried) != 2 or not all(isinstance(value, int | float) for value in tried) or not 0 < tried[0] < tried[1]:
        raise errors.PipelineError(f"{name}: expected low..high with 0 < low < high, found {values}")
    whole = all(isinstance(value, int) for value in tried)
    return name, (IntDistribution if whole else FloatDistribution)(*tried, log=True)


def direction(params: Params) -> str:
    """Whether the score of a trial is to be minimized or maximized; whatever `auto` chooses, it is the same."""
    scores, chosen = PROBLEMS[params.data.problem].main_scores, params.evaluate.main
    main_score = scores[next(iter(scores)) if chosen == AUTO else chosen]
    return "maximize" if params.train.select_by != LOSS and main_score.sign > 0 else "minimize"


def new_study(direction: str) -> optuna.Study:
    """A study without trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction=direction)


def run_trials(
    study: optuna.Study, space: dict[str, BaseDistribution], name: str, *, total: int, params: Params
) -> None:
    """Add the experiments of earlier calls to the study, and run those that are missing, one after the other."""
    names = [f"{name}-{number}" for number in range(total)]
    earlier = [experiment for experiment in history.finished(f"{name}-") if experiment.name in names]
    study.sampler = TPESampler(seed=len(earlier))  # the seed of an earlier call would repeat its trials
    for experiment in earlier:
        add_earlier_trial(study, space, experiment, params)
    for name in names:
        if name not in {experiment.name for experiment in earlier}:
            run_trial(study, study.ask(space), name, params.train.select_by)


def add_earlier_trial(
    study: optuna.Study, space: dict[str, BaseDistribution], experiment: Experiment, params: Params
) -> None:
    """Add an experiment of an earlier call to the study, as a finished trial.

    Raises:
        PipelineError: its parameters are outside `space`, or others than those of `params`.
    """
    select_by = params.train.select_by
    both = (params, Params.model_validate(experiment.params))
    now, then = (journal.compared(one.model_dump(mode="json")) for one in both)
    for key in journal.differing(now, then):
        if key not in space:
            raise errors.PipelineError(
                f"{experiment.name}: expected an earlier trial of this search, found one with {key} {then.get(key)} "
                f"instead of {now.get(key)}; set that, choose another --name, or remove it with dvc exp remove"
            )
    try:
        trial = optuna.trial.create_trial(
            params={name: history.parameter(experiment.params, name) for name in space},
            distributions=space,
            value=score(experiment, select_by),
            user_attrs={"experiment": experiment.name, "score": score_key(experiment, select_by)},
        )
    except ValueError as error:
        raise errors.PipelineError(
            f"{experiment.name}: expected an earlier trial of this search, found one from a different "
            f"search space ({error}); choose another --name, or remove it with dvc exp remove"
        ) from None
    check_comparable(study, trial.user_attrs)
    study.add_trial(trial)


def run_shared_trials(shared: Journal, space: dict[str, BaseDistribution], *, total: int, select_by: str) -> None:
    """Run trials until `total` are done, here and elsewhere.

    Raises:
        PipelineError: this clone has an experiment of the search's name that the search has not; or the first `BROKEN`
            trials failed here.
    """
    known = {f"{shared.name}-{trial.number}" for trial in shared.study.trials}
    for name in history.dvc_output("exp", "list", "--name-only").split():
        if re.fullmatch(rf"{re.escape(shared.name)}-\d+", name) and name not in known:
            raise errors.PipelineError(
                f"{name}: expected an experiment of the search in {shared.path}, found another of this name; choose "
                f"another --name, or remove it with dvc exp remove"
            )
    succeeded: list[bool] = []
    while trial := shared.next_trial(space, total=total):
        with shared.running(trial):
            succeeded.append(run_trial(shared.study, trial, f"{shared.name}-{trial.number}", select_by))
        if len(succeeded) == BROKEN and not any(succeeded):
            raise errors.PipelineError(
                f"expected a trial that succeeds, found that the first {BROKEN} failed here; mend the cause, and call "
                "again with as many more --trials"
            )


def run_trial(study: optuna.Study, trial: optuna.Trial, name: str, select_by: str) -> bool:
    """Run a trial up to `train`, as the experiment `name`, and tell the study its score; returns whether it has one."""
    trial.set_user_attr("experiment", name)
    if not history.run_experiment(name, trial.params, "train"):
        trial.set_user_attr(journal.FAILED, True)
        study.tell(trial, state=TrialState.FAIL)
        return False
    made = next((experiment for experiment in history.finished(name) if experiment.name == name), None)
    if made is None:
        raise errors.PipelineError(
            f"{name}: expected the search's commit to stay checked out, found another; check it out, and call again"
        )
    trial.set_user_attr("score", score_key(made, select_by))
    check_comparable(study, trial.user_attrs)
    study.tell(trial, score(made, select_by), skip_if_finished=True)  # others may have given it up at this moment
    return True


def check_comparable(study: optuna.Study, trial: dict[str, Any]) -> None:
    """Check that a trial is scored as the finished ones are.

    Args:
        trial: the attributes `experiment` and `score`.

    Raises:
        PipelineError: it is not: a parameter changes what `evaluate.main: auto` chooses.
    """
    for other in study.get_trials(states=[TrialState.COMPLETE]):
        if (key := other.user_attrs["score"]) != trial["score"]:
            raise errors.PipelineError(
                f"{trial['experiment']}: expected a trial that is scored by {key}, as {other.user_attrs['experiment']} "
                f"is, found one scored by {trial['score']}; set evaluate.main, and choose another --name"
            )


def score(experiment: Experiment, select_by: str) -> float:
    """An experiment's score on the validation rows."""
    return experiment.metrics[str(paths.TRAIN_METRICS)]["validation"][score_key(experiment, select_by)]


def score_key(experiment: Experiment, select_by: str) -> str:
    """The key of that score in metrics/train.json."""
    found = experiment.metrics[str(paths.TRAIN_METRICS)]
    return selected_by(select_by, found["main"], found["validation"])


def best(study: optuna.Study) -> str:
    """The best trials as a table, of a shared search all trials, with where each ran; and the command that applies the
    best.

    Raises:
        PipelineError: every trial failed.
    """
    done = study.get_trials(states=[TrialState.COMPLETE])
    if not done:
        failed = [trial for trial in study.trials if not journal.given_up(trial)]
        raise errors.PipelineError(f"expected at least one successful trial, found {len(failed)} that failed")
    done.sort(key=lambda trial: trial.value, reverse=study.direction == StudyDirection.MAXIMIZE)
    shared = journal.WHERE in done[0].user_attrs
    failed = [trial for trial in study.trials if journal.FAILED in trial.user_attrs]
    lines = [
        (
            literal(trial.user_attrs["experiment"]),
            "failed" if trial.value is None else f"{trial.value:.4f}",
            *(history.shown(trial.params[name]) for name in done[0].params),
            *([literal(trial.user_attrs[journal.WHERE])] if shared else []),
        )
        for trial in (done + failed if shared else done[:SHOWN])
    ]
    names = [*map(literal, done[0].params), *(["ran in"] if shared else [])]
    return (
        table(["experiment", f"validation {done[0].user_attrs['score']}", *names], lines) + f"\n\n{to_apply(done[0])}"
    )


def to_apply(trial: FrozenTrial) -> str:
    """The command that applies a trial's experiment, which another clone has if the trial ran there."""
    name, here = shlex.quote(trial.user_attrs["experiment"]), journal.where()
    there = trial.user_attrs.get(journal.WHERE, here)
    machine = here.partition(":")[0]
    pull = "" if there == here else f"dvc exp pull {shlex.quote(there.removeprefix(f'{machine}:'))} {name} && "
    return f"{pull}dvc exp apply {name} && dvc repro"


@as_written()
def drawing(study: optuna.Study) -> bytes:
    """Every trial as a line through its parameters, as PNG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study)
    return as_png(axes.figure, bbox_inches="tight")


if __name__ == "__main__":
    errors.run(main)
