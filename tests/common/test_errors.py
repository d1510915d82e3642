"""Errors a user can mend end in one line and a non-zero exit; others keep their traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from stages.common import errors


def failing(error: Exception):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (errors.PipelineError("expected a, found b"), "error: expected a, found b\n", 1),
        (errors.PipelineError("found \x1b[31mred"), "error: found \\x1b[31mred\n", 1),
        (errors.ParamsError("two problems"), "error: two problems\n", 2),
        (
            FileNotFoundError(2, "No such file", "data/encoded/about.json"),
            "error: data/encoded/about.json is missing; make it with: dvc repro\n",
            1,
        ),
        (
            FileNotFoundError("data/prepared/train.parquet"),
            "error: data/prepared/train.parquet is missing; make it with: dvc repro\n",
            1,
        ),
        (
            FileNotFoundError(2, "No such file", Path("models/base/source.json")),
            "error: models/base/source.json is missing; make it with: dvc repro\n",
            1,
        ),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_status(error, message, status, capsys):
    with pytest.raises(SystemExit) as caught:
        errors.run(failing(error))
    assert caught.value.code == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(2, "No such file", "/etc/absent")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        errors.run(failing(error))


def test_what_the_encoding_of_the_output_lacks_is_printed_by_its_number():
    code = "from stages.common import errors; errors.run(lambda: print('caf\\xe9 \\u2026 \\udcff'))"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caf\xe9 \\u2026 \\udcff\n", b"")


@pytest.mark.parametrize("ending", ["", "sys.exit(1)"])
def test_a_reader_that_stops_early_is_no_error(ending):
    code = f"""
import sys
from stages.common import errors

def main():
    print("a line")
    sys.stdin.read()  # by now the reader has gone
    print("another")
    {ending}

errors.run(main)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True) as done:
        done.stdout.close()
        done.stdin.close()
        assert done.stderr.read() == ""
        assert done.wait() == errors.CLOSED_PIPE


@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [
        ([], None, "ran\n"),
        (["--help"], 0, "usage: python -m stages.train [-h]\n\ntrain: LoRA.\n\n    a command\n"),
        (["train.lr=3"], 2, "unrecognized arguments: train.lr=3\n"),
    ],
)
def test_a_script_without_arguments_refuses_any_and_help_runs_nothing(monkeypatch, capsys, arguments, status, printed):
    monkeypatch.setattr(sys, "argv", ["/somewhere/stages/train.py", *arguments])
    try:
        errors.run_script(lambda: print("ran"), "train: LoRA.\n\n    a command")
    except SystemExit as ended:
        assert ended.code == status
    else:
        assert status is None
    output = capsys.readouterr()
    assert printed in output.out + output.err
    assert ("ran\n" in output.out) == (status is None)
