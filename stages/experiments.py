"""experiments: what several DVC experiments found, side by side: seeds, learning curves, sweeps.

    dvc exp run --queue --name seeds -S seed=42,1,2 && dvc exp run --run-all
    python -m stages.experiments seeds

    dvc exp run --queue --name rows -S data.limit.train=100,300,1000,3000 && dvc exp run --run-all
    python -m stages.experiments rows --by data.limit.train --plot metrics/learning_curve.png

Reads, from `dvc exp show`, the finished experiments on the last commit whose names start with the given one, and groups
them by a parameter's value, or with `--by name` shows each. Runs of a group that differ elsewhere, in their seed, are
averaged: mean ± standard deviation. Prints Markdown: every model's main score, the tuned model's gain over the
strongest rival of each run, and whether that gain exceeds the spread between runs.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib import pyplot
from pandas.core.groupby import DataFrameGroupBy

from stages.common import errors, files, paths
from stages.params import Params
from stages.reporting.markdown import paragraphs, table
from stages.scoring.problem import Main
from stages.scoring.problems import PROBLEMS
from stages.scoring.single_label import MAIN

matplotlib.use("Agg")

MODELS = ("bag_of_words", "zero_shot", "linear_probe", "tuned")
"""Those compared: the strongest rival of each kind, and the tuned model."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.experiments", description="DVC experiments, side by side.")
    parser.add_argument("name", nargs="?", default="", help="how the experiments' names start (default: all)")
    parser.add_argument("--by", metavar="PARAM", help="group them by this parameter, or by name")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw accuracy against that parameter")
    options = parser.parse_args()
    if options.plot and not options.by:
        parser.error("--plot: expected --by PARAM with it, for the horizontal axis")
    problem = Params.load().data.problem
    main, groups = PROBLEMS[problem].MAIN, grouped(options.name, options.by, problem)
    print(paragraphs(comparison(groups, options.by, main), *spreads(groups, main)))
    if options.plot:
        files.write_bytes(options.plot, drawing(groups, options.by, main))


def grouped(name: str, by: str | None, problem: str = "single_label") -> DataFrameGroupBy:
    """One row an experiment on the problem, see `outcome`, grouped by their `value`.

    Raises:
        PipelineError: there is none of that name.
    """
    done = [run for run in finished(name) if run["evaluated"] and run["params"]["data"]["problem"] == problem]
    runs = pd.DataFrame([outcome(run, by, PROBLEMS[problem].MAIN) for run in done])
    if runs.empty:
        named = f" whose names start with {name!r}" if name else ""
        raise errors.PipelineError(f"expected finished experiments on the last commit{named}, found none: dvc exp run")
    if not pd.api.types.is_numeric_dtype(runs["value"]):
        runs["value"] = runs["value"].map(str)
    return runs.groupby("value")


