"""A training in several processes: the same gradients, one writer, and a clear end if a process ends."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from adapters import tiny_run
from conftest import ROOT, tiny_params
from ruamel.yaml import YAML
from safetensors.torch import load_file

from stages import train
from stages.adapters.run import Run
from stages.common import paths
from stages.common.errors import PipelineError
from stages.compute import ranks

TRAIN = {"epochs": 2, "lr": 1e-3, "batch_size": 20, "logging_steps": 1}
"""With 48 rows the last of three batches is smaller."""


@pytest.fixture
def encoded(saved_model, tmp_path, monkeypatch):
    """Enters a folder in which `encode` has run on a tiny model of a family, and some training rows are of a wrong and
    more frequent class."""

    def enter(family: str = "llama") -> None:
        monkeypatch.chdir(tmp_path)
        labels = tiny_run.encode_rows(saved_model(family))["train"].labels
        np.save(paths.ENCODED / "train/labels.npy", np.where(np.arange(len(labels)) % 4 == 1, 0, labels))

    return enter


def trained(processes: int, **sections: dict) -> tuple[dict, dict[str, torch.Tensor], dict[str, bytes]]:
    """What `train` finds, saves and draws in so many processes."""
    sections["train"] = TRAIN | sections.get("train", {})
    sections["compute"] = sections.get("compute", {}) | {"processes": processes}
    YAML().dump(tiny_params(**sections), paths.PARAMS)
    train.main()
    (file,) = paths.ADAPTER.glob("*model.safetensors")
    curves = {path.name: path.read_bytes() for path in paths.TRAIN_CURVES.rglob("*.csv")}
    return Run.load(paths.ADAPTER).metrics, load_file(file), curves


FSDP = {"strategy": "fsdp"}

LONG = [
    ("llama", 4, {}),
    ("llama", 2, {"peft": {"method": "adalora", "options": {}}}),
    ("llama", 2, {"peft": {"method": "full", "options": {}}, "train": {"lr": 1e-5}}),
    ("llama", 2, {"precision": "bfloat16"}),
    ("llama", 2, {"train": {"gradient_accumulation": 2, "activation_checkpointing": True}}),
    ("llama", 2, {"train": {"balance": "sampling", "seeds": [1, 2]}}),
    ("llama", 2, {"train": {"balance": "weights", "lora_plus_ratio": 4, "batch_size": 16}}),
    ("llama", 4, {"compute": FSDP}),  # two of them have no row of the head, which has two
    ("llama", 2, {"compute": FSDP, "peft": {"method": "full", "options": {}}, "train": {"lr": 1e-5}}),
    ("llama", 2, {"compute": FSDP, "precision": "bfloat16"}),
    ("llama", 2, {"compute": FSDP, "peft": {"method": "qlora", "options": {}}}),
    ("llama", 2, {"compute": FSDP, "train": {"gradient_accumulation": 2, "activation_checkpointing": True}}),
    ("llama", 2, {"compute": FSDP, "train": {"seeds": [1, 2], "lora_plus_ratio": 4}}),
]


@pytest.mark.parametrize(
    ("family", "processes", "sections"),
    [("llama", 2, {}), *(pytest.param(*one, marks=pytest.mark.long) for one in LONG)],
)
def test_processes_that_share_each_batch_train_as_one_does(family, processes, sections, encoded):
    if sections.get("peft", {}).get("method") == "qlora":
        pytest.importorskip("bitsandbytes")
    encoded(family)
    scores, weights, _ = trained(1, **sections)
    found, same, _ = trained(processes, **sections)
    close = 2e-2 if "precision" in sections else 1e-3
    assert found["start"] == {name: pytest.approx(start, rel=close) for name, start in scores["start"].items()}
    assert found["validation"] == pytest.approx(scores["validation"], rel=close)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, rtol=0, atol=close)
    assert list(Path(".cache/checkpoints").iterdir()) == list(Path(".cache/scratch").iterdir()) == [], "nothing is left"


@pytest.mark.long
@pytest.mark.parametrize(("family", "strategy"), [("llama", "ddp"), ("bert", "ddp"), ("bert", "fsdp")])
def test_dropout_changes_a_training_in_processes_as_another_seed_does(family, strategy, encoded):
    encoded(family)  # BERT has dropout of its own, and another start
    options = {"lora": {"dropout": 0.2}, "train": {"epochs": 6, "lr": 5e-3}, "compute": {"strategy": strategy}}
    one, two, again = (trained(processes, **options) for processes in (1, 2, 2))
    main = one[0]["main"]
    assert two[0]["validation"][main] == pytest.approx(one[0]["validation"][main], abs=0.15)
    assert two[2] == again[2] != one[2]
    assert all(torch.equal(weight, again[1][name]) for name, weight in two[1].items()), "equal runs end in equal bits"


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("launcher", ["python -m stages.train", "torchrun --nproc-per-node 2 -m stages.train"])
def test_after_a_process_was_killed_the_next_run_ends_as_if_it_had_not(launcher, strategy, encoded, tmp_path):
    encoded()
    options = {"lora": {"dropout": 0.1}, "train": {"epochs": 20, "batch_size": 4}, "checkpoints": {"minutes": 1e-9}}
    options["compute"] = {"strategy": strategy}
    expected = trained(2, **options)
    command = [str(Path(sys.executable).parent / launcher.split()[0]), *launcher.split()[1:]]
    running = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while running.poll() is None and not list(tmp_path.glob(".cache/checkpoints/train-*/seed-*/checkpoint-*")):
        time.sleep(0.1)
    of_rank = max(children(running.pid))
    os.kill(of_rank, signal.SIGKILL)
    _, told = running.communicate()
    assert running.returncode == 1
    if launcher.startswith("python"):
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        assert lines == [told.splitlines()[-1]], told
        assert "found one that was killed" in lines[0]
    scores, weights, curves = trained(2, **options)
    assert (scores, curves) == (expected[0], expected[2])
    assert all(torch.equal(weight, weights[name]) for name, weight in expected[1].items())


def local(processes: int) -> SimpleNamespace:
    """The settings for so many processes of this machine."""
    return SimpleNamespace(processes=processes, engine="local")


def children(parent: int) -> list[int]:
    """The processes of Python that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = stat.read_text().rpartition(")")
        if int(rest.split()[1]) == parent and "python" in name:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.long
