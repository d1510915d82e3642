"""The gauntlet: the defaults of params.yaml on many tasks, with two models and three seeds.

    python -m benchmarks.gauntlet prepare     fetch the models, and prepare the rows of every task
    python -m benchmarks.gauntlet run         run every task with both models
    python -m benchmarks.gauntlet shuffled    run ten sets of rows whose labels mean nothing, with the small model
    python -m benchmarks.gauntlet report      add the results to RESULTS.md and gauntlet.png
    python -m benchmarks.gauntlet run --tasks tweets news --models all-MiniLM-L6-v2 --jobs 2

Nothing differs between tasks but what describes the data (benchmarks/tasks.py). What exists is not made again, so a
stopped command can be repeated; remove a file or folder to make it anew. A result is kept after every seed, and a
repeated command goes on where it stopped, in the middle of a stage, too, whose seconds are then those of the last
attempt. `report` takes the results that have all `--seeds`, and keeps what it has of other tasks; what was measured
with another `model.layers` or `lora.top_layers` it shows apart, until it is measured anew. After `prepare`, the others
need no network and no DVC: with these folders they run on another machine too. Run from the root of the repository.

    .cache/gauntlet/data/TASK      prepared/, slices.parquet and data.json, as prepare makes them; params.json, what the
                                   task changes in params.yaml, by dotted keys
    .cache/gauntlet/bases/MODEL    the fetched model
    .cache/gauntlet/results        TASK--MODEL.json, the metrics of every seed; TASK--MODEL.log, TASK.log and MODEL.log,
                                   what the stages printed, prepare and fetch among them; TASK--MODEL/, the files of the
                                   stages, removed when every seed has been measured
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import results, standings
from benchmarks.tasks import DEVELOPMENT, MODELS, ROOT, SHUFFLED, TASKS, write_params, write_rows
from stages.backbone import store
from stages.common import errors, files, paths
from stages.evidence import intervals
from stages.params import Params
from stages.scoring.kinds import SCORED

HOME = Path(".cache/gauntlet")

SEEDS = (42, 1, 2)
SMALL = "all-MiniLM-L6-v2"
"""The model of the shuffled tasks."""


def main() -> None:
    options = arguments()
    folders = Folders(options.data.resolve(), options.bases.resolve(), options.results.resolve())
    match options.command:
        case "prepare":
            prepare(folders, options.tasks or [*TASKS, *SHUFFLED], options.models or MODELS)
        case "run":
            settings = [(task, model) for task in options.tasks or TASKS for model in options.models or MODELS]
            run_all(folders, settings, seeds=options.seeds, jobs=options.jobs)
        case "shuffled":
            settings = [(task, model) for task in options.tasks or SHUFFLED for model in options.models or [SMALL]]
            run_all(folders, settings, seeds=options.seeds, jobs=options.jobs)
        case "report":
            report(folders.results, seeds=options.seeds)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gauntlet", description="The defaults on many tasks.")
    parser.add_argument("command", choices=("prepare", "run", "shuffled", "report"))
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, *SHUFFLED], metavar="TASK", help="default: all")
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="MODEL", help=f"among {', '.join(MODELS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of the training; shuffled: the first one")
    parser.add_argument("--jobs", type=int, default=1, help="tasks that run at the same time")
    parser.add_argument("--data", type=Path, default=HOME / "data", help="the prepared rows of the tasks")
    parser.add_argument("--bases", type=Path, default=HOME / "bases", help="the fetched models")
    parser.add_argument("--results", type=Path, default=HOME / "results")
    return parser.parse_args()


@dataclass(frozen=True)
class Folders:
    """Where rows, models and results are kept, as absolute paths."""

    data: Path
    bases: Path
    results: Path


def prepare(folders: Folders, tasks: Iterable[str], models: Iterable[str]) -> None:
    """Fetch the models and prepare the rows of the tasks, except for those that are there."""
    for model in models:
        make(folders.bases / model, fetch_base, folders.results / f"{model}.log")
    for task in tasks:
        make(folders.data / task, prepare_rows, folders.results / f"{task}.log")


def make(folder: Path, write: Callable[[str, Path, Path], None], log: Path) -> None:
    """Have `write` fill the folder with what it is named after, unless it exists."""
    if not folder.exists():
        print(folder, flush=True)
        with files.replacing(folder) as fresh:
            write(folder.name, fresh, log)


def fetch_base(model: str, folder: Path, log: Path) -> None:
    """Fetch a model into the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        write_params(Path(scratch, paths.PARAMS), MODELS[model])
        stage("fetch", Path(scratch), log)
        for path in Path(scratch, paths.BASE_MODEL).iterdir():
            shutil.move(path, folder)


