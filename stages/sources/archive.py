"""Copy files out of an archive or a folder, and never from outside it.

A path in an archive or a folder is that of a file or a folder; a glob like `data/*.parquet`, in which `*` matches no
slash and `**` is any number of folders; or `outer.tar.gz//inner.txt`, a member of an archive that is itself inside.
"""

import contextlib
import fnmatch
import glob
import hashlib
import itertools
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stages.common import content, files
from stages.common.errors import PipelineError

MEMBER_SEPARATOR = "//"
"""Between an archive and a file inside it; `!`, which has to be quoted twice in `dvc exp run -S`, works too."""

SEPARATORS = re.compile("//|!")
"""They separate only where a file is before them: a name may have them, too."""

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip archive begins; the latter, an empty one. Its end can also be that of a member of another archive."""

ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
"""What the standard library raises for an archive that is truncated, damaged or encrypted."""


def extract(archive: Path, file: str, into: Path) -> Path:
    """Copy what `file` names in `archive` into the folder `into`.

    Returns:
        The copied file; for a folder or a glob, the folder that holds the copied files and nothing else.

    Raises:
        PipelineError: the path leaves the archive, or the archive has no such member.
    """
    with members(archive) as (sizes, read):
        names = list(sizes)
        member, rest = split_member(file, lambda path: plain(path) in sizes)
        if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
            raise PipelineError(f"{archive.name}: expected a path inside, found {member!r}")
        top, inside = matching(names, member)
        if not inside:
            raise PipelineError(f"{archive.name}: expected a member {member!r}, found none; it holds: {listing(names)}")
        found = into / (top.name or archive.name)
        files.check_space(into, sum(map(sizes.get, inside)))
        for name in inside:
            target = found / PurePosixPath(name).relative_to(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            with read(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    return extract(found, rest, Path(tempfile.mkdtemp(dir=into))) if rest else found


def split_member(path: str, is_file: Callable[[str], bool]) -> tuple[str, str]:
    """A path up to its last separator that has a file before it, and the rest; the rest is empty if there is none, or
    the path is a file's."""
    outer = next(filter(is_file, outers(path)), path)
    return outer, SEPARATORS.sub("", path[len(outer) :], count=1)


def outers(path: str) -> list[str]:
    """The path, and what is before each of its separators, the longest first."""
    return [path, *(path[: found.start()] for found in [*SEPARATORS.finditer(path)][::-1])]


def matching(names: list[str], member: str) -> tuple[PurePosixPath, list[str]]:
    """The path of `member` up to its first wildcard, and the names that it matches; those with `..`, and what is hidden
    below that path, are left out."""
    top = PurePosixPath(member)
    inside = below(names, top)
    if not inside and glob.has_magic(member):
        top = PurePosixPath(*itertools.takewhile(lambda part: not glob.has_magic(part), top.parts))
        parts = PurePosixPath(member).parts
        inside = [name for name in below(names, top) if matches(PurePosixPath(name).parts, parts)]
    return top, inside


def matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches a glob, part by part, as `PurePath.full_match` does from Python 3.13 on."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(matches(path[start:], pattern[1:]) for start in range(len(path) + 1))
    return path != () and fnmatch.fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def below(names: list[str], top: PurePosixPath) -> list[str]:
    """The names at or below a path, without those with `..` and those hidden below it."""
    paths = ((name, PurePosixPath(name)) for name in names)
    return [
        name
        for name, path in paths
        if path.is_relative_to(top) and ".." not in path.parts and not files.is_hidden(path.relative_to(top))
    ]


def listing(names: list[str]) -> str:
    """The first names, as text for an error message."""
    return ", ".join(sorted(names)[:20]) or "nothing"


@contextmanager
def members(archive: Path) -> Iterator[tuple[dict[str, int], Callable[[str], BinaryIO]]]:
    """The regular files inside, by name without `./`, each with its size in bytes, and a function that opens one;
    an archive's links are left out.

    Raises:
        PipelineError: it is no archive, is damaged, or unfolds to more than `content.RATIO` allows.
    """
    try:
        if archive.is_dir():
            found = (path for path in archive.rglob("*") if files.kind(path) != files.FOLDER)
            paths = {path.relative_to(archive).as_posix(): path for path in found}
            sizes = {name: path.stat().st_size for name, path in paths.items() if path.exists()}
            yield dict.fromkeys(paths, 0) | sizes, lambda name: files.readable(paths[name]).open("rb")
        elif is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                found = {plain(info.filename): info for info in zipped.infolist() if is_file(info)}
                sizes = {name: info.file_size for name, info in found.items()}
                content.check_unfolding(sum(sizes.values()), archive.stat().st_size)
                yield sizes, lambda name: zipped.open(found[name])
        else:
            with contextlib.closing(content.opened(archive)) as file, as_tar(file, archive.name) as tarred:
                found, total = {}, 0
                for info in tarred:
                    if info.isfile():
                        found[plain(info.name)] = info
                        total += info.size
                        content.check_unfolding(total, archive.stat().st_size)
                yield {name: info.size for name, info in found.items()}, lambda name: tarred.extractfile(found[name])
    except ARCHIVE_ERRORS as error:
        raise PipelineError(f"{archive.name}: expected an intact archive without a password, found: {error}") from None


def is_zip(archive: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with archive.open("rb") as file:
        return file.read(4) in ZIP


def is_file(member: zipfile.ZipInfo) -> bool:
    """Whether a member of a zip archive is neither a folder nor a link, whose content would be the path that it has."""
    return not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16)


def plain(name: str) -> str:
    """A path in an archive without `./`, with which `tar c .` begins every name."""
    return PurePosixPath(name).as_posix()


def as_tar(file: BinaryIO, name: str) -> tarfile.TarFile:
    """A stream as a tar archive.

    Raises:
        PipelineError: it is none.
    """
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.ReadError:
        raise PipelineError(
            f"{name}: expected a folder, or a zip, wheel or tar archive, found something else"
        ) from None


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
