"""Errors that a user can fix: one clear line and a non-zero exit status instead of a traceback."""

import sys
from collections.abc import Callable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders to which the stages write their outputs."""


class PipelineError(Exception):
    """Says what was expected, what was found and how to fix it, in one line."""

    exit_status = 1


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists all of them, one per line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, or a missing output of another stage, ends it with a one-line message."""
    try:
        main()
    except PipelineError as error:
        sys.exit(report(error))
    except FileNotFoundError as error:
        path = str(error.filename or error)
        if not path.startswith(OUTPUTS):
            raise
        sys.exit(report(PipelineError(f"{path} is missing; make it with: dvc repro")))


def report(error: PipelineError) -> int:
    """Print the error's message; returns its exit status."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status