def prepare_rows(name: str, folder: Path, log: Path) -> None:
    """Prepare the rows of a task into the folder, and write beside them the params that they need."""
    task = (TASKS | SHUFFLED | DEVELOPMENT)[name]
    with tempfile.TemporaryDirectory() as scratch:
        built = write_rows(Path(scratch), task.build()) if task.build else {}
        write_params(Path(scratch, paths.PARAMS), built | task.changes)
        stage("prepare", Path(scratch), log)
        for path in (paths.PREPARED, paths.SLICES, paths.DATA_METRICS):
            shutil.move(Path(scratch, path), folder)
    files.write_json(folder / "params.json", built | task.changes)


def run_all(folders: Folders, settings: list[tuple[str, str]], *, seeds: Sequence[int], jobs: int) -> None:
    """Run every task with its model, unless it has a result with these seeds; `jobs` of them at the same time.

    Raises:
        PipelineError: some failed; the others have a result.
    """
    prepare(folders, dict.fromkeys(task for task, _ in settings), dict.fromkeys(model for _, model in settings))
    if jobs > 1:  # each job computes on its share of the cores
        os.environ["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // jobs))
    with ThreadPoolExecutor(jobs) as pool:  # a job waits for the processes of its stages
        succeeded = pool.map(lambda setting: attempt(folders, *setting, seeds=seeds), settings)
        failed = [" with ".join(setting) for setting, right in zip(settings, succeeded, strict=True) if not right]
    if failed:
        raise errors.PipelineError(f"expected a result for every task and model, found none for {', '.join(failed)}")


def attempt(folders: Folders, task: str, model: str, *, seeds: Sequence[int]) -> bool:
    """Run a task with a model, unless it has a result with these seeds, and print what became of it; returns whether
    it has one now."""
    try:
        if lacking(kept(result_file(folders.results, task, model)), task, seeds):
            print(f"{task}, {model}: {run(folders, task, model, seeds=seeds):.0f} s", flush=True)
    except Exception as error:  # whatever it is, the others go on
        told = error if isinstance(error, errors.PipelineError) else traceback.format_exc()
        print(f"{task}, {model}: {told}", flush=True)
        return False
    return True


def result_file(folder: Path, task: str, model: str) -> Path:
    """The file that holds the result of a task with a model."""
    return folder / f"{task}--{model}.json"


def kept(path: Path) -> dict[str, Any]:
    """The result in a file; of no file, one without seeds."""
    return read(path) if path.exists() else {"seeds": {}}


def lacking(result: dict[str, Any], task: str, seeds: Sequence[int]) -> list[int]:
    """Which of the seeds a result of a task lacks; of a shuffled task, only the first one counts."""
    return [seed for seed in (seeds[:1] if task in SHUFFLED else seeds) if f"{seed}" not in result["seeds"]]


def run(folders: Folders, task: str, model: str, *, seeds: Sequence[int]) -> float:
    """Run the stages on a task with a model, and write what they measured after every seed; returns the seconds.

    Everything before the training is the same for all seeds and done once. Each seed is a run with one seed; those that
    the result has already are kept. So are the files of the stages, until the last seed has been measured.

    Raises:
        PipelineError: a stage failed; or what was measured before, was under other conditions.
    """
    begun = time.perf_counter()
    path, conditions = result_file(folders.results, task, model), results.conditions_here()
    found = kept(path)
    if found["seeds"] and found["conditions"] != conditions:
        raise errors.PipelineError(
            f"{path}: expected a result measured under {json.dumps(conditions)}, found one under "
            f"{json.dumps(found['conditions'])}; remove the file to measure every seed anew"
        )
    folder, log = path.with_suffix(""), path.with_suffix(".log")
    changes = link(folder, folders, task, model)
    seconds = untuned(folder, changes, log)
    result = {"task": task, "model": model, "conditions": conditions, "seconds": seconds}
    result |= {"data": read(folders.data / task / "data.json"), "baseline": baseline(folder)}
    result |= {"seeds": found["seeds"]}
    for seed in lacking(found, task, seeds):
        write_params(folder / paths.PARAMS, changes | {"train.seeds": [seed]})
        result["seeds"][f"{seed}"] = tuned(folder, log)
        files.write_json(path, result)
    shutil.rmtree(folder)
    return time.perf_counter() - begun


def untuned(folder: Path, changes: dict[str, Any], log: Path) -> dict[str, float]:
    """Run the stages before the training in the folder, those that have not run there with these params; returns the
    seconds of each."""
    write_params(folder / paths.PARAMS, changes)
    record, params = folder / "untuned.json", (folder / paths.PARAMS).read_text()
    done = read(record) if record.exists() else {}
    if done.get("params") != params:
        done = {"params": params, "seconds": {}}
    for name in ("encode", "baseline"):
        if name not in done["seconds"]:
            done["seconds"][name] = stage(name, folder, log)
            files.write_json(record, done)
    return done["seconds"]


def baseline(folder: Path) -> dict[str, Any]:
    """What `baseline` measured in the folder, with the intervals of all scores."""
    measured, by_rival = read(folder / paths.BASELINE_METRICS), rival_intervals(folder)
    return {name: scores | {"interval": by_rival[name]} for name, scores in measured.items()}


def tuned(folder: Path, log: Path) -> dict[str, Any]:
    """Train and evaluate in the folder: what both measured, and their seconds."""
    seconds = {name: stage(name, folder, log) for name in ("train", "evaluate")}
    measured = {"train": read(folder / paths.TRAIN_METRICS), "evaluate": read(folder / paths.EVALUATE_METRICS)}
    return measured | {"seconds": seconds}


def link(folder: Path, folders: Folders, task: str, model: str) -> dict[str, Any]:
    """Link the prepared rows and the model into the folder; returns what they change in params.yaml."""
    links = {path: folders.data / task / path.name for path in (paths.PREPARED, paths.SLICES)}
    for place, target in (links | {paths.BASE_MODEL: folders.bases / model}).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / place).is_symlink():
            (folder / place).symlink_to(target)
    return read(folders.data / task / "params.json") | MODELS[model]


