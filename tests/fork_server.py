"""Runs DVC, and each stage that DVC runs, in forks of one process, which has imported what takes them seconds each.

    python tests/fork_server.py

Every line of its standard input is a request as JSON: the `folder`, the `arguments` of DVC, the `environment`, and the
files that take what DVC prints (`stdout`, `stderr`). The answer is a line with DVC's exit status.

Forks differ from separate processes: all have one hash seed, the warning filters of what is imported here, and what
libraries but torch read from the environment when they are imported; and nothing runs that is registered with atexit.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import dvc.cli
import dvc.stage.run
import torch
import transformers
from dvc.stage.exceptions import StageCmdFailedError

os.fsync = lambda handle: None  # no test cuts the power

for slow in ("datasets", "dvc_render", "evaluate", "peft", "pydantic", "scmrepo.git", "sklearn.linear_model"):
    importlib.import_module(slow)
for slow in ("LlamaForSequenceClassification", "PreTrainedTokenizerFast", "Trainer"):
    getattr(transformers, slow)  # imports it

SECONDS = 600
"""The longest that DVC or a stage may take: one that hangs is ended by SIGALRM."""


def main() -> None:
    gc.freeze()  # no fork looks for garbage among what is imported
    for line in sys.stdin:
        print(in_fork(run_dvc, **json.loads(line)), flush=True)


def in_fork(function: Callable[..., None], **arguments: object) -> int:
    """Call a function in a fork; the status with which that ends."""
    process = multiprocessing.get_context("fork").Process(target=function, kwargs=arguments)
    process.start()
    process.join()
    return process.exitcode


def run_dvc(folder: str, arguments: Sequence[str], environment: Mapping[str, str], stdout: str, stderr: str) -> None:
    for number, path in enumerate((os.devnull, stdout, stderr)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    enter(folder, environment)
    sys.argv = ["dvc", *arguments]
    with mock.patch.object(dvc.stage.run, "_run", run_command):
        sys.exit(dvc.cli.main(arguments))


def run_command(_: str, command: str, *, cwd: str, env: Mapping[str, str], **__: object) -> None:
    """What DVC does with the command of a stage, in a fork."""
    python, option, module = command.split()
    assert (python, option) == ("python", "-m")
    if status := in_fork(run_stage, module=module, folder=cwd, environment=env):
        raise StageCmdFailedError(command, status)


def run_stage(module: str, folder: str, environment: Mapping[str, str]) -> None:
    enter(folder, environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv, sys.path[0] = ["-m"], folder
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def enter(folder: str, environment: Mapping[str, str]) -> None:
    signal.alarm(SECONDS)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


if __name__ == "__main__":
    main()
