"""Files at URLs, as in object storage: inputs are copied to this machine, outputs are sent when they are whole.

fsspec opens a URL with the package for its kind, s3fs for `s3://`, gcsfs for `gs://`; these look for credentials where
the tools of their services do. An output is sent as one object, which object storage shows when it is complete.
"""

import contextlib
import glob
import os
import secrets
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem

from stages.common import files, paths, progress
from stages.common.errors import UNFINISHED, PipelineError
from stages.common.texts import shortened
from stages.rows import formats
from stages.streaming import outputs, tables

FOUND = {
    FileNotFoundError: "nothing of that name",
    PermissionError: "no permission",
    NotImplementedError: "a kind of URL without such places",
}
"""What errors say, in words; those that packages make have names that say it."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file elsewhere."""

    fs: fsspec.AbstractFileSystem
    path: str
    """Within the file system."""
    info: dict[str, Any] = field(default_factory=dict)
    """What the file system says of an input: its size, time, hash of its content."""

    def __str__(self) -> str:
        return self.fs.unstrip_protocol(self.path)

    @property
    def place(self) -> str:
        """The path, which over HTTP is the whole URL, without its query."""
        return urlsplit(self.path).path if self.path.startswith(("http://", "https://")) else self.path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.place).name

    def beside(self, name: str) -> "Remote":
        """A file with another name."""
        return replace(self, path=f"{self.path.removesuffix(self.name)}{name}")

    def is_there(self) -> bool:
        """Whether the file exists now."""
        self.fs.invalidate_cache()
        return self.fs.exists(self.path)


class Discarded(Exception):  # noqa: N818
    """What was begun is not to be completed."""


