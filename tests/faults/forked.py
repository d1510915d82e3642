"""A stage or command in a copy of this process: as quick as a call, but it may hang, be killed or have limits."""

import hashlib
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from stages.common import errors

SECONDS = 120
"""The longest that it may take: one that hangs is a fault."""


def run(
    folder: Path, command: Sequence[str], output: Path, *, file_size: int | None = None
) -> subprocess.CompletedProcess:
    """What the command did in `folder`; a negative exit status is the number of the signal that ended it.

    Args:
        output: where the two streams are kept meanwhile, outside `folder`.
        file_size: the most bytes that it may write into one file.
    """
    name, *arguments = command
    module = importlib.import_module(f"stages.{name}")
    told, failed = output.with_suffix(".out"), output.with_suffix(".err")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if not (child := os.fork()):
        status = 1
        try:
            for number, path in ((1, told), (2, failed)):
                os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
            os.chdir(folder)
            sys.argv = [f"stages.{name}", *arguments]
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
            errors.run(module.main)
            status = 0
        except SystemExit as left:
            status = left.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
    return subprocess.CompletedProcess(command, ended(child), told.read_text(), failed.read_text(errors="replace"))


def ended(child: int) -> int:
    """Wait for a process; its exit status."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"still running after {SECONDS} seconds")


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file, and what else there is, without Git's and DVC's own files.

    Of .cache, which keeps verified downloads and checkpoints to go on from, only what has a temporary name counts.
    """
    found = {}
    for path in folder.rglob("*"):
        first, *inner = path.relative_to(folder).parts
        if first not in (".git", ".dvc", ".cache") or (first == ".cache" and any(part[0] == "." for part in inner)):
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    return found