def test_a_rank_that_is_killed_ends_all_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=r"found one that was killed, .* run the command again"):
        ranks.run(partial(signal.raise_signal, signal.SIGKILL), local(2))


@pytest.mark.long
def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = r"train\.batch_size: expected a multiple of the 2 processes, which share each batch, found 7; change it"
    with pytest.raises(PipelineError, match=line):
        ranks.run(partial(ranks.check_share, 7), local(2))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 7, 8, 12, 13])
def test_ranks_have_equal_shares_of_every_batch_and_all_of_its_rows(rows, count):
    batches = torch.utils.data.BatchSampler(range(rows), batch_size=12, drop_last=False)
    shares = [list(ranks.EqualShares(batches, count, rank, split_batches=True)) for rank in range(count)]
    for whole, *parts in zip(batches, *shares, strict=True):
        assert len({len(part) for part in parts}) == 1
        together = np.concatenate(parts)
        assert together[: len(whole)].tolist() == whole, "in their order, so that what is gathered can be cut"
        assert len(together) - len(whole) < count


def test_more_processes_than_accelerators_are_refused(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(PipelineError, match=r"compute\.processes: expected at most 2, one for each device, found 3"):
        ranks.run(print, local(3))


def test_one_process_agrees_with_itself():
    assert (ranks.is_first(), ranks.agreed(3), ranks.gathered(3)) == (True, 3, [3])
    done = []
    ranks.run(partial(done.append, 1), local(1))
    assert done == [1]
