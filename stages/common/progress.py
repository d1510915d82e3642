"""What a stage shows while it works: a line at its start, a bar, and a line at its end, all on standard error.

Where standard error is no terminal (a file, a CI's log), a line at every 10 % takes the place of the bar.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from stages.common.texts import printable

STEP = 0.1
"""Share of the work after which a line is printed where there is no terminal."""

SECONDS = 10
"""The least time between two such lines: what takes less has none, so that a run's log stays short."""


SILENT = "STAGES_SILENT"
"""The environment variable with which a process shows nothing."""


def silence() -> None:
    """Show nothing from now on: another process does."""
    os.environ[SILENT] = "1"


def say(line: str) -> None:
    """Print a line, above the bar if there is one."""
    if SILENT not in os.environ:
        tqdm.write(printable(line), file=sys.stderr)


@contextmanager
def bar(label: str, *, total: int | None, unit: str, hidden: bool = False) -> Iterator["tqdm | Lines"]:
    """What shows how much of `total` is done; its `update` takes how much more is, its `set_postfix_str` a remark.

    Args:
        total: None: no one knows.
        unit: what is counted, in the singular.
        hidden: show nothing.
    """
    if hidden or SILENT in os.environ or not sys.stderr.isatty():
        yield Lines(label, total=total, unit=unit, hidden=hidden)
        return
    options = {"desc": label, "total": total, "unit": unit, "unit_scale": unit == "byte"}
    with tqdm(**options, leave=False, dynamic_ncols=True) as on_terminal:
        yield on_terminal


class Lines:
    """Takes the place of a bar: prints a line whenever another tenth of the work is done, or without a known total has
    grown by a tenth."""

    def __init__(self, label: str, *, total: int | None, unit: str, hidden: bool) -> None:
        self.label, self.total, self.unit, self.hidden = label, total, unit, hidden
        self.done, self.printed, self.remark = 0, 0, ""
        self.begin = self.last = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count what was done."""
        self.done += count
        now = time.monotonic()
        more = self.done - self.printed
        if self.hidden or not more or more < STEP * (self.total or self.done) or now - self.last < SECONDS:
            return
        self.printed, self.last = self.done, now
        remark = f", {self.remark}" if self.remark else ""
        if self.total is None:
            say(f"{self.label}: {self.done:,} {self.unit}s{remark}")
            return
        left = tqdm.format_interval((now - self.begin) * (self.total - self.done) / self.done)
        say(f"{self.label}: {self.done:,} of {self.total:,} {self.unit}s, {left} left{remark}")

    def set_postfix_str(self, remark: str) -> None:
        """What the next line says besides."""
        self.remark = remark
