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
from stages.backbone.states import FILES
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
        self.done = found_done(folder, rows)
        if self.done:
            self.stored = store.open_states(folder, rows, "r+")
        else:
            self.stored = store.create_states(folder, rows, about)

    def rows_done(self, batch_size: int) -> int:
        """The number of rows in the batches that are done."""
        return len(self.rows) - sum(map(len, self.left(batch_size)))

    def left(self, batch_size: int) -> list[np.ndarray]:
        """The batches that are not done; always of the same size."""
        return [batch for batch in self.rows.to_encode(self.stored, batch_size) if int(batch[0]) not in self.done]

    def of_rows(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """The states of each of these rows, (tokens, hidden), as they are stored."""
        return (self.stored[index] for index in indices)

    def note(self, batch: np.ndarray) -> None:
        """Count a batch as done, and write it down if it is time."""
        self.done.add(int(batch[0]))
        if self.pace.due:
            self.save()

    def save(self) -> None:
        """Bring the states to the disk, then write down what is done."""
        with self.pace.saving():
            for array in self.stored.arrays:
                array.flush()
            files.write_json(self.folder / DONE, sorted(self.done))


def publish_states(home: Path, folder: Path) -> None:
    """Put the states in `home`, which are whole, into `folder`: as second names of the files, or by moving them."""
    for path in home.glob(FILES):
        try:
            os.link(path, folder / path.name)
        except OSError:  # file systems without hard links, and other disks
            (home / DONE).unlink(missing_ok=True)
            shutil.move(path, folder / path.name)


def found_done(folder: Path, rows: store.Rows) -> set[int]:
    """The first rows of the batches whose states a folder has; none if one of its files is missing or damaged."""
    try:
        store.open_states(folder, rows)  # of a file that was cut, "r+" would fill up the rest with zeros
        return set(json.loads((folder / DONE).read_text()))
    except (OSError, ValueError, EOFError):  # an empty file
        return set()
