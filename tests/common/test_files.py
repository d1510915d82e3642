"""Outputs appear whole or not at all."""

import errno
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from safetensors.numpy import save_file

from stages.backbone import states
from stages.common import files, paths
from stages.common.errors import PipelineError


def test_a_folder_is_replaced_when_the_block_succeeds(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with files.replacing(tmp_path / "out") as folder:
        (folder / "new").touch()
        assert (tmp_path / "out/old").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_failing_block_leaves_the_former_folder_and_nothing_else(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "out") as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_metrics_are_rounded_to_what_no_machine_changes_and_whole_numbers_are_not(tmp_path):
    files.write_metrics(
        tmp_path / "a.json", {"p": 0.12345649, "rows": 1234567, "of": [{"loss": 1234567.8}], "ok": True}
    )
    files.write_metrics(
        tmp_path / "b.json", {"p": 0.12345651, "rows": 1234567, "of": [{"loss": 1234567.9}], "ok": True}
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "p": 0.12346,
        "rows": 1234567,
        "of": [{"loss": 1234600}],
        "ok": True,
    }
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    files.write_table(tmp_path / "a.csv", pd.DataFrame({"class": ["0.123456"], "step": [123456], "loss": [1.23456e-9]}))
    assert (tmp_path / "a.csv").read_text() == "class,step,loss\n0.123456,123456,1.235e-09\n"


def test_numbers_that_are_far_from_0_and_near_each_other_stay_apart_in_a_drawing(tmp_path):
    years, pressures = [2001.25, 2003.5, 1950.125], np.array([101_325.0, 101_290.0, 101_611.0], dtype=np.float32)
    table = pd.DataFrame({"years": years, "pressures": pressures, "alike": 12345.678, "shares": [0.123456, 1, 0]})
    files.write_table(tmp_path / "a.csv", table)
    found = pd.read_csv(tmp_path / "a.csv")
    assert found["years"].tolist() == [2001.2, 2003.5, 1950.1]
    assert found["pressures"].tolist() == [101_325, 101_290, 101_611]
    assert found["alike"].tolist() == [12350] * 3
    assert found["shares"].tolist() == [0.1235, 1, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, value):
    files.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"accuracy": value})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "accuracy": 0.5\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    """A folder with everything that a name may lead to, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    Path("plain.csv").write_text("text\na\n")
    Path("folder/earlier").mkdir(parents=True)
    Path("folder/earlier/run.json").touch()
    os.mkfifo("pipe.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.csv")
    for link, target in (
        ("link", "plain.csv"),
        ("nothing", "absent.csv"),
        ("circle", "circle.csv"),
        ("zero", "/dev/zero"),
    ):
        Path(f"{link}.csv").symlink_to(target)
    Path("folder.csv").mkdir()
    Path("models/adapter").mkdir(parents=True)
    Path("to_adapter").symlink_to("models/adapter")
    Path("to_earlier").symlink_to("folder/earlier")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("pipe.csv", "a named pipe"),
        ("socket.csv", "a socket"),
        ("zero.csv", "a device"),
        ("/dev/null", "a device"),
        ("nothing.csv", "a symbolic link to nothing"),
        ("circle.csv", "a circular symbolic link"),
        ("folder.csv", "a folder"),
        ("to_adapter", "a symbolic link to a folder"),
        ("absent.csv", "none"),
        ("plain.csv/x", "none"),
        ("x" * 300, "none (File name too long)"),
    ],
)
def test_what_is_no_file_is_named_and_not_read(odd, name, found):
    with pytest.raises(
        PipelineError, match=re.escape(f": expected a file, found {found}; name or put one there") + "$"
    ):
        files.readable(Path(name))


def test_files_links_to_files_and_open_streams_are_read(odd):
    assert files.readable(Path("link.csv")).read_text() == "text\na\n"
    read, write = os.pipe()
    os.write(write, b"text")
    os.close(write)
    assert files.readable(Path(f"/dev/fd/{read}")).read_text() == "text"
    os.close(read)


def test_what_is_hidden_in_a_folder_is_left_out_and_a_hidden_folder_itself_is_read(odd):
    Path("folder/earlier/.ipynb_checkpoints").mkdir()
    for name in ("a.csv", "._a.csv", ".ipynb_checkpoints/a-checkpoint.csv"):
        Path("folder/earlier", name).touch()
    assert [path.name for path in files.members(Path("folder"))] == ["a.csv", "run.json"]
    hidden = Path("folder/earlier/.ipynb_checkpoints")
    assert files.members(hidden) == [hidden / "a-checkpoint.csv"]


@pytest.mark.parametrize("name", ["pipe.csv", "socket.csv", "zero.csv", "nothing.csv", "circle.csv", "to_adapter"])
def test_a_folder_with_something_else_than_files_is_refused(odd, name):
    Path("plain.csv").rename("folder/earlier/plain.csv")
    assert [str(path) for path in files.members(Path("folder"))] == [
        f"folder/earlier/{n}" for n in ("plain.csv", "run.json")
    ]
    Path(name).rename(Path("folder/earlier", name))
    with pytest.raises(PipelineError, match=f"{name}: expected a file, found a"):
        files.members(Path("folder"))


OWN = (
    "models/adapter models/adapter/x models/base data/raw/x data/prepared models . .. / stages stages/x .git .dvc/tmp/x"
)


@pytest.mark.parametrize(
    "name",
    [*OWN.split(), "to_adapter", "to_adapter/x", "metrics", "metrics/plots/x", "models/../stages", "nothing/../.git"],
)
def test_no_command_writes_into_or_over_the_pipelines_own_files(odd, name):
    for endings in ((), ("", ".git")):
        with pytest.raises(
            PipelineError, match=rf"^--output: expected a .*, found {re.escape(name)}, where the pipeline has"
        ):
            files.destination("--output", Path(name), endings=endings)


def test_every_path_of_the_pipeline_but_the_exports_is_its_own():
    every = {path for path in vars(paths).values() if isinstance(path, Path)} - {*paths.EXPORTS, paths.DOWNLOADS}
    assert every and all({path, *path.parents} & {*paths.OWN} for path in every)


@pytest.mark.parametrize("path", [*paths.OWN, *paths.OWN_FOLDERS], ids=str)
def test_no_folder_is_written_over_what_is_the_pipelines_own(odd, path):
    with pytest.raises(PipelineError, match="where the pipeline has"):
        files.destination("--output", path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain.csv", ", which is the input"),
        ("link.csv", ", which is the input"),
        ("pipe.csv", ", a named pipe"),
        ("socket.csv", ", a socket"),
        ("zero.csv", ", a device"),
        ("circle.csv", ", a circular symbolic link"),
        ("folder.csv", ", a folder"),
        ("plain.csv/x.csv", "plain.csv can hold none (Not a directory)"),
        ("out.txt", "out.txt"),
        ("data/predictions/test.csv", "where the pipeline has data/predictions/test.csv; choose another place"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(odd, name, found):
    with pytest.raises(PipelineError, match=re.escape(found) + "$"):
        files.destination("--output", Path(name), endings=(".csv",), read=[Path("plain.csv")])


@pytest.mark.parametrize(("name", "found"), [("folder", ", a folder with other files"), ("plain.csv", ", a file")])
def test_only_an_earlier_export_is_replaced_by_an_export(odd, name, found):
    with pytest.raises(PipelineError, match=f"expected a new folder or an earlier export, found {name}{found}$"):
        files.destination("--output", Path(name))


def test_new_places_are_taken_and_links_followed(odd):
    for name in ("new", "models/merged", "models/mine", "folder/new", "/tmp/absent/new"):
        assert files.destination("--output", Path(name)) == Path(name).absolute()
    for name in ("plain.csv", "metrics/new.csv", "data/new.csv", "docs/new.csv"):
        assert files.destination("--output", Path(name), endings=(".csv",)) == Path(name).absolute()
    assert files.destination("--output", Path("link.csv"), endings=(".csv",)) == odd / "plain.csv"
    assert files.destination("--output", Path("nothing.csv"), endings=(".csv",)) == odd / "absent.csv"
    assert files.destination("--output", Path("to_earlier")) == odd / "folder/earlier"


def test_what_the_pipelines_own_links_lead_to_is_its_own_too(odd):
    Path("elsewhere").mkdir()
    Path("models/base").symlink_to("../elsewhere")
    with pytest.raises(PipelineError, match="where the pipeline has models/base"):
        files.destination("--output", Path("elsewhere/new"))


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.common import files

with files.replacing(Path(sys.argv[1])) as folder:
    (folder / "large").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def at_work(tmp_path):
    """A process that is writing the folder `out`."""
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "out"], cwd=ROOT, stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, at_work, nfs):
    (tmp_path / ".notes-mine.unfinished").touch()  # no folder
    files.write_text(tmp_path / "other", "text")
    (left,) = tmp_path.glob(".out-*.unfinished")
    assert (left / "fresh/large").exists()
    ignored = subprocess.run(["git", "check-ignore", "--no-index", f"data/{left.name}/"], cwd=ROOT, stdout=-1)
    assert ignored.stdout
    at_work.kill()
    at_work.wait()
    files.write_text(tmp_path / "other", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes-mine.unfinished", "other"]


def test_a_folder_without_a_lock_is_removed_once_it_is_old(tmp_path):
    left = tmp_path / ".out-made.unfinished"
    left.mkdir()
    files.write_text(tmp_path / "other", "text")
    assert left.exists()
    os.utime(left, times=(time.time() - 4_000,) * 2)
    files.write_text(tmp_path / "other", "text")
    assert not left.exists()


def test_a_lock_is_held_before_others_can_find_it(tmp_path, monkeypatch):
    found, rename = [], Path.rename

    def renaming(path, target):
        if target.name == files.LOCK:
            with files.locked(path) as held:
                found.append(held)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renaming)
    with files.temporary(tmp_path / "out") as folder, files.locked(folder / files.LOCK) as held:
        assert [*found, held] == [False, False]


def test_a_file_that_nfs_keeps_fails_no_stage_and_is_removed_later(tmp_path, nfs):
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out/mapped.npy", np.arange(3))
    mapped = np.load(tmp_path / "out/mapped.npy", mmap_mode="r")
    with files.replacing(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.rglob(".nfs*")] == [".nfs-mapped.npy"]
    del mapped
    for left in tmp_path.glob(".out-*.unfinished"):
        os.utime(left, times=(time.time() - 4_000,) * 2)
    files.write_text(tmp_path / "other", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_outputs_can_be_read_by_those_who_may_read_what_the_user_makes(tmp_path):
    before = os.umask(0o022)
    try:
        with files.replacing(tmp_path / "out") as folder:
            for path in (folder / "in", folder / "in/private", folder / "cached"):
                path.mkdir() if path.name == "in" else path.touch()
            (folder / "in").chmod(0o700)
            (folder / "in/private").chmod(0o600)
            (folder / "cached").chmod(0o444)
        files.write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert modes == {"out": "0o755", "in": "0o755", "private": "0o644", "cached": "0o644", "file": "0o644"}


def full(path):
    """Write as each library does that has its own way to say that the disk is full."""
    return {
        "a text": lambda: path.write_text("a" * 5_000),
        "NumPy": lambda: np.save(path, np.zeros(5_000)),
        "a memory map": lambda: (path.write_bytes(b"a"), os.truncate(path, 5_000), states.reserve(path)),
        "safetensors": lambda: save_file({"a": np.zeros(5_000)}, path),
        "torch": lambda: torch.save(torch.zeros(5_000), path),
        "Parquet": lambda: pq.write_table(pa.table({"a": np.random.default_rng(0).random(5_000)}), path),
        "JSON": lambda: files.write_json(path, {"a": "a" * 5_000}),
    }


@pytest.mark.parametrize("library", full(None))
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, library):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with (
            pytest.raises(PipelineError, match=r"/out(/new)?: (File too large|No space left on device); "),
            files.replacing(tmp_path / "out") as folder,
        ):
            full(folder / "new")[library]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_space_is_checked_before_the_work(tmp_path):
    files.check_space(tmp_path / "absent/out", 1)
    with pytest.raises(PipelineError, match=r"out: expected 1e\+09 GB of free space, found .* GB; free some space"):
        files.check_space(tmp_path / "absent/out", 10**18)
    with pytest.raises(PipelineError, match=r"^data/out: expected 1e\+09 GB of free space \(DVC's cache"):
        files.check_space(Path("data/out"), 10**18)


@pytest.mark.parametrize("place", ["fsync", "mkdir"])
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "out: No space left on device; free some space, for example with"),
        (errno.EACCES, "out: Permission denied; give this user the permission"),
        (errno.EROFS, "out: Read-only file system; run the command in a copy"),
        (errno.EIO, "out: Input/output error; the disk or its connection fails"),
    ],
)
def test_what_the_system_refuses_to_write_is_one_line(tmp_path, monkeypatch, code, said, place):
    def refuse(refused, mode=None):
        raise OSError(code, os.strerror(code), refused if place == "mkdir" else None)

    files.write_text(tmp_path / "out", "old")
    monkeypatch.setattr(os, place, refuse)
    with pytest.raises(PipelineError, match=re.escape(said)):
        files.write_text(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"
