"""From a source string to local files, their bytes pinned by a revision.

A source is `KIND:NAME`:

    package:NAME==VERSION   an archive from the package index; the revision is its sha256
    hub:ORG/NAME            a repository of a Hugging Face hub; the revision is the 40-hex commit
    path:models/raw/NAME    a file or folder in this repository, where DVC detects changes; NAME may also be a glob, or
    path:data/raw/NAME      a member of an archive: x.zip//rows.csv

`file` names what to take from the source: a file, a folder, a glob, or a member of an archive (see archive.py).
"""

import glob
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.sources import hub, package
from stages.sources.archive import MEMBER_SEPARATOR, extract, split_member

RAW = {"model": paths.RAW_MODELS, "dataset": paths.RAW_DATA}
"""The folders for the user's own files."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was fetched from a source: one file or folder, and the licence that the source states."""

    path: Path
    license: str


def fetch(
    *, source: str, revision: str | None, file: str | None, into: Path, repo_type: Literal["model", "dataset"]
) -> Fetched:
    """Bring `file` of `source` to local disk, after checking the bytes against `revision`.

    Args:
        source: `KIND:NAME`, see the module's docstring.
        revision: what pins the bytes, by kind; None for `path:`.
        file: what to take from the source; None: all of it (not for a package or a hub's dataset). For a `path:`
            source, the file of one ready split.
        into: an existing folder for files that have to be copied out of an archive or a folder.
        repo_type: what the source holds; for a hub's model, only the files that transformers reads are downloaded.

    Returns:
        A file or a folder, which must not be modified.

    Raises:
        PipelineError: the source cannot be reached, its bytes are not those of `revision`, or it does not hold `file`.
    """
    kind, _, name = source.partition(":")
    match kind:
        case "package":
            path, stated = package.fetch(name, revision, file, into)
        case "hub":
            path, stated = hub.fetch(name, revision, file, into, repo_type)
        case "path":
            path, stated = fetch_path(name, file, into, RAW[repo_type])
    return Fetched(path=path, license=stated)


def local(name: str) -> Path:
    """The file or folder of a `path:` source: its name up to a wildcard, or a member of an archive. What the whole name
    leads to has neither."""
    path, _ = split(name)
    if files.kind(path):
        return path
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def split(name: str) -> tuple[Path, str]:
    """The file, folder or glob of a `path:` source, and the member of an archive, which may be empty."""
    outer, member = split_member(name, is_file)
    return Path(outer), member


def is_file(name: str) -> bool:
    """Whether a name is that of a file."""
    return files.kind(Path(name)) == files.FILE


def fetch_path(name: str, file: str | None, into: Path, home: Path | None) -> tuple[Path, str]:
    """The file or folder `name`, or `file` within it; and the licence that a model card there states.

    Args:
        home: the folder in which DVC detects its changes; None: it does not have to.
    """
    (outer, member), fixed = split(name), local(name)
    wanted = [str(outer.relative_to(fixed))] if fixed != outer else []
    within = MEMBER_SEPARATOR.join(part for part in (*wanted, member, file) if part)
    path = fixed
    if home and (not path.is_relative_to(home) or ".." in path.parts):
        raise PipelineError(f"path:{name}: expected a path below {home}/, which DVC watches; put the files there")
    if files.kind(path) is None:
        raise PipelineError(
            f"path:{name}: expected a file or folder, found none; put it there, and for a run in a copy of the "
            f"repository (`dvc exp run --temp`) track it: dvc add {name}"
        )
    if home and any(folder.is_symlink() for folder in (path, *path.parents) if folder.is_dir()):
        raise PipelineError(
            f"path:{name}: expected a folder, found a symbolic link, whose changes DVC does not see; copy the files, "
            "or link each of them"
        )
    if not path.is_dir() and (found := files.kind(path)) != files.FILE:
        raise PipelineError(f"path:{name}: expected a file or folder, found {found}; put a copy of the file there")
    stated = hub.stated_license(path if path.is_dir() else path.parent)
    return extract(path, within, into) if within else path, stated
