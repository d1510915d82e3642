"""experiments: the results of several DVC experiments, side by side: splits, learning curves, sweeps.

    dvc exp run --queue --name splits -S data.seed=42,1,2 && dvc exp run --run-all
    python -m stages.experiments splits

    dvc exp run --queue --name rows -S data.limit.train=100,300,1000,3000 && dvc exp run --run-all
    python -m stages.experiments rows --by data.limit.train --plot metrics/learning_curve.png

Reads, from `dvc exp show`, the finished experiments on the last commit whose names start with the given text, and
groups them by the value of a parameter; `--by name` shows each on its own. The runs of a group, which differ in other
parameters, are averaged: mean ± standard deviation. Prints Markdown: every model's main score, the gain of each run's
kept adapter over the strongest rival, and whether that gain exceeds the spread between runs. That is no test: for one
that takes both rows and seeds into account, train several seeds in one run (`train.seeds`).
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pandas.core.groupby import DataFrameGroupBy

from stages.common import errors, files, paths, progress, texts
from stages.common.rivals import BAG_OF_CHARACTERS, BAG_OF_WORDS, LINEAR_PROBE, STRONGEST_RIVAL, TUNED, ZERO_SHOT
from stages.common.texts import literal
from stages.params import Params, check_parameter
from stages.problems.kinds import PROBLEMS
from stages.problems.problem import Problem
from stages.reporting.figure import as_png, as_written
from stages.reporting.history import Experiment, finished, parameter
from stages.reporting.markdown import paragraphs, table
from stages.reporting.wording import METRICS, Metric

MODELS = (BAG_OF_WORDS, BAG_OF_CHARACTERS, ZERO_SHOT, LINEAR_PROBE, TUNED)
"""The models that are compared: the strongest rival of each kind, and the tuned model."""

BY_NAME = "name"
"""What shows each experiment on its own, in place of a parameter."""


def main() -> None:
    options = arguments()
    groups, main_key = grouped(options.name, options.by, PROBLEMS[Params.load().data.problem])
    metric = METRICS[main_key]
    print(paragraphs(comparison(groups, options.by, metric), *spread_sentences(groups, metric)))
    if options.plot:
        files.write_bytes(options.plot, drawing(groups, options.by, metric))


def arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m stages.experiments", description="DVC experiments, side by side.")
    parser.add_argument("name", nargs="?", default="", help="how the experiments' names start (default: all)")
    parser.add_argument("--by", metavar="PARAM", help="group them by this parameter, or by name")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the main scores against that parameter")
    options = parser.parse_args()
    if options.plot and not options.by:
        parser.error("--plot: expected --by PARAM with it, for the horizontal axis")
    if options.by not in (None, BY_NAME):
        check_parameter(options.by)
    if options.plot:
        options.plot = files.destination("--plot", options.plot, endings=(".png",))
    return options


def grouped(name: str, by: str | None, problem: Problem) -> tuple[DataFrameGroupBy, str]:
    """One row for each experiment on `problem` (see `outcome`), grouped by the column `value`; their main score's key.

    Raises:
        PipelineError: there is no finished experiment whose name starts with `name`, or their main scores differ.
    """
    found = list(finished(name))
    of_problem = [
        experiment
        for experiment in found
        if experiment.evaluated and experiment.params["data"]["problem"] == problem.name
    ]
    if left_out := [experiment.name for experiment in found if experiment not in of_problem]:
        progress.say(f"left out, not evaluated or of another data.problem than {problem.name}: {', '.join(left_out)}")
    runs = pd.DataFrame([outcome(experiment) for experiment in of_problem])
    if runs.empty:
        named = f" whose names start with {name!r}" if name else ""
        raise errors.PipelineError(f"expected finished experiments on the last commit{named}, found none: dvc exp run")
    main_key, *others = runs.pop("main").unique()
    if others:
        raise errors.PipelineError(
            f"expected experiments with the same main score, found {', '.join([main_key, *others])}; give NAME, the "
            "start of the names of those to compare"
        )
    runs["value"] = in_order(values(of_problem, by))
    return runs.groupby("value", observed=True), main_key


def values(experiments: list[Experiment], by: str | None) -> list[object]:
    """Each experiment's value of the parameter `by`; null where it has none.

    Raises:
        PipelineError: no experiment has it.
    """
    if by in (None, BY_NAME):
        return [experiment.name if by else "all" for experiment in experiments]
    found = {}
    for number, experiment in enumerate(experiments):
        with contextlib.suppress(errors.PipelineError):
            found[number] = parameter(experiment.params, by)
    if not found:
        raise errors.PipelineError(f"--by: expected a parameter that an experiment has, found {by}")
    return [found.get(number) for number in range(len(experiments))]


def in_order(values: list[object]) -> pd.Series | pd.Categorical:
    """The values to group by: numbers or texts as they are; else as in params.yaml, numbers first."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) or all(isinstance(value, str) for value in values):
        return pd.Series(values)
    labels = [as_yaml(value) for value in values]
    first = dict.fromkeys(as_yaml(number) for number in sorted(numbers))
    return pd.Categorical(labels, categories=[*first, *sorted({*labels} - {*first})], ordered=True)


