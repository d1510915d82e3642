"""Outputs appear whole or not at all: written under a temporary name, brought to the disk, then moved into place.

What a process that was killed left under such a name, a later one removes. What cannot be written or read ends the
command in one line (`writing`, `reading`). And what a path that a user names leads to: `readable` is a plain file,
`destination` a place where a command may write.
"""

import errno
import fcntl
import json
import math
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from stages.common import errors, paths
from stages.common.errors import UNFINISHED, PipelineError
from stages.common.texts import shortened

if TYPE_CHECKING:
    import pandas as pd  # takes most of a second, and `fetch` has no table

Loaded = TypeVar("Loaded")

DIGITS = 5
"""Significant digits of a metric: the last bits of a float differ between kinds of CPU."""

PLOT_DIGITS = 4
"""Significant digits of a number that is drawn, at least."""

FILE, FOLDER, LOCK = "a file", "a folder", ".lock"

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
    """The files below a folder, in sorted order; hidden ones, and those in hidden folders, are left out.

    Raises:
        PipelineError: see `readable`.
    """
    found = (path for path in sorted(folder.rglob("*")) if not is_hidden(path.relative_to(folder)))
    return [readable(path) for path in found if kind(path) != FOLDER]


def is_hidden(path: PurePath) -> bool:
    """Whether a file, or one of the folders in its path, is hidden, as `._a.txt` of macOS is."""
    return any(part.startswith(".") for part in path.parts)


def kind(path: Path) -> str | None:
    """What a path leads to, in words; None: nothing is there."""
    try:
        found = KINDS[stat.S_IFMT(path.stat().st_mode)]
    except (FileNotFoundError, NotADirectoryError):
        return "a symbolic link to nothing" if path.is_symlink() else None
    except OSError as error:
        return "a circular symbolic link" if error.errno == errno.ELOOP else f"none ({error.strerror})"
    return "a symbolic link to a folder" if found == FOLDER and path.is_symlink() else found


def destination(option: str, path: Path, *, endings: Collection[str] = (), read: Collection[Path] = ()) -> Path:
    """The place where a command may write what `option` names, links followed; to be asked before any work.

    Args:
        endings: the extensions of a file; none: it is a folder, new or an earlier export.
        read: the files that the command reads.

    Raises:
        PipelineError: the path has another ending; is in or over what belongs to the pipeline (`paths.OWN`); is one of
            those `read`; is something else than a file or an earlier export; or no folder can hold it.
    """
    full = Path(os.path.realpath(path))
    expected = f"a file ending in {', '.join(endings)}" if endings else "a new folder or an earlier export"
    found = why_not(full, folder=not endings, read=read)
    if found or (endings and path.suffix not in endings):
        raise PipelineError(f"{option}: expected {expected}, found {path}{found}")
    return full


def why_not(full: Path, *, folder: bool, read: Collection[Path]) -> str:
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
    if there and any(one.exists() and full.samefile(one) for one in read):
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

    Raises:
        PipelineError: there is no space left, or no permission to write.
    """
    with writing(path), temporary(path) as scratch:
        fresh, former = Path(scratch, "fresh"), Path(scratch, "former")
        fresh.mkdir()
        yield fresh
        settle(fresh)
        if path.exists():
            path.rename(former)
        fresh.rename(path)
        sync(path.parent)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for what is not needed after the block: in the repository, unless that cannot be written to."""
    place = temporary(paths.SCRATCH / "stage") if os.access(".", os.W_OK) else nullcontext()
    with place as home, tempfile.TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, and remove those that processes which are gone have left there.

    A folder is locked as long as its process, or a child of it, is alive: unlike a process's number, which another
    process may have got since, a lock also tells the truth between containers and machines that share a disk. What the
    disk does not give up stays for later: NFS keeps a file, under another name, as long as it is mapped into memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.parent.glob(f".*-*{UNFINISHED}"):
        if is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
    named = {"prefix": f".{path.name[:60]}-", "suffix": UNFINISHED}
    with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True, **named) as name:
        made = Path(name, f"{LOCK}-made")
        made.touch()
        with locked(made):
            yield made.rename(Path(name, LOCK)).parent  # with this name it is locked already


