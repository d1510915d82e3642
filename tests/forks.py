"""Runs DVC, and each stage that DVC runs, in copies of this process: it has imported what takes them seconds each.

    python tests/forks.py

Every line of its standard input is a request as JSON: the `folder`, the `arguments` of DVC, the `environment`, and the
files that take what DVC prints (`stdout`, `stderr`). The answer is a line with DVC's exit status.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from unittest import mock

import dvc.cli
import dvc.stage.run
import torch
import transformers

SLOW = "cleanlab datasets dvc_render evaluate matplotlib.pyplot peft pydantic scmrepo.git sklearn.linear_model"
for slow in SLOW.split():
    importlib.import_module(slow)
for slow in ("LlamaForSequenceClassification", "PreTrainedTokenizerFast", "Trainer"):
    getattr(transformers, slow)  # imports it


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(in_copy(run_dvc, **json.loads(line)), flush=True)


def in_copy(function: Callable[..., None], **arguments: object) -> int:
    """Call a function in a copy of this process; the status with which that ends."""
    process = multiprocessing.get_context("fork").Process(target=function, kwargs=arguments)
    process.start()
    process.join()
    return process.exitcode


def run_dvc(folder: str, arguments: Sequence[str], environment: Mapping[str, str], stdout: str, stderr: str) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    enter(folder, environment)
    sys.argv = ["dvc", *arguments]
    with mock.patch.object(dvc.stage.run, "subprocess", SimpleNamespace(Popen=Stage)):
        sys.exit(dvc.cli.main(arguments))


class Stage:
    """What DVC takes for the process of a stage; it has ended."""

    def __init__(self, command: Sequence[str], *, cwd: str, env: Mapping[str, str], **_: object) -> None:
        python, option, module = command[-1].split()
        assert (python, option) == ("python", "-m")
        self.returncode = in_copy(run_stage, module=module, folder=cwd, environment=env)

    def communicate(self) -> None:
        """Nothing is left to wait for."""


def run_stage(module: str, folder: str, environment: Mapping[str, str]) -> None:
    enter(folder, environment)
    sys.argv, sys.path[0] = ["-m"], folder
    runpy._run_module_as_main(module)


def enter(folder: str, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


if __name__ == "__main__":
    main()
