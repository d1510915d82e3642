"""search: good parameters, found on the validation rows with Optuna; every trial is a DVC experiment.

    python -m stages.search --trials 20 lora.r=4,8,16 train.lr=1e-4..3e-3

`a,b,c` tries these values; `low..high` tries numbers in that range, on a logarithmic scale. A trial runs the pipeline
up to `train` in a copy of the project, so nothing is scored on the test rows and the workspace stays unchanged; DVC
keeps the trial as the experiment NAME-NUMBER. A search continues from the existing experiments of its name. The score
of a trial is that of `train.select_by` on the validation rows: the loss, or the main score.
"""

import argparse
import shlex
import warnings
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from stages.common import content, errors, files, paths
from stages.common.texts import literal
from stages.params import Params, check_parameter, unfit
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import AUTO, LOSS
from stages.reporting import history
from stages.reporting.figure import as_png, as_written
from stages.reporting.history import Experiment
from stages.reporting.markdown import table

SHOWN = 5
"""Trials in the final table."""


def main() -> None:
    options = arguments()
    params = Params.load()
    select_by = params.train.select_by
    space = search_space(options.space, params)
    names = [f"{options.name}-{number}" for number in range(options.trials)]
    earlier = [experiment for experiment in history.finished(f"{options.name}-") if experiment.name in names]
    study = new_study(direction(params), seed=len(earlier))  # the seed of an earlier call would repeat its trials
    for experiment in earlier:
        add_earlier_trial(study, space, experiment, select_by)
    for name in names:
        if name not in {experiment.name for experiment in earlier}:
            run_next_trial(study, space, name, select_by)
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
    options = parser.parse_args()
    if options.trials < 1:
        parser.error(f"--trials: expected 1 or more, found {options.trials}")
    if options.plot:
        options.plot = files.destination("--plot", options.plot, endings=(".png",))
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
        tried = content.read_yaml(f"[{values.replace('..', ',')}]")
    except ValueError:
        tried = []
    if not tried:
        raise errors.PipelineError(f"{name}: expected {name}=a,b,c or {name}=low..high, found {text}")
    if refused := list(filter(None, (unfit(name, value, params) for value in tried))):
        raise errors.PipelineError(refused[0])
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


def new_study(direction: str, *, seed: int) -> optuna.Study:
    """A study without trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=seed))


def add_earlier_trial(
    study: optuna.Study, space: dict[str, BaseDistribution], experiment: Experiment, select_by: str
) -> None:
    """Add an experiment of an earlier call to the study, as a finished trial.

    Raises:
        PipelineError: its parameters are outside `space`.
    """
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
    study.add_trial(trial)


def run_next_trial(study: optuna.Study, space: dict[str, BaseDistribution], name: str, select_by: str) -> None:
    """Run the study's next proposal up to `train`, as the experiment `name`, and report its score to the study."""
    trial = study.ask(space)
    trial.set_user_attr("experiment", name)
    if history.run_experiment(name, trial.params, "train"):
        (made,) = (experiment for experiment in history.finished(name) if experiment.name == name)
        trial.set_user_attr("score", score_key(made, select_by))
        study.tell(trial, score(made, select_by))
    else:
        study.tell(trial, state=TrialState.FAIL)


def score(experiment: Experiment, select_by: str) -> float:
    """An experiment's score on the validation rows."""
    return experiment.metrics[str(paths.TRAIN_METRICS)]["validation"][score_key(experiment, select_by)]


def score_key(experiment: Experiment, select_by: str) -> str:
    """The key of that score in metrics/train.json."""
    return LOSS if select_by == LOSS else experiment.metrics[str(paths.TRAIN_METRICS)]["main"]


def best(study: optuna.Study) -> str:
    """The best trials as a table, and the command that applies the first.

    Raises:
        PipelineError: every trial failed.
    """
    done = study.get_trials(states=[TrialState.COMPLETE])
    if not done:
        raise errors.PipelineError(f"expected at least one successful trial, found {len(study.trials)} that failed")
    done.sort(key=lambda trial: trial.value, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    lines = [
        (
            literal(trial.user_attrs["experiment"]),
            f"{trial.value:.4f}",
            *map(history.shown, trial.params.values()),
        )
        for trial in done[:SHOWN]
    ]
    return (
        table(["experiment", f"validation {done[0].user_attrs['score']}", *map(literal, done[0].params)], lines)
        + f"\n\ndvc exp apply {shlex.quote(done[0].user_attrs['experiment'])} && dvc repro"
    )


@as_written()
def drawing(study: optuna.Study) -> bytes:
    """Every trial as a line through its parameters, as PNG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study)
    return as_png(axes.figure, bbox_inches="tight")


if __name__ == "__main__":
    errors.run(main)