def is_left(folder: Path) -> bool:
    """Whether the process of a temporary folder is gone. A folder without a lock is being made or removed, or was, if
    that is an hour ago."""
    lock = folder / LOCK
    with suppress(OSError):
        if lock.exists():
            with locked(lock) as held:
                return bool(held)
        return time.time() - folder.stat().st_mtime > 3_600
    return False


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Hold the lock of a file; yields whether it was to be had, or None where there are no locks. On a folder it could
    be held, too, but NFS would not tell other machines."""
    with ExitStack() as opened:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, mode=0o666)
            opened.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError:
            held = None
        yield held


def settle(folder: Path) -> None:
    """Bring everything in a new folder to the disk, and let those read it who may read the folder: some libraries make
    files that only their owner can read."""
    readable_by = stat.S_IMODE(folder.stat().st_mode)
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(readable_by if path.is_dir() else readable_by & 0o666)
            sync(path)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: after a power cut, what a rename put there is whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of `path` why it cannot be written, if the block fails for want of space or permission, or by the disk.

    Raises:
        PipelineError: it does.
    """
    try:
        yield
    except Exception as error:  # each library has errors of its own for a full disk
        if told := errors.explained(error, path):
            raise told from error
        raise


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of `path`, which a stage wrote, that it is damaged, if the block fails, which reads it and does nothing else.

    Raises:
        PipelineError: it does.
        FileNotFoundError: the file is missing.
    """
    try:
        yield
    except (PipelineError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own for a damaged file
        found = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
        restore = "git checkout" if path.is_relative_to("metrics") else "dvc checkout --force"
        root = error
        while cause := root.__cause__ or root.__context__:  # a library may wrap the system's error
            root = cause
        raise errors.explained(root, path) or PipelineError(
            f"{path}: expected what the pipeline wrote there, found it damaged ({found}); restore it with "
            f"`{restore} {path}`, or make it again with `dvc repro`"
        ) from error


def load(path: Path, reader: Callable[[Path], Loaded]) -> Loaded:
    """What `reader` makes of a file or folder that a stage wrote; raises what `reading` does."""
    with reading(path):
        return reader(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of JSON that a stage wrote; raises what `reading` does."""
    with reading(path):
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__}, no object")
        json.dumps(value, allow_nan=False)  # Python reads NaN, Infinity and 1e999, which no stage writes
        return value


def check_space(path: Path, needed: int, *, advice: str = "") -> None:
    """Check that the disk of `path` has room for so many bytes, before they are computed.

    Raises:
        PipelineError: it has not.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        more = errors.CACHED if str(path).startswith(errors.OUTPUTS) else ""
        found = f"found {free / 1e9:.3g} GB; {errors.FREE_SPACE}{advice}"
        raise PipelineError(f"{path}: expected {needed / 1e9:.3g} GB of free space{more}, {found}")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`; a reader sees either the old file or the complete new one. Raises what `writing` does."""
    with writing(path), temporary(path) as scratch:
        fresh = scratch / path.name
        fresh.write_bytes(content)
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_metrics(path: Path, value: Any) -> None:
    """Write `value` as JSON, its numbers rounded for Git: what no one reads as a difference is none. Raises what
    `write_json` does."""
    write_json(path, rounded(value))


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write the table as CSV, without its index and with its numbers rounded for a drawing."""
    columns = {name: column.map(partial(rounded, digits=plot_digits(column))) for name, column in table.items()}
    write_text(path, table.assign(**columns).to_csv(index=False))


def plot_digits(column: "pd.Series") -> int:
    """To how many digits the numbers of a column are rounded: more where they are far from 0 and near each other."""
    spread = column.max() - column.min() if column.dtype.kind == "f" else 0
    return PLOT_DIGITS + (max(0, math.floor(math.log10(column.abs().max() / spread))) if spread else 0)


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """The value with every fraction in it, at any depth, rounded to this many significant digits."""
    if isinstance(value, dict):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
