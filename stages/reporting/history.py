"""Other runs, as Git and DVC keep them: what changed since a revision, and what experiments found."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.adapters.run import Run
from stages.common import paths, progress, texts
from stages.common.errors import PipelineError
from stages.common.texts import literal
from stages.evidence.change import Change, between
from stages.reporting.markdown import paragraphs, table

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

SMALL = 1e-5
"""Changes of metrics that are smaller are not shown: other processors cause them."""

LONGEST = 100
"""How many characters of a parameter's value are shown."""

PATIENCE = 20.0
"""Seconds that DVC has to end after an interruption: its stage finishes the current batch, and DVC removes its copy."""

METRICS = (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
"""The files of an experiment's metrics: all of them, not only what DVC lists."""


def change_since(rev: str, run: Run, *, tuned: dict, answers: pd.DataFrame) -> Change | None:
    """How the main score changed since a revision; None: the revision has none.

    Args:
        tuned: metrics/evaluate.json; answers: data/predictions/test.csv, all of it as text.

    Raises:
        PipelineError: there is no such revision, or its metrics cannot be read.
    """
    there = files_at(rev)
    metrics = read_text(there, paths.EVALUATE_METRICS)
    try:
        before = json.loads(metrics or "{}")
    except ValueError as error:
        raise PipelineError(f"--rev {rev}: {paths.EVALUATE_METRICS} is no JSON: {error}") from None
    if run.main.key not in before:
        return None
    earlier = read_text(there, paths.TEST_PREDICTIONS)
    return between(
        run.problem,
        run.main,
        before=before,
        after=tuned,
        answers=(None if earlier is None else read_answers(io.StringIO(earlier)), answers),
        same_file=same_test_rows(read_text(there, paths.LOCK), paths.LOCK.read_text() if paths.LOCK.exists() else None),
    )


def files_at(rev: str) -> "DVCFileSystem":
    """The files of a revision, with those that DVC keeps in its cache or in a remote.

    Raises:
        PipelineError: there is no such revision, or DVC cannot read it, as where its remote needs another package.
    """
    from dvc.api import DVCFileSystem  # here: without a revision the report needs no DVC, which takes half a second
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(rev=rev)
        files.ls("")  # looks the revision up
        return files
    except (DvcException, ImportError) as error:
        raise PipelineError(f"--rev {rev}: {' '.join(str(error).split())}") from None


def read_text(files: "DVCFileSystem", path: Path) -> str | None:
    """The content of a file; None: it is not there, or lost."""
    try:
        return files.read_text(str(path), encoding="utf-8")
    except Exception as error:  # every kind of remote fails in its own way
        if not isinstance(error, FileNotFoundError):
            progress.say(f"{path} cannot be read: {' '.join(str(error).split())}")
        return None


def read_answers(file: Path | IO[str]) -> pd.DataFrame:
    """A table of answers, all of it as text: the names of classes may look like numbers or missing values."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def same_test_rows(*locks: str | None) -> bool:
    """Whether these dvc.lock files name the same file of test rows, by its hash; False if one cannot be read."""
    try:
        stages = [YAML(typ="safe", pure=True).load(lock or "{}").get("stages", {}) for lock in locks]
    except YAMLError:  # a conflict of a merge
        return False
    deps = [dep for lock in stages for dep in lock.get("evaluate", {}).get("deps", [])]
    hashes = [dep["md5"] for dep in deps if dep["path"] == str(paths.PREPARED / "test.parquet")]
    return len(hashes) == len(locks) and len(set(hashes)) == 1


def changed_params(rev: str, name: str) -> str:
    """The parameters that changed since a revision, in a table.

    Args:
        name: what the revision is called in it, as Markdown.

    Raises:
        PipelineError: DVC fails.
    """
    files = json.loads(dvc_output("params", "diff", "--json", rev) or "{}")
    lines = [
        (literal(key if path == str(paths.PARAMS) else f"{path}: {key}"), *map(shown, (values["old"], values["new"])))
        for path, changed in sorted(files.items())
        for key, values in sorted(changed.items())
    ]
    return table(("parameter", name, "now"), lines, names=3) if lines else f"No parameter changed since {name}."


def changed_metrics(rev: str, name: str) -> str:
    """The metrics that changed since a revision by at least `SMALL`, in a table.

    Args and errors: see `changed_params`.
    """
    files = json.loads(dvc_output("metrics", "diff", "--json", rev) or "{}")
    lines, small = [], 0
    for path, changed in sorted(files.items()):
        for key, values in sorted(changed.items()):
            difference = values.get("diff")
            if difference is not None and abs(difference) < SMALL:
                small += 1
                continue
            step = "" if difference is None else f"{difference:+.4g}"
            lines.append((literal(path), literal(key), *map(shown, (values["old"], values["new"])), step))
    left_out = f"Changes below {SMALL:g} are left out: {small}." if small else ""
    found = table(("file", "metric", name, "now", "change"), lines, names=2) if lines else "No metric changed."
    return paragraphs(found, left_out)


def shown(value: Any) -> str:
    """A value of a parameter or metric as a cell; a missing one, or null, as a dash."""
    if value is None:
        return "—"
    if isinstance(value, int | float):
        return f"{value:.5g}" if isinstance(value, float) else str(value)
    return literal(texts.shortened(str(value), LONGEST))


def to_reproduce() -> str:
    """How to make this run again."""
    commit = output_of("git", "rev-parse", "HEAD").strip()
    changed = output_of("git", "status", "--porcelain", "--", str(paths.PARAMS), "dvc.yaml", "stages")
    if changed:
        return f"To reproduce: first commit what differs from {commit}."
    return f"To reproduce: `git checkout {commit}`, then `make`."


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
    """Run an experiment in a copy of the project, up to the target stages; returns whether it succeeded.

    What DVC prints goes to standard error. An interruption ends DVC and its stage too: in a group of their own, they
    are all reached by a signal, wherever the first one came from. While another command of DVC has the lock of the
    repository, this one waits.
    """
    overrides = [argument for key, value in changes.items() for argument in ("-S", f"{key}={texts.in_hydra(value)}")]
    dvc = [sys.executable, "-m", "dvc", "--wait-for-lock"]
    command = [*dvc, "exp", "run", "--temp", "--name", name, *overrides, *targets]
    with subprocess.Popen(command, stdout=sys.__stderr__.fileno(), process_group=0) as running:
        try:
            return not running.wait()
        except BaseException:
            end(running)
            raise


def end(running: subprocess.Popen) -> None:
    """Have DVC and its stage clean up and end; after `PATIENCE` seconds they are killed."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(running.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(PATIENCE)
        os.killpg(running.pid, signal.SIGKILL)


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
