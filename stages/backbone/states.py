"""The stored states of a split on disk: memory-mapped, in files of a bounded size, each row whole in one of them.

The files hold the rows in the order of their source, which stays when a row is added or removed; the order of a split
does not. DVC transfers files in parallel, and of the files only those that changed.
"""

import errno
import os
import resource
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stages.backbone.device import to_cpu

FILES = "states-*.npy"
"""The files of a split; in the place of the star is their number."""

MOST_BYTES = 2**28
"""Of states in a file, unless a single row has more than half of them."""

STORED_AS = {"float32": np.float32, "bfloat16": np.int16}
"""How NumPy, which has no bfloat16, holds each dtype's bits."""


@dataclass(frozen=True, kw_only=True)
class States:
    """The states of the rows of a split."""

    arrays: list[np.ndarray]
    """Of each file, (tokens, hidden)."""
    places: np.ndarray
    """Of each row its file, its first token and its end there, (rows, 3)."""

    @classmethod
    def of(cls, arrays: list[np.ndarray], *, lengths: np.ndarray, order: np.ndarray) -> Self:
        """The states in the arrays of all files.

        Args:
            lengths: tokens of each row, (rows,).
            order: the rows as they are in the files, (rows,).

        Raises:
            ValueError: the arrays are not those of these rows.
        """
        sizes, tokens = np.array([len(array) for array in arrays]), lengths[order]
        ends, files_end = np.cumsum(tokens), np.cumsum(sizes)
        if files_end[-1] != ends[-1]:
            raise ValueError("its states are those of more or fewer tokens")
        numbers = np.searchsorted(files_end, ends)
        ends -= (files_end - sizes)[numbers]
        if (ends < tokens).any():
            raise ValueError("a file of its states ends within a row")
        places = np.empty((len(order), 3), dtype=np.int64)
        places[order] = np.stack([numbers, ends - tokens, ends], axis=1)
        return cls(arrays=arrays, places=places)

    def __getitem__(self, index: int) -> np.ndarray:
        """The states of a row as they are stored, (tokens, hidden)."""
        number, start, end = self.places[index].tolist()
        return self.views[number][start:end]

    @cached_property
    def views(self) -> list[np.ndarray]:
        """The arrays without what `np.memmap` adds, which makes taking a part of one slow; what stands for one on a Ray
        cluster (stages/compute/cluster_tasks.py) stays as it is."""
        return [np.asarray(array) if isinstance(array, np.memmap) else array for array in self.arrays]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: other processes open the arrays by their names (stages/compute/pool.py), and copy views."""
        return {"arrays": self.arrays, "places": self.places}

    @property
    def hidden_size(self) -> int:
        return self.arrays[0].shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.arrays[0].dtype

    def rows_by_file(self) -> list[np.ndarray]:
        """The rows in each file, in its order."""
        order = np.lexsort((self.places[:, 1], self.places[:, 0]))
        return np.split(order, np.cumsum(np.bincount(self.places[:, 0]))[:-1])


def file_sizes(lengths: np.ndarray, *, token_bytes: int, content: Callable[[int], bytes]) -> list[int]:
    """The tokens of each file.

    A file ends after that row, of those with which it has half of `MOST_BYTES` to all, whose content has the smallest
    checksum. So where it ends is a matter of the rows near there, and what changes elsewhere leaves it as it is.

    Args:
        lengths: tokens of each row, in the order of the files, (rows,).
        content: of a row, by its place in this order.
    """
    ends, cuts, most = np.cumsum(lengths), [0], MOST_BYTES // token_bytes
    while ends[-1] - cuts[-1] > most:
        first = np.searchsorted(ends, cuts[-1] + max(most // 2, 1))
        stop = np.searchsorted(ends, cuts[-1] + most, side="right")
        last = min(range(first, max(first + 1, stop)), key=lambda place: zlib.crc32(content(place)))
        cuts.append(int(ends[last]))
    return np.diff(np.unique([*cuts, ends[-1]])).tolist()


def size(tokens: int, *, hidden_size: int, dtype: str) -> int:
    """Bytes on disk of the states of that number of tokens."""
    return tokens * hidden_size * np.dtype(STORED_AS[dtype]).itemsize


def create_files(folder: Path, sizes: list[int], *, hidden_size: int, dtype: str) -> list[np.ndarray]:
    """The arrays of new files for so many tokens each, whose space on the disk is reserved."""
    allow_open_files(len(sizes))
    arrays = []
    for number, tokens in enumerate(sizes):
        path = folder / file_name(number)
        arrays.append(np.lib.format.open_memmap(path, "w+", STORED_AS[dtype], (tokens, hidden_size)))
        reserve(path)
    return arrays


def reserve(path: Path) -> None:
    """Give a file whose size is set its space on the disk: else a full disk ends the process that writes to its memory
    map by a signal (SIGBUS).

    Raises:
        OSError: there is not enough.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS has none
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot
                raise


def open_files(folder: Path, mode: str) -> list[np.ndarray]:
    """The arrays of the files in a folder, of the first one if there are none; `mode` as in `np.load`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is damaged.
    """
    found = sorted(folder.glob(FILES)) or [folder / file_name(0)]
    allow_open_files(len(found))
    return [np.load(path, mmap_mode=mode) for path in found]


def file_name(number: int) -> str:
    """The name of a file by its number."""
    return FILES.replace("*", f"{number:05}")


def allow_open_files(more: int) -> None:
    """Raise the number of files that this process may have open, as far as it is allowed: each memory map is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def as_stored(hidden: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """The states in the dtype in which they are stored."""
    return to_cpu(hidden if dtype == np.float32 else hidden.bfloat16().view(torch.int16)).numpy()


def as_computed(stored: np.ndarray) -> torch.Tensor:
    """Stored states in the dtype whose bits they hold."""
    tensor = torch.from_numpy(stored)
    return tensor.view(torch.bfloat16) if stored.dtype == np.int16 else tensor
