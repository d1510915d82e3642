"""The stages on a Ray cluster of two nodes on this machine: the same bytes, also if a node is killed in the middle."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, tiny_params
from families import sentences
from ruamel.yaml import YAML
from torch import nn

from stages import baseline, encode, evaluate, predict, prepare, train
from stages.backbone import parallel
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.compute import engine, ranks
from stages.rows import cleaning, near

has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs requirements-ray.txt")

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}

OUTPUTS = (
    paths.PREPARED,
    paths.ENCODED,
    paths.FEATURES,
    Path("data/predictions"),
    Path("models/adapter"),
    Path("metrics"),
)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with a CPU each, which this process is not yet a part of."""
    with pytest.MonkeyPatch.context() as patch:
        # of the nodes' processes: the nodes of a real cluster have the repository as their working folder
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        started.second = started.add_node(**NODE)
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def alone(saved_model, tmp_path_factory):
    """A folder in which every stage ran without a cluster, the training in two ranks."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("data/raw").mkdir(parents=True)
        lines = [f"{text}\t{rating:.0f}\n" for text, rating in sentences(160)]
        Path("data/raw/rows.tsv").write_text("".join(["text\tlabel\n", *lines]))
        shutil.copytree(saved_model("llama"), paths.BASE_MODEL)
        files.write_json(paths.BASE_MODEL / "source.json", {"source": "path:x", "revision": None, "license": "MIT"})
        write_params()
        patch.setattr(sys, "argv", ["stages.prepare"])
        prepare.main()
        for stage in (encode, baseline, train, evaluate):
            write_params(processes=1 + (stage is train))
            stage.main()
        answer(patch)
    return folder


def write_params(*, processes: int = 2, **compute: str) -> None:
    """params.yaml for small batches, and a checkpoint at every step."""
    data = {"source": "path:data/raw/rows.tsv", "revision": None, "file": None, "columns": None}
    data |= {"text": "text", "label": "label", "classes": None}
    YAML().dump(
        tiny_params(
            data=data,
            encode={"template": None, "batch_size": 2},
            baseline={"batch_size": 4},
            evaluate={"batch_size": 4},
            train={"epochs": 24, "batch_size": 4},
            checkpoints={"minutes": 1e-9},
            compute={"processes": processes} | compute,
        ),
        paths.PARAMS,
    )


def answer(patch: pytest.MonkeyPatch, *options: str) -> None:
    """Run `predict` on the rows."""
    files_given = ["--input", "data/raw/rows.tsv", "--text", "text", "--output", "data/predictions/answers.csv"]
    patch.setattr(sys, "argv", ["stages.predict", *files_given, *options])
    predict.main()


def content(folder: Path) -> dict[str, str]:
    """The sha256 of all that the stages write."""
    found = (path for out in OUTPUTS for path in sorted((folder / out).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def copied(alone, cluster, tmp_path, monkeypatch):
    """A copy of the folder, in which the stages are to run on the cluster; and what they have to write."""
    folder = tmp_path / "copy"
    shutil.copytree(alone, folder)
    monkeypatch.chdir(folder)
    write_params(engine="ray", address=cluster.address)
    return content(folder)


@has_ray
@pytest.mark.long
def test_every_stage_writes_the_same_bytes_on_a_cluster(copied, cluster, monkeypatch, capfd):
    from stages.compute import cluster_tasks

    tasks, take = [], cluster_tasks.result
    for out in OUTPUTS:
        shutil.rmtree(out)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_tasks, "result", lambda task: tasks.append(stage) or take(task))
        patch.setattr(near, "PART", 20)
        patch.setattr(near, "PAIRS", 4)
        patch.setattr(cleaning, "AT_ONCE", 20)
        for stage in (prepare, encode, baseline, train, evaluate):
            stage.main()
        stage = predict
        answer(patch, "--processes", "2", "--engine", "ray", "--address", cluster.address)
    assert set(tasks) == {prepare, encode, baseline, evaluate, predict}
    assert content(Path.cwd()) == copied
    told = capfd.readouterr()
    assert not told.out
    assert "train: lora, seed 42: " in told.err and "(pid=" not in told.err and "Traceback" not in told.err


OUTPUT = {"prepare": paths.PREPARED, "encode": paths.ENCODED, "train": paths.ADAPTER}
"""What a stage writes in the end."""

BEGUN = {
    "encode": ".cache/checkpoints/encode-*/states/train/done.json",
    "train": ".cache/checkpoints/train-*/seed-*/checkpoint-*",
}
"""What is there once a stage has begun to compute."""


def has_begun(stage: str) -> bool:
    """Whether a stage has begun to compute, `prepare` on both nodes."""
    if stage == "prepare":
        return sum(name.startswith("ray::in_task") for name in names()) == 2
    return any(Path().glob(BEGUN[stage]))


def started_until_begun(stage: str) -> subprocess.Popen:
    """A stage that has begun to compute, whose former output is gone."""
    shutil.rmtree(OUTPUT[stage])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not has_begun(stage):
        time.sleep(0.05)
    return running


def killed_during(stage: str, cluster) -> str:
    """Run a stage, and kill the second node in the middle; returns what the stage says. A training, which needs two,
    finds another one."""
    running, killed = started_until_begun(stage), cluster.second
    if stage == "train":
        cluster.second = cluster.add_node(**NODE)
    assert running.poll() is None, "the stage had more to do"
    cluster.remove_node(killed, allow_graceful=False)
    _, told = running.communicate()
    if stage != "train":
        cluster.second = cluster.add_node(**NODE)
    assert not running.returncode, told
    assert "Traceback" not in told
    return told


@has_ray
@pytest.mark.long
def test_a_node_that_is_killed_while_texts_are_compared_changes_no_byte(copied, cluster):
    letters = np.random.default_rng(0).choice(list("abcdefghijkl"), size=(60_000, 60))
    lines = [f"{''.join(row)}\t{number % 2}\n" for number, row in enumerate(letters)]
    Path("data/raw/rows.tsv").write_text("".join(["text\tlabel\n", *lines]))
    write_params(processes=1)
    prepare.main()
    expected = content(Path.cwd())
    write_params(engine="ray", address=cluster.address)
    killed_during("prepare", cluster)
    assert content(Path.cwd()) == expected


@has_ray
@pytest.mark.long
@pytest.mark.parametrize("stage", BEGUN)
def test_a_node_that_is_killed_in_the_middle_changes_no_byte(stage, copied, cluster):
    told = killed_during(stage, cluster)
    assert content(Path.cwd()) == copied
    if stage == "train":
        assert "starting again from the last checkpoint" in told and "train: goes on after step" in told


@has_ray
@pytest.mark.long
def test_an_error_of_the_work_and_a_process_that_is_always_killed_end_with_one_line(copied, cluster, capfd):
    def refuse(*_):
        raise PipelineError("expected one number")

    options = SimpleNamespace(processes=2, engine="ray", address=cluster.address)
    model = nn.Linear(1, 1)
    model.load = partial(signal.raise_signal, signal.SIGKILL)
    gone = r"expected all processes to run to the end, found one that was gone 4 times \(WorkerCrashedError\)"
    with parallel.spread_over(engine.workers(options)):
        with pytest.raises(PipelineError, match=gone):
            parallel.each_batch(model, print, [[1], [2]], progress="test")
        model.load = partial(nn.Linear, 1, 1)
        with pytest.raises(PipelineError, match=r"^expected one number$"):
            parallel.each_batch(model, refuse, [[1], [2]], progress="test")
    write_params(engine="ray", address=cluster.address, processes=3)
    with pytest.raises(
        PipelineError, match=r"expected at most 2 processes, one for each CPU of the Ray cluster, found 3"
    ):
        train.main()
    params = YAML(typ="safe").load(paths.PARAMS)
    params["train"]["batch_size"], params["compute"]["processes"] = 7, 2
    YAML().dump(params, paths.PARAMS)
    with pytest.raises(PipelineError, match=r"train\.batch_size: expected a multiple of the 2 processes"):
        train.main()
    with pytest.raises(ValueError, match="invalid literal"):
        ranks.run(partial(int, "x"), options)
    told = capfd.readouterr()
    assert not told.out and "Traceback" not in told.err and "starting again" not in told.err
    assert parallel.SPREAD.get() is None
    assert not list(Path(".cache/scratch").iterdir()), "nothing is left"


@has_ray
@pytest.mark.long
@pytest.mark.parametrize(("stage", "number"), [("train", signal.SIGINT), ("encode", signal.SIGTERM)])
def test_a_signal_ends_what_runs_on_the_cluster_too(stage, number, copied):
    running = started_until_begun(stage)
    running.send_signal(number)
    _, told = running.communicate()
    assert running.returncode == 128 + number, told
    assert told.splitlines()[-1].startswith(f"interrupted by {number.name}")
    assert "Traceback" not in told
    deadline = time.monotonic() + 30
    while workers := [name for name in names() if name.startswith(("ray::RayTrainWorker", "ray::in_task"))]:
        assert time.monotonic() < deadline, workers
        time.sleep(0.5)


def names() -> list[str]:
    """Of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().split(b"\0")[0].decode())
        except OSError:
            continue
    return found


