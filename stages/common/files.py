"""Outputs appear whole or not at all: written under a temporary name, then moved into place.

And what a path that a user names leads to: `readable` is a plain file, `destination` a place where a command may write.
"""

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common import paths
from stages.common.errors import PipelineError

if TYPE_CHECKING:
    import pandas as pd  # takes most of a second, and `fetch` has no table

DIGITS = 5
"""Significant digits of a metric: the last bits of a float differ between kinds of CPU."""

PLOT_DIGITS = 4
"""Significant digits of a number that is drawn."""

FILE, FOLDER = "a file", "a folder"

KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to, by the file type of its mode."""


def readable(path: Path) -> Path:
    """The path, if reading it gives the content of a file, and ends; an open stream (see `is_stream`) does, too.

    Raises:
        PipelineError: it is something else, or the file may not be read.
    """
    found = kind(path)
    if found != FILE and not is_stream(path):
        raise PipelineError(f"{path.name}: expected a file, found {found or 'none'}; name or put one there")
    if not os.access(path, os.R_OK):
        raise PipelineError(f"{path.name}: expected a file that can be read, found one without the permission")
    return path


def is_stream(path: Path) -> bool:
    """Whether a path names what a process has open already: standard input, or a shell's `<(command)`."""
    return re.fullmatch(r"/dev/stdin|(/dev|/proc/self)/fd/\d+", str(path)) is not None


def members(folder: Path) -> list[Path]:
    """The files below a folder, in sorted order; hidden ones are left out.

    Raises:
        PipelineError: see `readable`.
    """
    found = (path for path in sorted(folder.rglob("*")) if not path.name.startswith("."))
    return [readable(path) for path in found if kind(path) != FOLDER]


def kind(path: Path) -> str | None:
    """What a path leads to, in words; None: nothing is there."""
    try:
        found = KINDS[stat.S_IFMT(path.stat().st_mode)]
    except (FileNotFoundError, NotADirectoryError):
        return "a symbolic link to nothing" if path.is_symlink() else None
    except OSError as error:
        return "a circular symbolic link" if error.errno == errno.ELOOP else f"none ({error.strerror})"
    return "a symbolic link to a folder" if found == FOLDER and path.is_symlink() else found


def destination(option: str, path: Path, *, endings: Collection[str] = (), read: Path | None = None) -> Path:
    """The place where a command may write what `option` names, links followed; to be asked before any work.

    Args:
        endings: the extensions of a file; none: it is a folder, new or an earlier export.
        read: a file that the command reads.

    Raises:
        PipelineError: the path has another ending; is in or over what belongs to the pipeline (`paths.OWN`); is the
            file `read`; is something else than a file or an earlier export; or no folder can hold it.
    """
    full = Path(os.path.realpath(path))
    expected = f"a file ending in {', '.join(endings)}" if endings else "a new folder or an earlier export"
    found = why_not(full, folder=not endings, read=read)
    if found or (endings and path.suffix not in endings):
        raise PipelineError(f"{option}: expected {expected}, found {path}{found}")
    return full


def why_not(full: Path, *, folder: bool, read: Path | None) -> str:
    """What stands against writing to a path without links, to be put after its name; empty: nothing does."""
    for own in (*paths.OWN, *(paths.OWN_FOLDERS if folder else ())):
        for place in (own.absolute(), Path(os.path.realpath(own))):
            if full.is_relative_to(place) or place.is_relative_to(full):
                return f", where the pipeline has {own}; choose another place"
    there, parent = kind(full), next(place for place in full.parents if kind(place))
    if there not in (None, FOLDER if folder else FILE):
        return f", {there}"
    if folder and there and not (full / "run.json").is_file():
        return ", a folder with other files"
    if read and there and read.exists() and full.samefile(read):
        return ", which is the input"
    try:
        with tempfile.TemporaryDirectory(dir=parent):
            return ""
    except OSError as error:
        return f", but {parent} can hold none ({error.strerror})"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` if the block succeeds.

    If the block raises, the temporary folder is removed and `path` stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh, former = Path(scratch, "fresh"), Path(scratch, "former")
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(former)
        fresh.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`; a reader sees either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh = Path(scratch, path.name)
        fresh.write_bytes(content)
        fresh.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_metrics(path: Path, value: Any) -> None:
    """Write `value` as JSON, its numbers rounded for Git: what no one reads as a difference is none.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_json(path, rounded(value))


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write the table as CSV, without its index and with its numbers rounded for a drawing."""
    write_text(path, table.map(lambda value: rounded(value, PLOT_DIGITS)).to_csv(index=False))


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """The value with every fraction in it, at any depth, rounded to this many significant digits."""
    if isinstance(value, dict):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def check_json(path: Path, value: Any) -> Any:
    """The value that a file of JSON holds, if all its numbers are finite: Python reads NaN, Infinity and 1e999, too.

    Raises:
        PipelineError: one is not.
    """
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise PipelineError(
            f"{path}: expected finite numbers, found NaN or infinity; restore it with `dvc checkout --force {path}`, "
            "or make it again with `dvc repro`"
        ) from None
    return value
