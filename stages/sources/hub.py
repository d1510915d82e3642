"""Models and datasets from a Hugging Face hub, pinned by their commit.

`huggingface_hub` downloads: it honours HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, caches files, and retries.
This module selects the files, checks their bytes, and explains failures.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from huggingface_hub import HfApi, errors, get_cached_repo_tree, metadata_load, snapshot_download
from huggingface_hub.utils import filter_repo_objects

from stages.common.errors import PipelineError
from stages.sources.archive import digest, extract, listing, outers

MODEL_FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""The files of a model's folder that transformers reads, without pickles and copies of the weights in other formats."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

CARD = "README.md"


def fetch(repository: str, commit: str, file: str | None, into: Path, repo_type: str) -> tuple[Path, str]:
    """Bring `file` of a repository at `commit`; returns its path and the licence that the repository's card states.

    Args:
        repository: `ORG/NAME`.
        commit: 40 hex digits.
        file: for a model: a .gguf file, a folder, or None for the repository itself; for a dataset: a file, a folder,
            a glob, or a member of an archive.
        into: the folder for a dataset's files; a model's files stay in the hub's cache.
        repo_type: model or dataset.

    Raises:
        PipelineError: the hub cannot be reached, refuses the request, or has no such repository, commit or file; or
            the bytes that arrived are not those of the commit.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise PipelineError(
            f"hub:{repository}: expected a revision of 40 hex digits (a commit), found {commit!r}"
            f"{current_commit_hint(repository, commit, repo_type)}"
        )
    allowed, ignored = wanted(file, repo_type)
    with explained(repository, commit):
        snapshot = snapshot_download(
            repository,
            repo_type=repo_type,
            revision=commit,
            allow_patterns=[*allowed, CARD],
            ignore_patterns=ignored,
        )
    folder = Path(snapshot)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = list(filter_repo_objects(names, allow_patterns=allowed, ignore_patterns=ignored))
    if not any(repo_type == "dataset" or name.endswith((".safetensors", ".gguf")) for name in names):
        there = repository_files(repository, commit, repo_type)
        raise PipelineError(f"hub:{repository}: {missing_file_message(file, there, repo_type)}")
    for name in names:
        check(folder / name, repository)
    path = extract(folder, file, into) if repo_type == "dataset" else folder / (file or "")
    return path, stated_license(folder)


def wanted(file: str | None, repo_type: str) -> tuple[list[str], list[str]]:
    """The patterns of the files to download, and those of the files to leave out. Their `*` also matches slashes, so
    they may bring more files of a dataset than a glob does, of which the others are then left out."""
    if repo_type == "dataset":
        members = outers(file.replace("**/", "*"))
        return [*members, *(f"{member}/*" for member in members)], []
    if file and file.endswith(".gguf"):
        return [file], []
    folder = f"{file.rstrip('/')}/" if file else ""
    return [folder + pattern for pattern in MODEL_FILES], [f"{folder}*/*"]


def repository_files(repository: str, commit: str, repo_type: str) -> list[str]:
    """The names of all files of the repository, as far as an earlier download listed them."""
    try:
        return [file.path for file in get_cached_repo_tree(repository, repo_type=repo_type, revision=commit)]
    except errors.CachedRepoTreeNotFoundError:
        return []


def missing_file_message(file: str | None, names: list[str], repo_type: str) -> str:
    """The error message for a repository that has the files `names`, but not those that are wanted."""
    if repo_type == "dataset":
        return f"expected {file!r}, found none; it holds: {listing(names)}"
    pickles = [name for name in names if name.startswith(file or "") and name.endswith(PICKLES)]
    if pickles:
        return (
            f"expected model.safetensors, found pickled weights ({listing(pickles)}), which can run code and are never "
            "loaded; pin a commit that has safetensors (many repositories have one among their pull requests)"
        )
    return (
        f"expected model.safetensors or a .gguf file{f' at {file!r}' if file else ''}, found none; "
        f"name its folder or the .gguf file in model.file; it holds: {listing(names)}"
    )


def check(path: Path, repository: str) -> None:
    """Compare a large file with its sha256, its name in the hub's cache; the library compares sizes only.

    Raises:
        PipelineError: they differ; the file is removed, so that the next run downloads it again.
    """
    sha256 = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", sha256) and (found := digest(path)) != sha256:
        path.resolve().unlink()
        raise PipelineError(
            f"hub:{repository}: {path.name}: expected sha256 {sha256}, found {found}; the damaged file was removed, "
            "run again to download it"
        )


def stated_license(folder: Path) -> str:
    """The licence that the card in a repository's folder states in its front matter."""
    try:
        card = (metadata_load(folder / CARD) if (folder / CARD).is_file() else None) or {}
    except (ValueError, yaml.YAMLError):
        card = {}
    stated = card.get("license_name") or card.get("license") or "not stated"
    return ", ".join(stated) if isinstance(stated, list) else str(stated)


def current_commit_hint(repository: str, revision: str, repo_type: str) -> str:
    """The current commit of a branch or tag, or else of the main branch, as text for an error message."""
    for name, said in (
        (revision, "which is today"),
        ("main", "and its main branch is today"),
    ):
        with suppress(OSError, ValueError, errors.HTTPError, errors.RevisionResolutionError):
            commit = HfApi().resolve_revision(repository, repo_type=repo_type, revision=name).resolved
            return f", {said} {commit}; pin that"
    return "; pin a commit of its history"


@contextmanager
def explained(repository: str, commit: str | None = None) -> Iterator[None]:
    """Turn the library's errors into one line that names the repository, the cause and the remedy.

    Args:
        commit: what is downloaded; None: something is uploaded.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, errors.HTTPError) as error:
        raise PipelineError(f"hub:{repository}: {reason(error, commit)}") from None


def reason(error: Exception, commit: str | None) -> str:
    """What an error of `huggingface_hub` means to the user."""
    if isinstance(error, errors.LocalEntryNotFoundError | RuntimeError) and error.__cause__:
        error = error.__cause__  # what made the library look in its cache, or an upload fail
    if isinstance(error, errors.HFValidationError):
        return "expected hub:ORG/NAME"
    if isinstance(error, errors.GatedRepoError):
        return "gated; accept its terms on its page on the hub, and set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one; check the name, or set HF_TOKEN to a token with access"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no commit {commit}; correct the revision"
    if isinstance(error, errors.OfflineModeIsEnabled):
        if commit is None:
            return "HF_HUB_OFFLINE forbids an upload; unset it"
        return (
            "missing or incomplete in the hub's cache, and HF_HUB_OFFLINE forbids a download; unset it, or copy the "
            "cache (HF_HOME) from a machine that has downloaded it"
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        remedies = {
            401: "the hub does not know this token; correct HF_TOKEN",
            403: f"this token may not {'read it' if commit else 'write to it'}; set HF_TOKEN to one that may",
            429: "too many requests in every attempt; wait some minutes, or set HF_TOKEN, which raises the limit",
        }
        return f"HTTP {status}: {remedies.get(status, 'the hub failed; run again later, what arrived is kept')}"
    said = str(error).strip().partition("\n")[0]
    return (
        f"the {'download' if commit else 'upload'} failed ({said or type(error).__name__}); check the network and "
        "HF_ENDPOINT, and run again: what arrived whole is kept"
    )
