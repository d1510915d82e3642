"""Errors a user can mend: one clear line and a non-zero exit instead of a traceback."""

import sys
from collections.abc import Callable


class PipelineError(Exception):
    """Says what was expected, what was found and how to mend it, in one line."""

    exit_status = 1


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists them all, one a line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError` becomes its message on standard error and its exit status."""
    try:
        main()
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
