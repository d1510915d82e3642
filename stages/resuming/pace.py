"""When to save: every so many seconds, but never so often that saving takes much of the time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST_TIME = 0.02
"""Share of the time that saving may take: what takes long to write is written less often."""


class Pace:
    """Tells when it is time to save, given how long that took before."""

    def __init__(self, seconds: float) -> None:
        """Args: seconds: the least time between two saves."""
        self.seconds, self.saved_at, self.cost = seconds, time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() > self.saved_at + max(self.seconds, self.cost / MOST_TIME)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around what saves."""
        began = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - began
