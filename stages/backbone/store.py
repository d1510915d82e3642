"""The encoded rows of a split on disk: ragged, memory-mapped, without padding.

A split is a folder of arrays. All rows' tokens lie end to end, and `offsets` says where each row starts:

    tokens.bin   (tokens,) int32, the bare numbers, so that they can be appended
    offsets.npy  (rows + 1,) int64; row i is tokens[offsets[i] : offsets[i + 1]]
    labels.npy   (rows,) int64, indices into the class names; (rows, labels) float32, 1 for those that a row has; or
                 (rows,) float32, numbers
    windows.npy  (texts + 1,) int64; text i is the rows windows[i] to windows[i + 1]; absent where each text is one row
    states.npy   (tokens, hidden) float32, or int16 that holds the bits of bfloat16; absent at depth 0
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch

from stages.backbone.precision import multiple_of_tokens
from stages.common import files

STORED_AS = {"float32": np.float32, "bfloat16": np.int16}
"""How NumPy, which has no bfloat16, holds each dtype's bits."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What all splits share; the file is written last, so where it is, the encoding is complete."""

    class_names: list[str]
    """Of the model's outputs."""
    depth: int
    """Blocks below the stored states; 0: nothing is stored but tokens."""
    hidden_size: int
    dtype: str
    pad_token_id: int
    problem: str = "single_label"
    """The value of `data.problem`."""
    layers: int | None = None
    """The value of `model.layers`."""

    def save(self, folder: Path) -> None:
        files.write_json(folder / "about.json", vars(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(**json.loads((folder / "about.json").read_text()))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split, as arrays; see the module's docstring for shapes."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    states: np.ndarray | None
    pad_token_id: int
    windows: np.ndarray | None = None
    multiple: int = 1
    """Of tokens, to which a batch's rows are padded."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (rows,)."""
        return np.diff(self.offsets)

    @property
    def text_labels(self) -> np.ndarray:
        """The labels of each text, (texts,) or (texts, labels)."""
        return self.labels if self.windows is None else self.labels[self.windows[:-1]]

    @property
    def text_lengths(self) -> np.ndarray:
        """Tokens of each text, those that windows share counted in each, (texts,)."""
        return self.lengths if self.windows is None else np.add.reduceat(self.lengths, self.windows[:-1])

    def pooled(self, values: np.ndarray) -> np.ndarray:
        """The mean over the rows of each text, (texts, columns), of values by row, (rows, columns)."""
        return values if self.windows is None else pooled(values, self.windows)

    def by_length(self, batch_size: int) -> list[np.ndarray]:
        """`by_length` of all rows."""
        return by_length(self.lengths, batch_size)

    def batch(self, numbers: list[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """The named rows as the model takes them, padded on the right.

        Returns:
            `input_ids` and `attention_mask` (batch, tokens), `labels` (batch,) or (batch, labels), and
            `states` (batch, tokens, hidden) in the stored dtype, where states are stored.
        """
        lengths = self.lengths[numbers]
        shape = len(lengths), math.ceil(lengths.max() / self.multiple) * self.multiple
        batch = {
            "input_ids": np.full(shape, self.pad_token_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "labels": self.labels[numbers],
        }
        if self.states is not None:
            batch["states"] = np.zeros((*shape, self.states.shape[1]), dtype=self.states.dtype)
        for place, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
            span = slice(self.offsets[number], self.offsets[number + 1])
            batch["input_ids"][place, :length] = self.tokens[span]
            batch["attention_mask"][place, :length] = 1
            if self.states is not None:
                batch["states"][place, :length] = self.states[span]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        if self.states is not None and self.states.dtype == np.int16:
            tensors["states"] = tensors["states"].view(torch.bfloat16)
        return tensors


def by_length(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row numbers in batches of like length, longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def save_tokens(folder: Path, chunks: Iterable[tuple[list[list[list[int]]], np.ndarray]]) -> None:
    """Write a split to a new folder, a chunk of texts at a time: the tokens of each one's rows, and their labels."""
    folder.mkdir()
    lengths, counts, labels = [0], [0], []
    with (folder / "tokens.bin").open("wb") as file:
        for texts, targets in chunks:
            rows = list(chain.from_iterable(texts))
            np.concatenate(rows).astype(np.int32).tofile(file)
            lengths += map(len, rows)
            counts += map(len, texts)
            labels.append(np.repeat(np.asarray(targets), list(map(len, texts)), axis=0))
    np.save(folder / "offsets.npy", np.cumsum(lengths))
    np.save(folder / "labels.npy", np.concatenate(labels))
    if max(counts) > 1:
        np.save(folder / "windows.npy", np.cumsum(counts))


def pooled(values: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The mean of `values`, (rows, columns), over the rows windows[i] to windows[i + 1] of each text i."""
    return np.add.reduceat(values, windows[:-1]) / np.diff(windows)[:, None].astype(values.dtype)


def size(tokens: int, about: About) -> int:
    """Bytes that the states of so many tokens take on disk."""
    return tokens * about.hidden_size * np.dtype(STORED_AS[about.dtype]).itemsize


def create_states(folder: Path, *, tokens: int, about: About) -> np.memmap:
    """A new (tokens, hidden) array on disk, to be filled with `write_states`."""
    shape = (tokens, about.hidden_size)
    return np.lib.format.open_memmap(folder / "states.npy", "w+", STORED_AS[about.dtype], shape)


def write_states(states: np.memmap, rows: Rows, numbers: np.ndarray, hidden: torch.Tensor) -> None:
    """Put the padded hidden states (batch, tokens, hidden) of the named rows in their places."""
    bits = hidden.cpu() if states.dtype == np.float32 else hidden.bfloat16().view(torch.int16).cpu()
    for number, row in zip(numbers, bits.numpy(), strict=True):
        states[rows.offsets[number] : rows.offsets[number + 1]] = row[: rows.lengths[number]]


def load_rows(folder: Path, about: About, precision: str = "float32") -> Rows:
    """A split's arrays; tokens and states stay on disk and are read as they are used.

    Args:
        precision: of the products that batches go into, see `stages.backbone.precision`.
    """
    states, windows = folder / "states.npy", folder / "windows.npy"
    return Rows(
        tokens=np.memmap(folder / "tokens.bin", np.int32, mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        labels=np.load(folder / "labels.npy"),
        states=np.load(states, mmap_mode="r") if states.exists() else None,
        pad_token_id=about.pad_token_id,
        windows=np.load(windows) if windows.exists() else None,
        multiple=multiple_of_tokens(precision),
    )
