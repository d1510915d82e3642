"""The encoded rows of a split on disk: ragged, memory-mapped, without padding.

A split is a folder of arrays. All rows' tokens lie end to end, and `offsets` says where each row starts:

    tokens.bin   (tokens,) int32, without a header, so that tokens can be appended
    types.bin    (tokens,) int8, the token types, likewise; absent where all are 0
    offsets.npy  (rows + 1,) int64; row i is tokens[offsets[i] : offsets[i + 1]]
    labels.npy   (rows,) int64, indices into the class names; (rows, labels) float32, 1 for the labels of a row;
                 or (rows,) float32, numbers
    rows.npy     (texts,) int64, the number of each text's row in its source
    windows.npy  (texts + 1,) int64; text i is the rows windows[i] to windows[i + 1]; absent where each text is one row
    states-*.npy (tokens, hidden) float32, or int16 that holds the bits of bfloat16; absent at depth 0: see
                 stages/backbone/states.py
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stages.backbone.precision import check_finite, multiple_of_tokens
from stages.backbone.states import States, as_computed, as_stored, create_files, file_sizes, open_files, size
from stages.common import files, paths
from stages.common.errors import PipelineError


@dataclass(frozen=True, kw_only=True)
class About:
    """What all splits share. Its file, about.json, is written last: where it exists, the encoding is complete."""

    class_names: list[str]
    """The names of the model's outputs."""
    depth: int
    """Number of blocks below the stored states; 0: no states are stored."""
    hidden_size: int
    dtype: str
    pad_token_id: int
    problem: str
    """The value of `data.problem`."""
    layers: int | None
    """How many layers are in use, the lowest; None: all."""
    max_length: int
    """The most tokens of a row: the rest of a longer text is cut off, or is in further rows."""
    dataset: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What params.yaml leaves to the dataset, by section: data/prepared/dataset.json."""

    def save(self, folder: Path) -> None:
        files.write_json(folder / "about.json", vars(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        values = files.read_json(folder / "about.json")
        with files.reading(folder / "about.json"):
            return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split, as arrays; see the module's docstring for shapes."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    source_rows: np.ndarray
    states: States | None
    pad_token_id: int
    windows: np.ndarray | None = None
    token_types: np.ndarray | None = None
    multiple: int = 1
    """The rows of a batch are padded to a multiple of this number of tokens."""
    max_length: float = math.inf
    """The most tokens of a row, beyond which none is padded: the model may have no more positions."""

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
        """Tokens of each text, (texts,); those that windows share are counted in each window."""
        return self.lengths if self.windows is None else np.add.reduceat(self.lengths, self.windows[:-1])

    def check_sizes(self) -> None:
        """Check that the arrays belong together.

        Raises:
            ValueError: one is shorter or longer than the others say.
        """
        tokens = [len(part) for part in (self.tokens, self.token_types) if part is not None]
        texts = len(self) if self.windows is None else len(self.windows) - 1
        if (tokens, len(self.offsets), len(self.source_rows)) != (
            [self.offsets[-1]] * len(tokens),
            len(self) + 1,
            texts,
        ):
            raise ValueError("its arrays have different lengths")

    @property
    def in_source(self) -> np.ndarray:
        """The rows in the order of their source, (rows,)."""
        return np.argsort(self.source_rows_of(np.arange(len(self))), kind="stable")

    def source_rows_of(self, indices: list[int] | np.ndarray) -> np.ndarray:
        """The number, in its source, of the text to which each of these rows belongs."""
        texts = indices if self.windows is None else np.searchsorted(self.windows, indices, side="right") - 1
        return self.source_rows[texts]

    def check_same_rows(self, source_rows: np.ndarray, where: Path) -> None:
        """Check that a table's rows, by their numbers in the source, are the texts of this split.

        Raises:
            PipelineError: the rows differ, or are in another order.
        """
        if not np.array_equal(source_rows, self.source_rows):
            raise PipelineError(
                f"{where}: expected the rows of data/encoded, found others; run both stages again: dvc repro"
            )

    def pooled(self, values: np.ndarray) -> np.ndarray:
        """The mean of `values`, (rows, columns), over the rows of each text, (texts, columns)."""
        return values if self.windows is None else pooled(values, self.windows)

    def by_length(self, batch_size: int) -> list[np.ndarray]:
        """All rows in batches, see `by_length` below."""
        return by_length(self.lengths, batch_size)

    def to_encode(self, states: States, batch_size: int) -> list[np.ndarray]:
        """All rows in the batches in which `states` are computed: as `by_length`, but each within a file and, where
        there are several, in its order. So the width of a batch, on which last bits depend, changes with no row of
        another file."""
        parts = states.rows_by_file() if len(states.arrays) > 1 else [np.arange(len(self))]
        batches = [part[batch] for part in parts for batch in by_length(self.lengths[part], batch_size)]
        return sorted(batches, key=lambda batch: -self.lengths[batch[0]])

    def width(self, indices: list[int] | np.ndarray) -> int:
        """Tokens to which a batch of these rows is padded."""
        return min(math.ceil(self.lengths[indices].max() / self.multiple) * self.multiple, self.max_length)

    def bytes_of(self, index: int) -> bytes:
        """What the model reads of a row: its tokens, and their types where there are any."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return b"".join(part[span].tobytes() for part in (self.tokens, self.token_types) if part is not None)

    def batch(self, indices: list[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """The rows at `indices` as the model takes them, padded on the right.

        Returns:
            `input_ids` and `attention_mask` (batch, tokens), `labels` (batch,) or (batch, labels), and where they are
            stored, `token_type_ids` (batch, tokens) and `states` (batch, tokens, hidden) in the stored dtype.
        """
        lengths = self.lengths[indices]
        shape = len(lengths), self.width(indices)
        batch = {
            "input_ids": np.full(shape, self.pad_token_id, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "labels": self.labels[indices],
        }
        if self.token_types is not None:
            batch["token_type_ids"] = np.zeros(shape, dtype=np.int64)
        if self.states is not None:
            batch["states"] = np.zeros((*shape, self.states.hidden_size), dtype=self.states.dtype)
        for place, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            span = slice(self.offsets[index], self.offsets[index + 1])
            batch["input_ids"][place, :length] = self.tokens[span]
            batch["attention_mask"][place, :length] = 1
            if self.token_types is not None:
                batch["token_type_ids"][place, :length] = self.token_types[span]
            if self.states is not None:
                batch["states"][place, :length] = self.states[index]
        stored = {"states": as_computed(batch.pop("states"))} if self.states is not None else {}
        return {name: torch.from_numpy(values) for name, values in batch.items()} | stored


def by_length(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices in batches of similar length, longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some texts of a split, as arrays."""

    tokens: np.ndarray
    """The tokens of all rows, end to end, (tokens,)."""
    lengths: np.ndarray
    """Tokens of each row, (rows,)."""
    counts: np.ndarray
    """Rows of each text, (texts,)."""
    labels: np.ndarray
    """The labels of each text, (texts,) or (texts, labels)."""
    source_rows: np.ndarray
    """The number of each text's row in its source, (texts,)."""
    token_types: np.ndarray | None = None
    """The type of each token, (tokens,); None: all are 0."""


def save_tokens(folder: Path, chunks: Iterable[Chunk]) -> int:
    """Write a split's arrays, except for its states, to a new folder; returns the number of its tokens."""
    folder.mkdir()
    lengths, counts, labels, source_rows = [[0]], [[0]], [], []
    with (folder / "tokens.bin").open("wb") as file:
        for chunk in chunks:
            chunk.tokens.astype(np.int32).tofile(file)
            if chunk.token_types is not None:
                with (folder / "types.bin").open("ab") as types:
                    chunk.token_types.astype(np.int8).tofile(types)
            lengths.append(chunk.lengths)
            counts.append(chunk.counts)
            labels.append(np.repeat(chunk.labels, chunk.counts, axis=0))
            source_rows.append(chunk.source_rows)
    offsets, windows = np.cumsum(np.concatenate(lengths)), np.concatenate(counts)
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "labels.npy", np.concatenate(labels))
    np.save(folder / "rows.npy", np.concatenate(source_rows))
    if windows.max() > 1:
        np.save(folder / "windows.npy", np.cumsum(windows))
    return int(offsets[-1])


def pooled(values: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The mean of `values`, (rows, columns), over the rows windows[i] to windows[i + 1] of each text i."""
    return np.add.reduceat(values, windows[:-1]) / np.diff(windows)[:, None].astype(values.dtype)


def create_states(folder: Path, rows: Rows, about: About) -> States:
    """New files for the states of a split, to be filled with `write_states`."""
    how, order = {"hidden_size": about.hidden_size, "dtype": about.dtype}, rows.in_source
    sizes = file_sizes(
        rows.lengths[order], token_bytes=size(1, **how), content=lambda place: rows.bytes_of(order[place])
    )
    return States.of(create_files(folder, sizes, **how), lengths=rows.lengths, order=order)


def open_states(folder: Path, rows: Rows, mode: str = "r") -> States:
    """The states of a split, which stay on disk.

    Args:
        mode: as in `np.load`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file is damaged or missing, or is not of these rows.
    """
    return States.of(open_files(folder, mode), lengths=rows.lengths, order=rows.in_source)


def write_states(states: States, rows: Rows, indices: np.ndarray, hidden: torch.Tensor) -> None:
    """Write the padded hidden states (batch, tokens, hidden) of the rows at `indices` to `states`, without padding.

    Raises:
        PipelineError: some are not finite, or not in the dtype in which they are stored.
    """
    stored, lengths = as_stored(hidden, states.dtype), rows.lengths[indices]
    read = (row[:length] for row, length in zip(as_computed(stored).float().numpy(), lengths, strict=True))
    check_finite(read, rows.source_rows_of(indices), what="encode: states of the frozen layers")
    for index, row, length in zip(indices, stored, lengths, strict=True):
        states[index][:] = row[:length]


def load_splits(folder: Path, about: About, precision: str = "float32") -> dict[str, Rows]:
    """The arrays of every split in a folder, by its name; see `load_rows`."""
    return {name: load_rows(folder / name, about, precision) for name in paths.ALL_SPLITS if (folder / name).exists()}


def load_rows(folder: Path, about: About, precision: str = "float32") -> Rows:
    """A split's arrays; tokens and states stay on disk and are read as they are used.

    Args:
        about: with depth 0, states are not read, nor need they be there.
        precision: of the matrix products on the batches, see `stages.backbone.precision`.

    Raises:
        PipelineError: an array is damaged.
    """
    with files.reading(folder):
        rows = read_rows(folder, about, precision)
        rows.check_sizes()
        return replace(rows, states=open_states(folder, rows)) if about.depth else rows


def read_rows(folder: Path, about: About, precision: str) -> Rows:
    """A split's arrays, as they are, without states."""
    windows, types = folder / "windows.npy", folder / "types.bin"
    return Rows(
        tokens=np.memmap(folder / "tokens.bin", np.int32, mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        labels=np.load(folder / "labels.npy"),
        source_rows=np.load(folder / "rows.npy"),
        states=None,
        pad_token_id=about.pad_token_id,
        windows=np.load(windows) if windows.exists() else None,
        token_types=np.memmap(types, np.int8, mode="r") if types.exists() else None,
        multiple=multiple_of_tokens(precision),
        max_length=about.max_length,
    )
