"""Errors that a user can fix: one clear line and a non-zero exit status instead of a traceback."""

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from stages.common.texts import printable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders to which the stages write their outputs."""

UNFINISHED = ".unfinished"
"""The ending of a temporary folder, see `stages.common.files.temporary`."""

FREE_SPACE = "free some space, for example with `dvc gc --workspace --all-commits`, and run the command again"

CACHED = " (DVC's cache takes as much again where it is on another disk or copies: cache.type)"
"""Why an output needs more space than its own."""

ALLOW = "give this user the permission, for example with chmod or chown, and run the command again"

REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or use a file system without it",
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
    errno.EROFS: "run the command in a copy of the repository that can be written to",
    errno.EIO: "the disk or its connection fails: copy the repository to another one",
    errno.ESTALE: "the disk or its connection fails: copy the repository to another one",
    errno.EISDIR: "move away what is there, and run the command again",
    errno.ENOTDIR: "move away what is there, and run the command again",
    errno.ELOOP: "move away what is there, and run the command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do about the errors of an operating system, by their number."""

SHORT_WRITE = r"requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+ vs"
"""What NumPy and torch say if less was written than there was."""

CLOSED_PIPE = 128 + 13
"""The exit status of a command that is ended by SIGPIPE, as a shell reports it."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a command to end: Ctrl-C, `kill` or a scheduler, a closed terminal."""

PATIENCE = 1.0
"""Seconds in which a repeated signal, such as `timeout` sends, leaves the first one the time to clean up."""

AGAIN = 0.05
"""Seconds after which a signal that was swallowed comes again."""


class PipelineError(Exception):
    """Says what was expected, what was found and how to fix it, in one line."""

    exit_status = 1


class Interrupted(SystemExit):
    """A signal asks the command to end; notes (`add_note`) say what is kept."""


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists all of them, one per line."""

    exit_status = 2


def run_script(main: Callable[[], None], about: str) -> None:
    """`run` for a script without arguments, such as a stage, whose settings are in params.yaml; `--help` prints
    `about`."""
    script, layout = Path(sys.argv[0]), argparse.RawDescriptionHelpFormatter
    name = f"python -m {script.parent.name}.{script.stem}"
    argparse.ArgumentParser(prog=name, description=about, formatter_class=layout).parse_args()
    run(main)


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, a missing output of another stage, or what the operating system refuses ends it
    with a one-line message.

    A reader of standard output that wants no more of it, such as `head`, ends it without a message. A character that
    standard output's encoding lacks is printed by its number, as on standard error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
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
    except Exception as error:
        if told := explained(error):
            sys.exit(report(told))
        raise


def explained(error: Exception, path: Path | None = None) -> PipelineError | None:
    """What the operating system refused, as one line with the file and the remedy; None: the error is another one.

    Args:
        path: the file or folder that is read or written, unless the error names a file besides it.
    """
    if isinstance(error, PipelineError):
        return None
    if isinstance(error, MemoryError):
        return PipelineError("not enough memory; end other programs, or lower batch_size or data.limit")
    code = number(error)
    if code not in REMEDIES:
        return None
    named = getattr(error, "filename", None)
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    where = path if path and (full or not named or UNFINISHED in str(named)) else named
    where = re.sub(rf"(^|/)\.([^/]*)-\w*{UNFINISHED}(/fresh)?", r"\1\2", str(where or ""))
    return PipelineError(f"{where and f'{where}: '}{os.strerror(code)}; {REMEDIES[code]}")


def number(error: Exception) -> int | None:
    """The operating system's number of an error; Rust and Arrow state it in the text, NumPy and torch leave it out."""
    if code := getattr(error, "errno", None):
        return code
    if found := re.search(r"(?:\(os error |\[errno )(\d+)", str(error), re.IGNORECASE):
        return int(found[1])
    return errno.ENOSPC if re.search(SHORT_WRITE, str(error)) else None


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

    A second signal, unless it comes within `PATIENCE`, ends the process at once. Python swallows what is raised while
    an object is destroyed; a signal that came then comes again.
    """
    came: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if len(came) == 1:
            raise Interrupted(128 + number)
        if came[-1] - came[0] > PATIENCE:
            os._exit(128 + number)

    def swallowed(what: Any) -> None:
        if not isinstance(what.exc_value, Interrupted):
            return former_hook(what)
        came.clear()
        threading.Timer(AGAIN, os.kill, (os.getpid(), what.exc_value.code - 128)).start()

    former_hook, sys.unraisablehook = sys.unraisablehook, swallowed
    former = handle_signals(end)
    try:
        yield
    except Interrupted as stopped:
        with contextlib.suppress(OSError):
            line = "; ".join([interrupted(stopped.code - 128), *getattr(stopped, "__notes__", [])])
            print(printable(line), file=sys.stderr, flush=True)
        raise
    finally:
        sys.unraisablehook = former_hook
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
