"""Where a stage keeps what it has done so far, so that it goes on there after it was interrupted.

The folder's name is a fingerprint of all that the stage's results depend on: what other parameters, other inputs or
another version of the code have left is not taken up.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from stages.common import files, paths, progress
from stages.common.errors import Interrupted

CODE = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def place(stage: str, *, settings: Any, inputs: Iterable[Path], days: float) -> Iterator[Path]:
    """Yield the folder of a stage, which may hold what an earlier run left; it is removed if the block succeeds.

    While one process has a folder, another one that comes to do the same gets an empty one, which is not kept.

    Args:
        settings: the parameters and versions on which the results depend, as JSON can hold them.
        inputs: the files and folders that the stage reads.
        days: what other runs left longer ago is removed.
    """
    clear(days)
    folder = paths.CHECKPOINTS / f"{stage}-{fingerprint(settings, inputs)[:16]}"
    lock = folder / files.LOCK
    with contextlib.ExitStack() as held:
        with changing():
            folder.mkdir(parents=True, exist_ok=True)
            taken = held.enter_context(files.locked(lock)) is False
        if taken:
            progress.say(f"{stage}: another process is doing the same; this one begins anew")
            yield held.enter_context(files.temporary(folder))
            return
        remove = partial(lock.unlink, missing_ok=True)
        try:
            yield folder
            remove = partial(shutil.rmtree, folder, ignore_errors=True)
        except Interrupted as stopped:
            if any(any(folder.glob(f"*/{kept}")) for kept in ("checkpoint-*", "done", "part-*", "*/done.json")):
                stopped.add_note(f"what was done is kept in {folder}, and the next run goes on from there")
            raise
        finally:
            # if the disk became read-only, the error that ended the stage must not be hidden by another one here
            with contextlib.suppress(OSError), changing():
                held.close()  # NFS removes no file that is open
                remove()


def changing() -> contextlib.AbstractContextManager:
    """Hold back other processes that make or remove a folder, so that none locks one that is gone."""
    paths.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    return files.locked(paths.CHECKPOINTS.with_suffix(files.LOCK), wait=True)


def fingerprint(settings: Any, inputs: Iterable[Path]) -> str:
    """The sha256, in hexadecimal, of the settings, the names and contents of the inputs, and the code in stages/."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    given = (files.members(path) if path.is_dir() else [path] for path in inputs)
    for path in (*sorted(CODE.rglob("*.py")), *chain.from_iterable(given)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def clear(days: float) -> None:
    """Remove what runs left that did not write for so many days."""
    for folder in paths.CHECKPOINTS.glob("*/"):
        if time.time() - written(folder) > days * 86_400:
            shutil.rmtree(folder, ignore_errors=True)


def written(folder: Path) -> float:
    """When something in a folder was last written, in seconds since 1970; other processes may be removing files."""
    times = [0.0]
    for home, _, names in os.walk(folder):
        for path in (Path(home), *(Path(home, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
    return max(times)
