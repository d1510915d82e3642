"""Whether Git or DVC tracks a file: `dvc exp run --queue` and `--temp` run in a copy that has no other files."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

LARGE = 10_000_000
"""Bytes from which DVC should track a file rather than Git."""


def advice(path: Path) -> str | None:
    """Why and how to track what a path or a glob names; None: as for `command`."""
    if (tracking := command(path)) is None:
        return None
    return f"data.source: neither Git nor DVC tracks {path}, so runs in a copy (--queue, --temp) lack it: {tracking}"


def command(path: Path) -> str | None:
    """The command that tracks a file, a folder or the files of a glob; None: all are tracked, or there is no Git
    repository, or no Git."""
    if not shutil.which("git"):
        return None
    listed = subprocess.run(["git", "ls-files", "-z", "--others", "--", path], capture_output=True)
    others = [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]
    lost = [other for other in others if not any(is_added(one) for one in (other, *other.parents))]
    if listed.returncode or not lost:
        return None
    add = {"git": "git add", "dvc": "dvc add" if path.exists() else "dvc add --glob"}[tool(lost)]
    return f"{add} {shlex.quote(str(path))}"


def tool(files: Iterable[Path]) -> str:
    """What should track the files: `git` or, where they are large, `dvc`."""
    return "dvc" if sum(path.lstat().st_size for path in files) > LARGE else "git"


def is_added(path: Path) -> bool:
    """Whether `dvc add` made a file beside this one."""
    return path.name != "" and path.with_name(f"{path.name}.dvc").exists()
