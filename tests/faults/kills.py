"""Kill a run at a random moment, and see whether the next run ends as if nothing had happened.

Everything about a kill follows from its seed: what runs, whether its outputs are there already, which process gets
which signal, and when. The machine's speed alone decides what the process was doing at that moment.
"""

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import Project
from ruamel.yaml import YAML

PYTHON = (sys.executable, "-m")

SOUGHT, COMPARED = "sought", "compared"
"""How the names of experiments begin: those of the search, which are all the same, and of one that is evaluated."""

COMMANDS = {
    "predict": (*PYTHON, "stages.predict", "--input", "given.csv", "--text", "text", "--output", "answers.parquet"),
    "export": (*PYTHON, "stages.export"),
    "export --adapter": (*PYTHON, "stages.export", "--adapter"),
    "report --rev": (*PYTHON, "stages.report", "--rev", "HEAD"),
    "search": (*PYTHON, "stages.search", "--trials", "2", "--name", SOUGHT, "lora.r=4"),
    "experiments": (*PYTHON, "stages.experiments", COMPARED, "--by", "lora.r", "--plot", "curve.png"),
}
"""Commands that are killed, besides the stages."""

MADE = {
    "predict": "answers.parquet",
    "export": "models/merged",
    "export --adapter": "models/published",
    "experiments": "curve.png",
}
"""What these commands write."""

ROWS, CHUNKS = 4_500, 8
"""Rows that `predict` gets, and the chunks in which it answers them."""

ALL = "all stages"
"""A `dvc repro` for which nothing has been made yet."""

TARGETS = ("process", "DVC", "group")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

NOT_COMPARED = {".git", ".dvc", "__pycache__", ".pytest_cache"}
"""Folders that Git, DVC and Python keep for themselves."""

SECONDS = 600
"""The longest that a run may take: one that hangs is a fault."""


@dataclass(frozen=True)
class Kill:
    """What is killed, how and when."""

    seed: int
    work: str
    """A stage, `ALL`, or one of `COMMANDS`."""
    again: bool
    """Whether the outputs are there from an earlier run."""
    target: str
    """`process`: the stage's or command's own process; `DVC`; or `group`: all processes, as Ctrl-C in a terminal."""
    signal: signal.Signals
    share: float
    """When, as a share of the time that the run takes if nothing disturbs it; see `wait`."""

    def __str__(self) -> str:
        outputs = "outputs there" if self.again else "no outputs"
        return f"seed {self.seed}: {self.work} ({outputs}), {self.signal.name} to {self.target} at {self.share:.0%}"


def draw(seed: int, stages: list[str]) -> Kill:
    """The kill of a seed: one in ten of a whole run, one in five of a command, else of a stage."""
    chance = random.Random(seed)
    work = chance.choices((ALL, chance.choice(list(COMMANDS)), chance.choice(stages)), (1, 2, 7))[0]
    return Kill(
        seed=seed,
        work=work,
        again=chance.random() < 0.5,
        target=chance.choice(("process", "group") if work in COMMANDS else TARGETS),
        signal=chance.choice(SIGNALS),
        share=chance.random(),
    )


def prepare(project: Project, kill: Kill) -> tuple[str, ...]:
    """Put a finished project back to before the work; returns the command that does it."""
    pipeline = YAML(typ="safe").load(project.folder / "dvc.yaml")["stages"]
    if kill.work in COMMANDS:
        if kill.work in MADE and not kill.again:
            remove(project.folder / MADE[kill.work])
        if kill.work == "search" and not kill.again:
            for ref in experiments(project):
                project.run("git", "update-ref", "-d", ref) if f"/{SOUGHT}-" in ref else None
            remove(project.folder / ".dvc/cache/runs")
        return COMMANDS[kill.work]
    stages = list(pipeline) if kill.work == ALL else [kill.work]
    lock = project.folder / "dvc.lock"
    locked = YAML(typ="safe").load(lock)
    for stage in stages:
        del locked["stages"][stage]
        outs = [out for group in ("outs", "metrics", "plots") for out in pipeline[stage].get(group, [])]
        for out in outs if not kill.again else []:
            remove(project.folder / (out if isinstance(out, str) else next(iter(out))))
    YAML().dump(locked, lock)
    remove(project.folder / ".dvc/cache/runs")
    return ("dvc", "repro")


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass
class Killed:
    """A run that was killed, and what it said."""

    alone: bool
    """Whether the target had ended before the signal came."""
    status: int
    errors: str