def run(name: str, changes: dict[str, object], *targets: str) -> bool:
    """Run an experiment in a copy of the project, up to the target stages; whether it succeeded."""
    overrides = [argument for key, value in changes.items() for argument in ("-S", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *overrides, *targets]
    return not subprocess.run(command).returncode


def finished(name: str) -> Iterator[dict]:
    """The last commit's finished experiments, as `dvc exp show` tells them.

    Each has a `name`, `params`, `metrics` by file, and whether its adapter was `evaluated`: an experiment that ran up
    to `train` still holds the commit's metrics/evaluate.json.

    Raises:
        PipelineError: DVC fails.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", "exp", "show", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise errors.PipelineError(f"dvc exp show: {done.stderr.strip().splitlines()[-1]}")
    commit = json.loads(done.stdout)[1]  # the workspace comes first
    for experiment in commit["experiments"] or []:
        run = experiment["revs"][0]
        running = experiment["executor"] and experiment["executor"]["state"] != "success"
        if not running and not run["error"] and run["name"].startswith(name):
            found, adapter = run["data"], str(paths.ADAPTER)
            yield {
                "name": run["name"],
                "params": found["params"][str(paths.PARAMS)]["data"],
                "metrics": {path: file.get("data") for path, file in found["metrics"].items()},
                "evaluated": found["deps"][adapter]["hash"] == found["outs"][adapter]["hash"],
            }


def outcome(run: dict, by: str | None, main: Main) -> dict[str, object]:
    """One experiment as a row: the value of the parameter `by`, main scores by model, gain over the strongest rival."""
    baseline, trained, tuned = (
        run["metrics"][str(path)] for path in (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
    )
    scores = baseline | {"tuned": tuned}
    values = {None: "all", "name": run["name"]}
    return {
        "value": values[by] if by in values else parameter(run["params"], by),
        **{name: scores[name][main.key] for name in MODELS if name in scores},
        **tuned["interval"][main.key],
        "gain": tuned["gain"]["strongest_rival"],
        "trainable": trained["trainable_parameters"],
    }


def parameter(params: dict, name: str) -> object:
    """The value of a dotted name in params.yaml.

    Raises:
        PipelineError: there is none.
    """
    value: object = params
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise errors.PipelineError(f"expected a parameter of params.yaml, found {name}")
        value = value[key]
    return value


def comparison(groups: DataFrameGroupBy, by: str | None, main: Main = MAIN) -> str:
    """A row a group: its runs, every model's main score, the gain, the trained parameters."""
    first = groups.first()
    models = [name for name in MODELS if name in first]
    lines = [
        [
            f"{value:,}" if isinstance(value, int | float) else value,
            str(len(runs)),
            *(mean(runs[name], main) for name in models[:-1]),
            mean(runs["tuned"], main) + (interval(runs, main) if len(runs) == 1 else ""),
            gain(runs["gain"], main),
            f"{runs['trainable'].iloc[0]:,}",
        ]
        for value, runs in groups
    ]
    return table([by or "experiments", "runs", *models, main.titled("gain"), "trained parameters"], lines)


def mean(scores: pd.Series, main: Main) -> str:
    """The mean of the scores, and with several their standard deviation."""
    shown = f"{main.bare(scores.mean())} {main.mark}".rstrip()
    return shown + (f" ± {main.bare(scores.std())}" if len(scores) > 1 else "")


def interval(runs: pd.DataFrame, main: Main) -> str:
    """The 95 % confidence interval of a single run's score."""
    return f" ({main.bare(runs['low'].iloc[0])} to {main.bare(runs['high'].iloc[0])})"


def gain(differences: pd.Series, main: Main) -> str:
    """Their mean, and with several their standard deviation."""
    spread = f" ± {main.bare(differences.std())}" if len(differences) > 1 else ""
    return main.difference(differences.mean()) + spread


def spreads(groups: DataFrameGroupBy, main: Main = MAIN) -> Iterator[str]:
    """For each group of several runs, whether the gain exceeds what changes from run to run."""
    for value, runs in groups:
        if len(runs) > 1:
            exceeds = "exceeds" if runs["gain"].mean() > 2 * runs["gain"].std() else "does not exceed"
            gained = f"{gain(runs['gain'], main)} {main.unit}".rstrip()
            yield (
                f"{value}: over {len(runs)} runs the gain over the strongest rival, {gained}, "
                f"{exceeds} twice its standard deviation; {(runs['gain'] > 0).sum()} of {len(runs)} runs gained."
            )


def drawing(groups: DataFrameGroupBy, by: str, main: Main = MAIN) -> bytes:
    """Main scores against the parameter, as PNG; bars show the standard deviation between runs."""
    means, deviations = main.factor * groups.mean(), main.factor * groups.std().fillna(0)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name in MODELS:
        if name in means:
            axes.errorbar(means.index, means[name], deviations[name], marker="o", capsize=3, label=name)
    if pd.api.types.is_numeric_dtype(means.index):
        axes.set(xscale="log", xticks=means.index, xticklabels=[f"{value:,}" for value in means.index])
        axes.minorticks_off()
    axes.set(xlabel=by, ylabel=", ".join(filter(None, (f"{main.name} on the test rows", main.mark))))
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    return content.getvalue()


if __name__ == "__main__":
    errors.run(main)
