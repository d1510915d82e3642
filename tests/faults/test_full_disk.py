"""A disk that is full, or on which nothing may be written, ends every stage and command in one line."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest

pytestmark = pytest.mark.usefixtures("own_sources")

SIZES = {
    "fetch": ("models/base",),
    "prepare": ("data/prepared",),
    "encode": ("data/encoded",),
    "baseline": ("data/features", "data/predictions/baseline.parquet"),
    "audit": ("data/predictions/suspects.csv",),
    "train": ("models/adapter",),
    "evaluate": ("data/predictions/test.csv",),
    "report": ("metrics/report.md",),
    "predict --input given.csv --output answers.csv": ("given.csv",),
    "export": ("models/base",),
    "export --adapter": ("models/adapter",),
}
"""The commands, and about what they write."""

FAULTS = ("full", "nearly full", "file-size limit", "read-only")

LINE = r"^error: .*(space|too large|[Rr]ead-only|can hold none)"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every fault in every command in the long form, and one in each in the short form."""
    if "fault" in metafunc.fixturenames:
        every = [(command, fault) for command in SIZES for fault in FAULTS]
        short = [(command, FAULTS[number % len(FAULTS)]) for number, command in enumerate(SIZES)]
        metafunc.parametrize(("command", "fault"), every if metafunc.config.getoption("faults") else short)


def test_a_disk_on_which_nothing_can_be_written_ends_in_one_line(
    command,
    fault,
    finished,
    tmp_path,
    record_property,
):
    home = tmp_path / "project"
    with disk(home, fault) as seal:
        shutil.copytree(finished, home, dirs_exist_ok=True)
        (home / "given.csv").write_text("text\n" + "A good text.\n" * 500)
        size = sum(path.stat().st_size for name in SIZES[command] for path in (home / name, *(home / name).rglob("*")))
        before = forked.contents(home)
        seal(size)
        record_property("disk", {"where": fault})
        limit = min(4096, size // 2) if fault == "file-size limit" else None
        done = forked.run(home, command.split(), tmp_path / "told", file_size=limit)
        print(done.stderr)
        assert done.returncode > 0
        assert "Traceback" not in done.stderr
        assert re.search(LINE, done.stderr.splitlines()[-1])
        assert forked.contents(home) == before


@contextmanager
def disk(folder: Path, fault: str) -> Iterator:
    """A folder on a disk of its own; yields what makes it bad, a function of how much is going to be written."""
    folder.mkdir()
    if fault == "file-size limit":
        yield lambda size: None
        return
    mount("-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder))

    def seal(size: int) -> None:
        if fault == "read-only":
            mount("-o", "remount,ro", str(folder))
        else:
            state = os.statvfs(folder)
            used = (state.f_blocks - state.f_bfree) * state.f_frsize
            left = size // 2 // state.f_frsize * state.f_frsize if fault == "nearly full" else 0
            mount("-o", f"remount,size={used + left}", str(folder))

    try:
        yield seal
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


def mount(*arguments: str) -> None:
    """Run `mount`, or skip the test where that is not allowed."""
    done = subprocess.run(("mount", *arguments), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
