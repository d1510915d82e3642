"""Errors that a user can fix: one clear line and a non-zero exit status instead of a traceback."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from stages.common.texts import printable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders to which the stages write their outputs."""

CLOSED_PIPE = 128 + 13
"""The exit status of a command that is ended by SIGPIPE, as a shell reports it."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a command to end: Ctrl-C, `kill` or a scheduler, a closed terminal."""

PATIENCE = 1.0
"""Seconds in which a repeated signal, such as `timeout` sends, leaves the first one the time to clean up."""


class PipelineError(Exception):
    """Says what was expected, what was found and how to fix it, in one line."""

    exit_status = 1


class Interrupted(SystemExit):
    """A signal asks the command to end; notes (`add_note`) say what is kept."""


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists all of them, one per line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, or a missing output of another stage, ends it with a one-line message.

    A reader of standard output that wants no more of it, such as `head`, ends it without a message.
    """
    try:
        try:
            with interruptible():
                main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its exit
        sys.exit(CLOSED_PIPE)
    except Interrupted as stopped:
        os._exit(stopped.code)  # all is cleaned up; torch's own ending can take seconds
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


def end_at_once_on_signals() -> None:
    """Until `run` is called, for example while modules are imported, a signal ends the process: there is nothing to
    clean up."""

    def end(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"{interrupted(number)}\n".encode())
        os._exit(128 + number)

    handle_signals(end)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have a signal raise `Interrupted` within the block, so that all is cleaned up; then print one line and exit.

    A second signal, unless it comes within `PATIENCE`, ends the process at once.
    """
    came: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if len(came) == 1:
            raise Interrupted(128 + number)
        if came[-1] - came[0] > PATIENCE:
            os._exit(128 + number)

    former = handle_signals(end)
    try:
        yield
    except Interrupted as stopped:
        with contextlib.suppress(OSError):
            line = "; ".join([interrupted(stopped.code - 128), *getattr(stopped, "__notes__", [])])
            print(printable(line), file=sys.stderr, flush=True)
        raise
    finally:
        if not came:  # else the process is about to end
            for number, handler in former.items():
                signal.signal(number, handler)


def interrupted(number: int) -> str:
    """What a command says that a signal ends."""
    return f"interrupted by {signal.Signals(number).name}"


def handle_signals(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Set the handler of the signals in `ENDING` that are not ignored, as `nohup` has it; returns the former ones.

    Signals belong to the main thread: elsewhere nothing is set.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler) for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN
    }
