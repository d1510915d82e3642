"""The folder that a stage goes on from: kept if it fails, removed if it succeeds, and its own for all that decides."""

import errno
import fcntl
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import train
from stages.common import files, paths
from stages.common.errors import Interrupted
from stages.params import Params
from stages.resuming import places


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/one").write_text("1")


def names(folder):
    """What is in a folder besides the lock of who is at work there."""
    return sorted(path.name for path in folder.iterdir() if path.name != files.LOCK)


def interrupted(settings=(), days=1.0):
    """Where a run was that was interrupted; what an earlier one left there."""
    with pytest.raises(KeyboardInterrupt), place(settings, days) as folder:
        found = names(folder)
        (folder / "kept").touch()
        raise KeyboardInterrupt
    return folder, found


def place(settings=(), days=1.0):
    return places.place("stage", settings=settings, inputs=[Path("rows")], days=days)


@pytest.mark.parametrize("kept", ["states/train/done.json", "seed-1/done", "seed-1/checkpoint-3", "part/part-0", None])
def test_a_stage_that_is_asked_to_end_says_where_it_keeps_what_was_done(kept):
    with pytest.raises(Interrupted) as stopped, place() as folder:
        if kept:
            (folder / kept).mkdir(parents=True)
        raise Interrupted
    assert [str(folder) in note for note in getattr(stopped.value, "__notes__", [])] == ([True] if kept else [])


def test_files_that_other_processes_remove_meanwhile_are_no_error(monkeypatch):
    folder, _ = interrupted()
    (folder / "gone").touch()
    stat = Path.stat

    def removed(path: Path, **options: bool) -> os.stat_result:
        if path.name == "gone":
            raise FileNotFoundError(path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", removed)
    assert interrupted() == (folder, ["gone", "kept"])


def test_on_a_disk_that_became_read_only_the_error_is_what_ended_the_stage(monkeypatch):
    def refused(path: Path, **_: bool) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(OSError, match="Read-only file system: 'model'"), place() as folder:
        refused(Path("model"))
    assert names(folder) == []


def test_what_an_interrupted_run_left_is_found_until_one_succeeds():
    folder, found = interrupted()
    assert found == []
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert interrupted() == (folder, ["kept"])
    with place():
        pass
    assert not folder.exists()
    assert interrupted() == (folder, [])


def test_a_file_that_nfs_keeps_is_no_error_and_nothing_is_taken_up(nfs):
    with place() as folder:
        np.save(folder / "mapped.npy", np.arange(3))
        mapped = np.load(folder / "mapped.npy", mmap_mode="r")
        (folder / "kept").touch()
    assert mapped[2] == 2
    with place() as again:
        assert again == folder
        assert names(again) == [".nfs-mapped.npy"]


def test_a_second_process_at_the_same_work_begins_anew_and_leaves_the_first_alone(capsys, nfs):
    kept, _ = interrupted()
    with place() as first:
        assert first == kept
        with place() as second:
            assert second != first
            assert names(second) == []
            (second / "own").touch()
        assert names(first) == ["kept"]
        assert not second.exists()
        with pytest.raises(KeyboardInterrupt) as stopped, place():
            raise KeyboardInterrupt
        assert not hasattr(stopped.value, "__notes__")
    assert capsys.readouterr().err.count("stage: another process is doing the same; this one begins anew") == 2
    assert interrupted() == (first, [])


def test_where_there_are_no_locks_an_interrupted_run_is_taken_up_too(monkeypatch):
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    folder, _ = interrupted()
    assert interrupted() == (folder, ["kept"])


@pytest.mark.parametrize("path", ["rows/one", "rows/other"])
def test_other_settings_inputs_and_code_have_a_place_of_their_own(path, tmp_path, monkeypatch):
    folders = {interrupted()[0], interrupted({"lr": 1})[0]}
    (tmp_path / path).write_text("2")
    folders.add(interrupted()[0])
    (tmp_path / "code").mkdir()
    (tmp_path / "code/stage.py").write_text("pass")
    monkeypatch.setattr(places, "CODE", tmp_path / "code")
    folders.add(interrupted()[0])
    assert len(folders) == 4


def test_what_no_run_has_written_to_for_days_is_removed():
    old, _ = interrupted({"lr": 1})
    for path in (*old.iterdir(), old):
        os.utime(path, times=(time.time() - 2 * 86_400,) * 2)
    interrupted(days=3)
    assert old.exists()
    interrupted(days=1)
    assert not old.exists()


def test_a_gpus_checkpoints_are_not_those_of_a_training_on_a_cpu(monkeypatch):
    monkeypatch.setattr(train, "inputs", list)
    params = Params.load(Path(__file__).parents[2] / "params.yaml")
    found = set()
    for kind in ("cpu", "cpu", "cuda"):
        monkeypatch.setattr(train, "device", partial(torch.device, kind))
        with train.place_of_checkpoints(params) as folder:
            found.add(folder)
    assert len(found) == 2


def test_a_seed_that_was_trained_is_not_trained_again(tmp_path, monkeypatch, capsys):
    calls = []

    def once(*args, seed, folder, **kwargs):
        calls.append(seed)
        (folder / "adapter").mkdir()
        return {"seed": seed, "loss": 0.1 + 0.2}

    monkeypatch.setattr(train, "train", once)
    params = Params.load(Path(__file__).parents[2] / "params.yaml")
    task = train.Task(params=params, options=None, main_score=None, about=None, rows=None, read=None)
    metrics = [train.trained(task, seed=7, home=tmp_path / "seed-7") for _ in range(2)]
    assert calls == [7]
    assert metrics == [{"seed": 7, "loss": 0.1 + 0.2}] * 2
    assert "seed 7 was trained by an interrupted run" in capsys.readouterr().err


def test_of_several_seeds_all_adapters_are_published_and_the_curves_of_the_kept_one(tmp_path):
    for seed in (7, 8):
        for part in ("adapter", "curves"):
            made = tmp_path / f"place/seed-{seed}/done/{part}"
            made.mkdir(parents=True)
            (made / "file").write_text(f"{seed}")
    train.publish(tmp_path / "place", [7, 8], 8)
    published = {path: (path / "file").read_text() for path in (paths.ADAPTER, paths.SEEDS / "7", paths.TRAIN_CURVES)}
    assert list(published.values()) == ["8", "7", "8"]
    assert names(paths.SEEDS) == ["7", "README.md"]
    assert names(paths.TRAIN_CURVES) == ["file"]