def run_and_kill(project: Project, command: tuple[str, ...], kill: Kill, seconds: float, scratch: Path) -> Killed:
    """Start the command, and send the signal after so many seconds; waits for the command, not for its children."""
    with (scratch.parent / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        wait(process, project, kill, seconds)
        target = chosen(process, kill)
        try:
            if target is None:
                raise ProcessLookupError
            (os.killpg if kill.target == "group" else os.kill)(target, kill.signal)
            alone = False
        except ProcessLookupError:
            alone = True
        status = process.wait(SECONDS)
        errors.seek(0)
        return Killed(alone, status, errors.read())


def wait(process: subprocess.Popen, project: Project, kill: Kill, seconds: float) -> None:
    """Wait for the moment of the kill, or for the end: so many seconds; or for `predict`, most of whose time passes
    before it answers anything, so many chunks."""
    if kill.work != "predict":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return
    while process.poll() is None and len(answered(project)) < int(kill.share * CHUNKS):
        time.sleep(0.01)


def answered(project: Project) -> list[Path]:
    """The chunks that a `predict` which was killed has answered."""
    return list(project.folder.glob(".cache/checkpoints/predict-*/parts/part-*"))


def chosen(process: subprocess.Popen, kill: Kill) -> int | None:
    """The number of the process, or of the group, that is to be killed; None: it has ended.

    If DVC runs no stage at this moment, the next one is waited for.
    """
    if kill.target != "process" or kill.work in COMMANDS:
        return process.pid if process.poll() is None else None
    while process.poll() is None:
        try:
            for child in psutil.Process(process.pid).children(recursive=True):
                if "-m" in (line := child.cmdline()) and line[line.index("-m") + 1].startswith("stages."):
                    return child.pid
        except (psutil.Error, IndexError):
            pass
        time.sleep(0.01)
    return None


def environment(scratch: Path) -> dict[str, str]:
    """The environment of a run, whose temporary files are in `scratch`, by which its processes are known, too."""
    scratch.mkdir(exist_ok=True)
    return os.environ | {"TMPDIR": str(scratch)}


def left_running(scratch: Path) -> list[str]:
    """The command lines of processes with that folder for their temporary files that are alive."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(scratch) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def tracebacks(errors: str) -> list[str]:
    """The tracebacks in what a run has said, except for DVC's own: Ctrl-C gives one while DVC is imported, or makes a
    progress bar."""
    return [text for text in errors.split("Traceback")[1:] if not re.search('/(bin|site-packages)/dvc[/"]', text)]


def wait_for_end(scratch: Path) -> None:
    """Wait, as long as a run may take, for the processes of `left_running`."""
    until = time.monotonic() + SECONDS
    while left_running(scratch) and time.monotonic() < until:
        time.sleep(0.1)


def contents(project: Project) -> dict[str, str | dict]:
    """The sha256 of every file of the project, what dvc.lock says, and what Git sees; folders are listed if empty."""
    found = {}
    for path in sorted(project.folder.rglob("*")):
        name = path.relative_to(project.folder)
        if NOT_COMPARED.isdisjoint(name.parts) and str(name) not in ("dvc.lock", ".cache/checkpoints", ".cache"):
            if path.is_file():
                found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif not any(path.iterdir()):
                found[f"{name}/"] = "an empty folder"
    found["dvc.lock"] = YAML(typ="safe").load(project.folder / "dvc.lock")["stages"]
    found |= experiments(project)
    found["git status"] = project.run("git", "status", "--porcelain", "--ignored", ":!dvc.lock").stdout
    return found


def experiments(project: Project) -> dict[str, str]:
    """The hash of what each experiment has in Git, by its reference."""
    listed = project.run("git", "for-each-ref", "--format=%(refname) %(tree)", "refs/exps").stdout
    return dict(line.split(" ") for line in listed.splitlines() if len(line.split("/")) == 5)


def damaged(project: Project) -> list[str]:
    """The files of DVC's cache whose content is not what their names say."""
    home = project.folder / ".dvc/cache/files/md5"
    files = [path for path in home.glob("??/*") if len(path.name) == 30 and path.is_file()]
    return [
        str(path.relative_to(home))
        for path in files
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name
    ]


def differences(found: dict, expected: dict) -> list[str]:
    """What another run has left, lost or changed, a line each."""
    names = sorted(found.keys() | expected.keys())
    words = {(True, False): "left over", (False, True): "missing", (True, True): "changed"}
    return [
        f"{name} {words[name in found, name in expected]}" for name in names if found.get(name) != expected.get(name)
    ]
