"""Other runs, as Git and DVC keep them: what changed since a revision, and what experiments found."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.errors import PipelineError
from stages.reporting.markdown import paragraphs

METRICS = (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
"""The files of an experiment's metrics: all of them, not only what DVC lists."""


def metrics_at(rev: str) -> dict | None:
    """metrics/evaluate.json as it was at a revision; None: it was not there yet.

    Raises:
        PipelineError: there is no such revision, or DVC cannot read it.
    """
    import dvc.api  # here: without a revision the report needs no DVC, which takes a quarter of a second to import
    from dvc.exceptions import DvcException

    try:
        return dvc.api.metrics_show(str(paths.EVALUATE_METRICS), rev=rev)
    except FileNotFoundError:
        return None
    except DvcException as error:
        raise PipelineError(f"--rev {rev}: {' '.join(str(error).split())}") from None


def changes(rev: str) -> str:
    """What changed in parameters and metrics since a revision, as DVC shows it, and how to make this run again."""
    tables = {topic: dvc_output(topic, "diff", "--md", rev).strip() for topic in ("params", "metrics")}
    commit = output_of("git", "rev-parse", "HEAD").strip()
    changed = output_of("git", "status", "--porcelain", "--", str(paths.PARAMS), "dvc.yaml", "stages")
    return paragraphs(
        f"To reproduce: first commit what differs from {commit}."
        if changed
        else f"To reproduce: `git checkout {commit}`, then `make`.",
        *(f"### {topic.title()} changed since {rev}\n\n{filled(table)}" for topic, table in tables.items()),
    )


def filled(table: str) -> str:
    """DVC's table, or `none` where nothing changed and DVC prints only the header."""
    return table if len(table.splitlines()) > 2 else "none"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A finished experiment."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, dict | None]
    """The content of each metrics file, by its path."""
    evaluated: bool
    """Whether the experiment's adapter was evaluated: an experiment that ended with `train` still has the
    commit's metrics/evaluate.json."""


def finished(name: str) -> Iterator[Experiment]:
    """The last commit's finished experiments whose names start with `name`.

    Raises:
        PipelineError: DVC fails.
    """
    # not dvc.api.exp_show, which has neither the state of the executors nor the hashes that show whether the
    # adapter was evaluated
    shown = json.loads(dvc_output("exp", "show", "--json"))
    commit = shown[1]  # the workspace comes first
    for experiment in commit["experiments"] or []:
        last = experiment["revs"][0]
        running = experiment["executor"] and experiment["executor"]["state"] != "success"
        if not running and not last["error"] and last["name"].startswith(name):
            found, adapter = last["data"], str(paths.ADAPTER)
            yield Experiment(
                name=last["name"],
                params=found["params"][str(paths.PARAMS)]["data"],
                metrics={str(path): json_at(last["rev"], path) for path in METRICS},
                evaluated=found["deps"][adapter]["hash"] == found["outs"][adapter]["hash"],
            )


def json_at(rev: str, path: Path) -> Any:
    """What a file of JSON that Git keeps held at a revision; None: it was not there."""
    done = subprocess.run(["git", "show", f"{rev}:./{path}"], capture_output=True, text=True)
    return None if done.returncode else json.loads(done.stdout)


def parameter(params: dict, name: str) -> Any:
    """The value of a dotted name in params.yaml.

    Raises:
        PipelineError: there is no such parameter.
    """
    value = params
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise PipelineError(f"expected a parameter of params.yaml, found {name}")
        value = value[key]
    return value


def run_experiment(name: str, changes: dict[str, object], *targets: str) -> bool:
    """Run an experiment in a copy of the project, up to the target stages; returns whether it succeeded."""
    overrides = [argument for key, value in changes.items() for argument in ("-S", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *overrides, *targets]
    return not subprocess.run(command).returncode


def dvc_output(*arguments: str) -> str:
    """What a command of DVC prints; raises as `output_of` does."""
    return output_of(sys.executable, "-m", "dvc", *arguments)


def output_of(*command: str) -> str:
    """What a command prints.

    Raises:
        PipelineError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        shown = " ".join(command).removeprefix(f"{sys.executable} -m ")
        raise PipelineError(f"{shown}: {reason[0]}")
    return done.stdout
