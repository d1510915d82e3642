"""Errors that a user can fix: one clear line and a non-zero exit status instead of a traceback."""

import os
import sys
from collections.abc import Callable

from stages.common.texts import printable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders to which the stages write their outputs."""


CLOSED_PIPE = 128 + 13
"""The exit status of a command that is ended by SIGPIPE, as a shell reports it."""


class PipelineError(Exception):
    """Says what was expected, what was found and how to fix it, in one line."""

    exit_status = 1


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists all of them, one per line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, or a missing output of another stage, ends it with a one-line message.

    A reader of standard output that wants no more of it, such as `head`, ends it without a message.
    """
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its exit
        sys.exit(CLOSED_PIPE)
    except PipelineError as error:
        sys.exit(report(error))
    except FileNotFoundError as error:
        path = str(error.filename or error)
        if not path.startswith(OUTPUTS):
            raise
        sys.exit(report(PipelineError(f"{path} is missing; make it with: dvc repro")))


def report(error: PipelineError) -> int:
    """Print the error's message; returns its exit status."""
    print(printable(f"error: {error}"), file=sys.stderr)
    return error.exit_status