class Shown(Callback):
    """Shows the bytes that are transferred."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar

    def relative_update(self, inc: int = 1) -> None:
        """Count so many bytes more."""
        self.bar.update(inc)


def path_or_url(given: str) -> Path | str:
    """A path, or the text of a URL."""
    return given if "://" in given else Path(given)


def opened(option: str, url: str) -> Remote:
    """The file that a URL names, whether or not it is there.

    Raises:
        PipelineError: no package for such URLs is installed; or it is a file on this machine.
    """
    try:
        fs, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise PipelineError(
            f"{option}: expected the package for {url}, found none: {error}; s3fs and gcsfs take the version of "
            f"fsspec, {fsspec.__version__}"
        ) from None
    except ValueError as error:
        raise PipelineError(f"{option}: expected a path or a URL, found {url}: {error}") from None
    if isinstance(fs, LocalFileSystem):
        raise PipelineError(f"{option}: expected a path for a file on this machine, found {url}; name {path}")
    return Remote(fs=fs, path=path)


@contextmanager
def reached(url: object, expected: str) -> Iterator[None]:
    """Say of a URL why it is not as `expected`, if the block fails, which asks its server.

    Raises:
        PipelineError: it does.
    """
    try:
        yield
    except Exception as error:  # the packages for URLs have errors of their own
        found = next((words for kind, words in FOUND.items() if isinstance(error, kind)), type(error).__name__)
        told = f" ({shortened(' '.join(str(error).split()), 300)})" if str(error) else ""
        raise PipelineError(
            f"{url}: expected {expected}, found {found}{told}; check the name, the credentials and the connection "
            "(docs/predict.md)"
        ) from error


def inputs(url: str) -> list[Remote]:
    """The files that a URL names; a glob, those that match it, in sorted order.

    Raises:
        PipelineError: there are none, one is no file or no table, or the server refuses to say.
    """
    given = opened("--input", url)
    with reached(url, "a file that can be read"):
        if glob.has_magic(given.place) and not given.fs.isfile(given.path):
            matching = sorted(given.fs.glob(given.path, detail=True).items())
            found = [replace(given, path=path, info=info) for path, info in matching]
            found = [one for one in found if not one.name.startswith(".")]
        else:
            found = [replace(given, info=given.fs.info(given.path))]
    if not found:
        raise PipelineError(
            f"--input: expected files that match {url}, found none; check the name of the bucket, and the pattern"
        )
    for one in found:
        if one.info["type"] != "file":
            raise PipelineError(f"{one}: expected a file, found a folder; name its files, as with {one}/*.csv")
        formats.format_of(Path(one.name), str(one), tables.CONVERT)
    return found


def destination(option: str, url: str, *, read: Collection[Remote]) -> Remote:
    """The file that a command may write; to be asked before any work.

    Args:
        read: the files that the command reads.

    Raises:
        PipelineError: the URL has another ending, is one of those `read`, or cannot be written to.
    """
    given = opened(option, url)
    expected = f"a file ending in {', '.join(outputs.ENDINGS)}"
    if Path(given.name).suffix not in outputs.ENDINGS:
        raise PipelineError(f"{option}: expected {expected}, found {url}")
    if {str(given), str(rejects_of(given))} & set(map(str, read)):
        raise PipelineError(f"{option}: expected {expected}, found {url}, which is the input")
    trial = given.beside(f".{given.name}-{secrets.token_hex(4)}{UNFINISHED}")
    with reached(url, "a place that can be written to"):
        with contextlib.suppress(Discarded), trial.fs.transaction:
            trial.fs.open(trial.path, "wb").close()
            raise Discarded
        if trial.is_there():  # in a file system that has no transactions
            trial.fs.rm_file(trial.path)
    return given


def rejects_of(remote: Remote) -> Remote:
    """The file beside an output with what has no answer there."""
    return remote.beside(outputs.rejects_of(Path(remote.name)).name)


@contextmanager
def copied(remotes: Collection[Remote]) -> Iterator[dict[Path, Remote]]:
    """Yield copies of the files on this machine, of the same names; they are removed after the block.

    Raises:
        PipelineError: a file cannot be read, or there is no space for the copies.
    """
    if not remotes:
        yield {}
        return
    with files.scratch() as folder:
        size = sum(one.info["size"] or 0 for one in remotes)
        files.check_space(folder, size)
        copies = {Path(folder, str(number), one.name): one for number, one in enumerate(remotes)}
        with progress.bar("download", total=size or None, unit="byte") as bar:
            for copy, one in copies.items():
                copy.parent.mkdir()
                with reached(one, "a file that can be read"):
                    one.fs.get_file(one.path, str(copy), callback=Shown(bar))
        yield copies


@contextmanager
def sent(path: Path | None, to: Remote | None, home: Path | None) -> Iterator[Path | None]:
    """Yield where an output is to be written; if the block succeeds, it is sent.

    Args:
        path: the output on this machine.
        to: where it goes; None: it stays on this machine.
        home: what is there is there for the next run, if this one fails; None: there is no such place.

    Raises:
        PipelineError: it cannot be sent. What was written is kept.
    """
    if to is None:
        yield path
        return
    with nullcontext(home) if home else files.scratch() as folder:
        made = Path(folder, "output", path.name)
        made.parent.mkdir(exist_ok=True)
        yield made
        try:
            send(made, to)
        except PipelineError as error:
            if home:
                raise PipelineError(f"{error}; all answers are kept, and the same command sends them") from error
            place = paths.SCRATCH if os.access(paths.SCRATCH, os.W_OK) else None
            kept = Path(tempfile.mkdtemp(dir=place, prefix=f"{made.stem}-"))
            for one in filter(Path.exists, (made, outputs.rejects_of(made))):
                one.rename(kept / one.name)
            raise PipelineError(f"{error}; all answers are kept in {kept}") from error


def send(made: Path, to: Remote) -> None:
    """Send an output and what has no answer there; if all rows have one, remove what an earlier run left.

    Raises:
        PipelineError: it cannot be sent.
    """
    rejected = outputs.rejects_of(made)
    pairs = [(one, place) for one, place in ((rejected, rejects_of(to)), (made, to)) if one.exists()]
    size = sum(one.stat().st_size for one, _ in pairs)
    with reached(to, "a place that can be written to"), progress.bar("upload", total=size, unit="byte") as bar:
        if not rejected.exists() and rejects_of(to).is_there():
            rejects_of(to).fs.rm_file(rejects_of(to).path)
        for one, place in pairs:
            place.fs.put_file(str(one), place.path, callback=Shown(bar))
