"""Errors that a user can fix: one clear line and a non-zero exit status instead of a traceback."""

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from stages.common.texts import printable

OUTPUTS = ("data/", "metrics/", "models/")
"""The folders to which the stages write their outputs."""

UNFINISHED = ".unfinished"
"""The ending of a temporary folder, see `stages.common.files.temporary`."""

FREE_SPACE = "free some space, for example with `dvc gc --workspace --all-commits`, and run the command again"

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


class PipelineError(Exception):
    """Says what was expected, what was found and how to fix it, in one line."""

    exit_status = 1


class ParamsError(PipelineError):
    """params.yaml has problems; the message lists all of them, one per line."""

    exit_status = 2


def run(main: Callable[[], None]) -> None:
    """Run `main`; a `PipelineError`, a missing output of another stage, or what the operating system refuses ends it
    with a one-line message.

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
