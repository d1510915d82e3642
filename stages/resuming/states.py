"""The states of a split while they are computed: what an interrupted `encode` leaves, and the next run takes up.

The batches of a split are always the same, longest rows first, so a batch goes by its first row. Which are done is
written down every so many seconds, after their states were: what is done is whole, however the run ends.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.backbone import store
from stages.common import files
from stages.resuming.pace import Pace

DONE = "done.json"
"""The file with the first row of each batch that is done."""


class UnfinishedStates:
    """A split's states in a folder of `stages.resuming.places`, to be filled batch by batch."""

    def __init__(self, folder: Path, rows: store.Rows, about: store.About, *, seconds: float) -> None:
        """Take up what the folder has, or begin.

        Args:
            seconds: between two times that is written down what is done.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.pace = folder, rows, Pace(seconds)
        self.done = found_done(folder)
        if self.done:
            self.array = np.load(folder / store.STATES, mmap_mode="r+")
        else:
            self.array = store.create_states(folder, tokens=len(rows.tokens), about=about)

    def rows_done(self, batch_size: int) -> int:
        """The number of rows in the batches that are done."""
        return len(self.rows) - sum(map(len, self.left(batch_size)))

    def left(self, batch_size: int) -> list[np.ndarray]:
        """The batches that are not done; always of the same size."""
        return [batch for batch in self.rows.by_length(batch_size) if int(batch[0]) not in self.done]

    def of_rows(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """The states of each of these rows, (tokens, hidden), as they are stored."""
        return (self.array[self.rows.offsets[index] : self.rows.offsets[index + 1]] for index in indices)

    def note(self, batch: np.ndarray) -> None:
        """Count a batch as done, and write it down if it is time."""
        self.done.add(int(batch[0]))
        if self.pace.due:
            self.save()

    def save(self) -> None:
        """Bring the states to the disk, then write down what is done."""
        with self.pace.saving():
            self.array.flush()
            files.write_json(self.folder / DONE, sorted(self.done))


def publish_states(home: Path, folder: Path) -> None:
    """Put the states in `home`, which are whole, into `folder`: as a second name of the file, or else by moving it."""
    try:
        os.link(home / store.STATES, folder / store.STATES)
    except OSError:  # file systems without hard links, and other disks
        (home / DONE).unlink()
        shutil.move(home / store.STATES, folder / store.STATES)


def found_done(folder: Path) -> set[int]:
    """The first rows of the batches whose states a folder has; none if one of its files is missing or damaged."""
    try:
        np.load(folder / store.STATES, mmap_mode="r")  # of a file that was cut, "r+" would fill up the rest with zeros
        return set(json.loads((folder / DONE).read_text()))
    except (OSError, ValueError):
        return set()