@has_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "ray://127.0.0.1:9"])
def test_where_no_cluster_is_the_work_ends_with_one_line(address):
    options = SimpleNamespace(processes=2, engine="ray", address=address)
    line = rf"^expected a Ray cluster at {address} .*, found none \(.*\); start it with `ray start`"
    with pytest.raises(PipelineError, match=line), engine.workers(options):
        pass


def test_without_ray_the_work_ends_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("cluster", "cluster_tasks", "cluster_ranks"):
        monkeypatch.delitem(sys.modules, f"stages.compute.{name}", raising=False)
        monkeypatch.delattr(f"stages.compute.{name}", raising=False)
    options = SimpleNamespace(processes=2, engine="ray", address=None)
    line = "expected the packages of requirements-ray.txt for the engine ray, found no ray; install them with: pip"
    with pytest.raises(PipelineError, match=line):
        ranks.run(print, options)
    with pytest.raises(PipelineError, match=line):
        engine.workers(options)


@has_ray
def test_nothing_of_ray_is_imported_for_this_machine():
    command = "import sys, stages.prepare, stages.train, stages.encode, stages.predict; sys.exit('ray' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode


@has_ray
def test_nodes_without_the_folder_or_with_other_packages_are_refused(tmp_path, monkeypatch):
    from stages.compute.cluster import Place

    monkeypatch.chdir(tmp_path)
    here = Place.here()
    with pytest.raises(
        PipelineError, match=r"expected all nodes to share /nowhere, found one without it, .*; mount it"
    ):
        replace(here, folder=Path("/nowhere")).enter()
    with pytest.raises(PipelineError, match=r"expected torch 1\.0 on all nodes, as on this one, found .*; install the"):
        replace(here, versions=here.versions | {"torch": "1.0"}).enter()
