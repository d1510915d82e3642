"""Errors a user can mend: one clear line and a non-zero exit instead of a traceback."""

import sys
from collections.abc import Callable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders in which the stages leave their outputs."""


class PipelineError(Exception):
    """Says what was expected, what was found and how to mend it, in one line."""

    exit_status = 1


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists them all, one a line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, or an output of another stage that is missing, becomes one line and an exit."""
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
    """Print the error's message; returns the exit status it asks for."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status
