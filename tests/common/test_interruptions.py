"""Ctrl-C, SIGTERM and a closed terminal end a command in one line, with nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from stages.backbone import parallel
from stages.common import paths
from stages.common.errors import Interrupted
from stages.resuming import places

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ended(*command, **environment):
    """The exit status of a Python process and what it prints to standard error."""
    as_in_a_terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background it is ignored
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    return done.returncode, done.stderr


HALF_WRITTEN = """
import os, sys
from pathlib import Path
from stages.common import errors, files

def main():
    with files.replacing(Path(sys.argv[1], "output")) as folder:
        (folder / "half").touch()
        try:
            os.kill(os.getpid(), int(sys.argv[2]))
        finally:  # a second one soon after the first, as `timeout` sends them
            os.kill(os.getpid(), int(sys.argv[2]))

errors.run(main)
"""


IN_A_FINALIZER = """
import os, sys, time
from stages.common import errors

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        return None

def main():
    Destroyed()
    time.sleep(60)

errors.run(main)
"""


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_that_comes_while_an_object_is_destroyed_is_not_lost(number):
    assert ended("-c", IN_A_FINALIZER, str(int(number))) == (128 + number, f"interrupted by {number.name}\n")


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_ends_a_command_in_one_line_and_leaves_nothing_half_written(number, tmp_path):
    found = ended("-c", HALF_WRITTEN, str(tmp_path), str(int(number)))
    assert found == (128 + number, f"interrupted by {number.name}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_a_command_is_imported_ends_it_in_one_line(number, tmp_path):
    (tmp_path / "numpy.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    found = ended("-m", "stages.train", PYTHONPATH=str(tmp_path))
    assert found == (128 + number, f"interrupted by {number.name}\n")


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{HALF_WRITTEN}"  # as `nohup` does
    assert ended("-c", code, str(tmp_path), str(int(signal.SIGHUP))) == (0, "")
    assert (tmp_path / "output/half").exists()


EXPERIMENT = """
import sys
from stages.common import errors
from stages.reporting import history

sys.executable = sys.argv[1]
errors.run(lambda: history.run_experiment("name", {}))
"""


def test_an_interrupted_search_ends_dvc_and_what_that_has_started(tmp_path):
    dvc, started = tmp_path / "dvc", tmp_path / "started"
    dvc.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {started}\nsleep 1; kill -TERM $PPID\nwait\n")
    dvc.chmod(0o755)
    assert ended("-c", EXPERIMENT, str(dvc)) == (128 + signal.SIGTERM, "interrupted by SIGTERM\n")
    assert not is_alive(int(started.read_text()))


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended may wait for being noticed."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_an_interruption_waits_for_the_current_batches_alone(monkeypatch):
    computed = []

    def interrupt(count):
        raise Interrupted(130)

    def compute(model, batch):
        time.sleep(0.01)
        computed.append(batch)

    shown = SimpleNamespace(update=interrupt)
    monkeypatch.setattr(parallel, "bar", lambda *_, **__: nullcontext(shown))
    with pytest.raises(Interrupted):
        parallel.each_batch(torch.nn.Linear(2, 2), compute, [[row] for row in range(1_000)], progress="test")
    assert len(computed) < 500


@pytest.mark.parametrize("kept", [None, "seed-1/checkpoint-1-000000003", "seed-1/done"])
def test_an_interruption_says_where_a_checkpoint_is_if_there_is_one(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted) as stopped, places.place("train", settings={}, inputs=[], days=1) as folder:
        (folder / (kept or "seed-1/epoch")).mkdir(parents=True)
        raise Interrupted(143)
    said = f"what was done is kept in {folder}, and the next run goes on from there"
    assert getattr(stopped.value, "__notes__", []) == ([said] if kept else [])
    assert folder.is_relative_to(paths.CHECKPOINTS)