def rival_intervals(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The 95 % interval of every score of every rival; metrics/baseline.json has that of the main score alone."""
    params, about = Params.load(folder / paths.PARAMS), store.About.load(folder / paths.ENCODED)
    problem, labels = SCORED[about.problem], store.load_rows(folder / paths.ENCODED / "test", about).text_labels
    options = {"labels": labels, "resamples": params.evaluate.resamples}
    return {
        name: intervals.intervals(problem, predictions=problem.predictions(column), **options)
        for name, column in pd.read_parquet(folder / paths.BASELINE_PREDICTIONS).drop(columns="row").items()
    }


def read(path: Path) -> dict:
    """A file of JSON."""
    return json.loads(path.read_text())


def report(folder: Path, *, seeds: Sequence[int]) -> None:
    """Add the results that have these seeds to benchmarks/results/gauntlet.json, and write RESULTS.md and the pictures.

    Earlier results with other settings are moved to former_gauntlet.json, each until its task is measured anew.

    Raises:
        PipelineError: there are no results, or they were measured with different settings; or some of settings before
            the last ones would be lost.
    """
    found = complete(folder, seeds)
    if not found:
        raise errors.PipelineError(
            f"{folder}: expected results with {listed(seeds)}, found none; python -m benchmarks.gauntlet run"
        )
    measured = [(result["task"], result["conditions"]) for result in found]
    settings = {json.dumps(conditions["settings"]): name for name, conditions in measured}
    if len(settings) > 1:
        different = " and ".join(f"{name} with {setting}" for setting, name in settings.items())
        raise errors.PipelineError(
            f"{folder}: expected results of one params.yaml, found {different}; remove the old ones and run these again"
        )
    order = {"tasks": TASKS, "models": MODELS}
    values, conditions = standings.summarized(found, **order), [conditions for _, conditions in measured]
    parts = results.measured()
    earlier, former = parts.get("gauntlet"), parts.get("former_gauntlet")
    if earlier and earlier["settings"] != conditions[0]["settings"]:
        if former and any(standings.unmeasured(former["values"], values).values()):
            raise errors.PipelineError(
                f"{results.FOLDER / 'former_gauntlet.json'}: expected its tasks to be measured anew before settings "
                "change once more, found others; measure them, or remove the file"
            )
        earlier, former = None, earlier
    if earlier:
        values, conditions = standings.completed(values, earlier["values"], **order), [*conditions, earlier]
    hardware = dict.fromkeys(part for one in conditions for part in one["hardware"].split(" and "))
    shared = {"hardware": " and ".join(sorted(hardware)), "settings": conditions[0]["settings"]}
    results.save("gauntlet", values, shared)
    if former and any((unmeasured := standings.unmeasured(former["values"], values)).values()):
        results.save("former_gauntlet", unmeasured, {key: former[key] for key in shared})
    else:
        results.remove("former_gauntlet")
    results.report()


def complete(folder: Path, seeds: Sequence[int]) -> list[dict]:
    """The results that have these seeds; prints which others there are."""
    found = []
    for path in sorted(folder.glob("*--*.json")):
        result = read(path)
        if missing := lacking(result, result["task"], seeds):
            print(f"{path.name} is left out, it lacks {listed(missing)}", flush=True)
        else:
            found.append(result)
    return found


def listed(seeds: Iterable[int]) -> str:
    """Seeds in words."""
    return f"seeds {', '.join(map(str, seeds))}"


def stage(name: str, folder: Path, log: Path) -> float:
    """Run a stage in the folder; adds what it prints to the log; returns its seconds.

    Raises:
        PipelineError: the stage failed.
    """
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(ROOT), "TQDM_DISABLE": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{name}"], cwd=folder, env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise errors.PipelineError(f"{name} failed, see {log}: {last}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    errors.run(main)