def as_yaml(value: object) -> str:
    """A value as params.yaml has it, on one line."""
    return value if isinstance(value, str) and texts.is_plain(value) else json.dumps(value, ensure_ascii=False)


def outcome(experiment: Experiment) -> dict[str, object]:
    """One experiment as a row: main scores by model, gain over the strongest rival, trained parameters."""
    baseline, trained, tuned = (
        experiment.metrics[str(path)] for path in (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
    )
    scores, main_key = baseline | {TUNED: tuned}, trained["main"]
    return {
        "main": main_key,
        **{name: scores[name][main_key] for name in MODELS if name in scores},
        **tuned["interval"][main_key],
        "gain": tuned["gain"][STRONGEST_RIVAL],
        "trainable": trained["trainable_parameters"],
    }


def comparison(groups: DataFrameGroupBy, by: str | None, metric: Metric) -> str:
    """A row for each group: its runs, every model's main score, the gain, the trained parameters."""
    models = [name for name in MODELS if name in groups.first()]
    lines = [
        [
            shown(value),
            str(len(runs)),
            *(mean(runs[name], metric) for name in models[:-1]),
            mean(runs[TUNED], metric) + (interval(runs, metric) if len(runs) == 1 else ""),
            gain(runs["gain"], metric),
            " to ".join(f"{count:,}" for count in sorted({runs["trainable"].min(), runs["trainable"].max()})),
        ]
        for value, runs in groups
    ]
    first = literal(by) if by else "experiments"
    return table([first, "runs", *models, metric.column_title("gain"), "trained parameters"], lines)


def shown(value: float | str) -> str:
    """The value of a group as Markdown."""
    return f"{value:,}" if isinstance(value, int | float) else literal(value)


def mean(scores: pd.Series, metric: Metric) -> str:
    """The mean of the scores, and their standard deviation if there are several; a dash if no run has one."""
    scores = scores.dropna()
    if scores.empty:
        return "—"
    shown = f"{metric.number(scores.mean())} {metric.mark}".rstrip()
    return shown + (f" ± {metric.number(scores.std())}" if len(scores) > 1 else "")


def interval(runs: pd.DataFrame, metric: Metric) -> str:
    """The 95 % confidence interval of a single run's score."""
    return f" ({metric.number(runs['low'].iloc[0])} to {metric.number(runs['high'].iloc[0])})"


def gain(differences: pd.Series, metric: Metric) -> str:
    """The mean of the differences, and their standard deviation if there are several."""
    spread = f" ± {metric.number(differences.std())}" if len(differences) > 1 else ""
    return metric.signed(differences.mean()) + spread


def spread_sentences(groups: DataFrameGroupBy, metric: Metric) -> Iterator[str]:
    """For each group of several runs, whether the gain exceeds the spread between runs."""
    for value, runs in groups:
        if len(runs) > 1:
            exceeds = "exceeds" if runs["gain"].mean() > 2 * runs["gain"].std() else "does not exceed"
            yield (
                f"{shown(value)}: over {len(runs)} runs the gain over the strongest rival, "
                f"{metric.with_unit(gain(runs['gain'], metric))}, {exceeds} twice its standard deviation (no test); "
                f"{(runs['gain'] > 0).sum()} of {len(runs)} runs gained."
            )


@as_written()
def drawing(groups: DataFrameGroupBy, by: str, metric: Metric) -> bytes:
    """Main scores against the parameter, as PNG; bars show the standard deviation between runs."""
    means, deviations = groups.mean().map(metric.scaled), groups.std().fillna(0).map(metric.scaled)
    if not pd.api.types.is_numeric_dtype(means.index):
        means.index = means.index.astype(str)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in MODELS:
        if name in means:
            axes.errorbar(means.index, means[name], deviations[name], marker="o", capsize=3, label=name)
    if pd.api.types.is_numeric_dtype(means.index):
        scale = "log" if min(means.index) > 0 else "linear"
        axes.set(xscale=scale, xticks=means.index, xticklabels=[f"{value:,}" for value in means.index])
        axes.minorticks_off()
    axes.set(xlabel=by, ylabel=", ".join(filter(None, (f"{metric.name} on the test rows", metric.mark))))
    axes.legend()
    return as_png(figure)


if __name__ == "__main__":
    errors.run(main)
