"""Runs DVC, and each stage that DVC runs, in copies of this process: it has imported what takes them seconds each.

    python tests/forks.py

Every line of its standard input is a request as JSON: the `folder`, the `arguments` of DVC, the `environment`, and the
files that take what DVC prints (`stdout`, `stderr`). The answer is a line with DVC's exit status.
"""

import importlib
import json
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
        request = json.loads(line)
        child = copied(partial(dvc_in, **request))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def copied(run: Callable[[], int]) -> int:
    """Run a function in a copy of this process; the number of that process, which ends with the function's status."""
    if child := os.fork():
        return child
    status = 1
    try:
        status = run()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def dvc_in(folder: str, arguments: Sequence[str], environment: Mapping[str, str], stdout: str, stderr: str) -> int:
    """DVC's exit status."""
    for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    enter(folder, environment)
    sys.argv = ["dvc", *arguments]
    with mock.patch.object(dvc.stage.run, "subprocess", SimpleNamespace(Popen=Stage)):
        return dvc.cli.main(arguments)


def enter(folder: str, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


class Stage:
    """What DVC waits for: `python -m stages.NAME` in a copy of this process."""

    def __init__(self, command: Sequence[str], *, cwd: str, env: Mapping[str, str], **_: object) -> None:
        python, option, module = command[-1].split()
        assert (python, option) == ("python", "-m")
        self.child = copied(partial(self.run, module, cwd, env))

    @staticmethod
    def run(module: str, folder: str, environment: Mapping[str, str]) -> int:
        enter(folder, environment)
        sys.argv, sys.path[0] = ["-m"], folder
        runpy._run_module_as_main(module)
        return 0

    def communicate(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


if __name__ == "__main__":
    main()
