"""search: good parameters, found on the validation rows with Optuna; every trial is a DVC experiment.

    python -m stages.search --trials 20 lora.r=4,8,16 train.lr=1e-4..3e-3

`a,b,c` tries these values; `low..high` any number between them, evenly on a logarithmic scale. A trial runs the
pipeline up to `train`, in a copy of the project, so the test rows stay unread and the workspace as it is; it is kept as
the experiment NAME-NUMBER. A search goes on from the experiments of its name that are there. The score is the
validation rows' `train.select_by`.
"""

import argparse
import io
import warnings
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ruamel.yaml import YAML

from stages import experiments
from stages.common import errors, files, paths
from stages.experiments import finished, parameter
from stages.params import Params
from stages.reporting.markdown import table

SHOWN = 5
"""Trials in the final table."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.search", description="Search good parameters with Optuna.")
    parser.add_argument("space", nargs="+", metavar="PARAM=VALUES", help="values a,b,c or a range low..high")
    parser.add_argument("--trials", type=int, default=20, help="in all, earlier ones among them (default: %(default)s)")
    parser.add_argument("--name", default="search", help="how the experiments' names start (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the trials as parallel coordinates")
    options = parser.parse_args()
    params = Params.load()
    select_by = params.train.select_by
    space = dict(distribution(text, params) for text in options.space)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = "minimize" if select_by == "loss" else "maximize"
    names = [f"{options.name}-{number}" for number in range(options.trials)]
    earlier = {run["name"]: run for run in finished(f"{options.name}-") if run["name"] in names}
    sampler = optuna.samplers.TPESampler(
        seed=len(earlier)
    )  # another seed than earlier calls', or it draws their trials
    study = optuna.create_study(direction=direction, sampler=sampler)
    for done in earlier.values():
        take_up(study, space, done, select_by)
    for name in names:
        if name in earlier:
            continue
        trial = study.ask(space)
        trial.set_user_attr("experiment", name)
        if experiments.run(name, trial.params, "train"):
            (made,) = (run for run in finished(name) if run["name"] == name)
            study.tell(trial, score(made, select_by))
        else:
            study.tell(trial, state=TrialState.FAIL)
    print(best(study, select_by))
    if options.plot:
        files.write_bytes(options.plot, drawing(study))


def distribution(text: str, params: Params) -> tuple[str, BaseDistribution]:
    """A parameter's name and what to try, from `PARAM=a,b,c` or `PARAM=low..high`.

    Raises:
        PipelineError: it is neither, or params.yaml has no such parameter.
    """
    name, _, values = text.partition("=")
    parameter(params.model_dump(), name)
    separator = ".." if ".." in values else ","
    tried = [YAML(typ="safe").load(value) for value in values.split(separator)]
    if separator == ",":
        return name, CategoricalDistribution(tried)
    if len(tried) != 2 or not all(isinstance(value, int | float) for value in tried) or not 0 < tried[0] < tried[1]:
        raise errors.PipelineError(f"{name}: expected low..high with 0 < low < high, found {values}")
    whole = all(isinstance(value, int) for value in tried)
    return name, (IntDistribution if whole else FloatDistribution)(*tried, log=True)


def take_up(study: optuna.Study, space: dict[str, BaseDistribution], run: dict, select_by: str) -> None:
    """Add an experiment that an earlier call left.

    Raises:
        PipelineError: it lies outside `space`.
    """
    try:
        trial = optuna.trial.create_trial(
            params={name: parameter(run["params"], name) for name in space},
            distributions=space,
            value=score(run, select_by),
            user_attrs={"experiment": run["name"]},
        )
    except ValueError as error:
        raise errors.PipelineError(
            f"{run['name']}: expected an earlier trial of this search, found one of another space ({error}); "
            "choose another --name, or remove it with dvc exp remove"
        ) from None
    study.add_trial(trial)


def score(run: dict, select_by: str) -> float:
    """An experiment's score on the validation rows."""
    return run["metrics"][str(paths.TRAIN_METRICS)]["validation"][select_by]


def best(study: optuna.Study, select_by: str) -> str:
    """The best trials as a table, and how to take up the first.

    Raises:
        PipelineError: every trial failed.
    """
    done = study.get_trials(states=[TrialState.COMPLETE])
    if not done:
        raise errors.PipelineError(f"expected a training that ends well, found {len(study.trials)} that failed")
    done.sort(key=lambda trial: trial.value, reverse=select_by == "accuracy")
    lines = [
        (
            trial.user_attrs["experiment"],
            f"{trial.value:.4f}",
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.params.values()),
        )
        for trial in done[:SHOWN]
    ]
    return (
        table(["experiment", f"validation {select_by}", *done[0].params], lines)
        + f"\n\ndvc exp apply {lines[0][0]} && dvc repro"
    )


def drawing(study: optuna.Study) -> bytes:
    """Every trial as a line through its parameters, as PNG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study)
    content = io.BytesIO()
    axes.figure.savefig(content, dpi=100, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()


if __name__ == "__main__":
    errors.run(main)
