"""What a killed DVC leaves behind blocks no later run."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def mend(tmp_path):
    """Runs .ci/mend in a repository of its own, with the given rwlock; returns what it said and the lock."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/mend", tmp_path / ".ci/mend")
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)

    def run(content: str):
        lock.write_text(content)
        done = subprocess.run([tmp_path / ".ci/mend"], stderr=-1, text=True)
        return done.returncode, done.stderr, lock

    return run


@pytest.mark.parametrize("content", ["", '{"read": {"/data', "[]", '{"write": []}', '{"other": {}}', "\0" * 64])
def test_a_damaged_lock_is_removed_and_named(mend, content):
    status, said, lock = mend(content)
    assert (status, said) == (0, "removed .dvc/tmp/rwlock, which a killed DVC had left damaged\n")
    assert not lock.exists()


@pytest.mark.parametrize("content", ["{}", '{"read": {}, "write": {"/data": {"pid": 1, "cmd": "dvc repro"}}}'])
def test_a_whole_lock_stays(mend, content):
    status, said, lock = mend(content)
    assert (status, said, lock.read_text()) == (0, "", content)


def test_nothing_is_removed_while_dvc_is_at_work_here(mend, tmp_path):
    (tmp_path / "dvc").write_text("import sys; print(flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "dvc"], cwd=tmp_path, stdin=-1, stdout=-1) as dvc:
        dvc.stdout.readline()
        status, said, lock = mend("")
        assert status == 1
        assert f"(process {dvc.pid}); wait for its end" in said
        dvc.stdin.close()
    assert lock.exists()


def test_make_mends_before_it_runs():
    for target in ("all", "report"):
        steps = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True).stdout
        assert -1 < steps.index(".ci/mend") < steps.index("dvc repro")
