"""Reuse of the states of an earlier run: rows that it encoded are not computed again.

A row's states follow from its tokens and from the frozen layers. Their last bits also depend on its batch: on the
width to which it was padded, on whether any of its rows had padding, which decides how attention is computed, and on
the two exceptions below (`FEW`, `VECTOR`). They do not depend on the other rows (measured with MKL and oneDNN, AVX2 and
AVX-512). So a row is identified by its tokens and by these properties of its batch, and the reused states are, bit for
bit, what this run would compute. Wherever known rows are computed again beside new ones, and on one batch at least, the
bits are compared: if they differ, as on another machine, nothing is reused. On a GPU nothing is reused either.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from stages.backbone import parallel, store
from stages.backbone.device import device, to_device
from stages.backbone.states import STORED_AS, States, as_stored
from stages.common import files

PREFIX = "prefix.json"
"""The file that holds the `fingerprint` of a folder's states."""

CODE = Path(store.__file__).parent
"""The package whose code, with this module, computes the states."""

FEW = 4
"""Tokens: a product of fewer has other last bits (MKL always, oneDNN for a single one)."""

VECTOR = 32
"""Numbers that an activation function computes at once; what is left over is computed by other code (SiLU, GELU)."""


def fingerprint(base: Path, about: store.About, *, precision: str, batch_size: int) -> dict:
    """All that the states of a row depend on, besides its tokens and its batch."""
    source, code = base / "source.json", (*sorted(CODE.glob("*.py")), Path(__file__))
    return {
        "base_model": files.read_json(source).get("sha256") if source.exists() else None,
        "depth": about.depth,
        "dtype": about.dtype,
        "precision": precision,
        "batch_size": batch_size,
        "code": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in code},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def row_by_row(model: nn.Module) -> bool:
    """Whether each core computes whole vectors of an activation, so that other rows do not change a row's last bits.

    torch spreads an activation over as many of a worker's cores as its size is worth.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | Conv1D)]
    widest = max(layer.weight.shape[1 if isinstance(layer, Conv1D) else 0] for layer in layers)
    most = math.ceil(torch.get_num_threads() / parallel.MAX_BATCHES_AT_ONCE)
    return all(widest % (VECTOR * cores) == 0 for cores in range(1, most + 1))


@contextmanager
def earlier(folder: Path, made_by: dict) -> Iterator[Path | None]:
    """The encoding in `folder`, or its copy in DVC's cache or remote, if its states have the fingerprint `made_by`;
    else None."""
    if device().type != "cpu" or made_by["base_model"] is None:
        yield None
        return
    if folder.exists():
        stated = folder / PREFIX
        yield folder if stated.exists() and files.read_json(stated) == made_by else None
        return
    with files.scratch() as scratch:
        yield from_cache(folder, made_by, scratch / folder.name)


def from_cache(folder: Path, made_by: dict, copy: Path) -> Path | None:
    """A copy of `folder` as dvc.lock records it, from DVC's cache or remote, if its states have the fingerprint
    `made_by`; else None, and nothing is copied. DVC removes the folder before the stage runs."""
    from dvc.api import DVCFileSystem

    try:
        kept = DVCFileSystem()
        if json.loads(kept.read_text(str(folder / PREFIX), encoding="utf-8")) != made_by:
            return None
        kept.get(str(folder), str(copy), recursive=True)
        return copy
    except Exception:  # whatever DVC lacks (a repository, a lock, the cached files), the states can be computed
        shutil.rmtree(copy, ignore_errors=True)
        return None


class KnownStates:
    """The states of an earlier encoding, by tokens, width and padding."""

    def __init__(self, folder: Path | None, about: store.About, *, precision: str, batch_size: int) -> None:
        self.places: dict[bytes, tuple[States, int]] = {}
        self.dtype = np.dtype(STORED_AS[about.dtype])
        # read by its own description, as its texts may have been longer
        self.splits = store.load_splits(folder, store.About.load(folder), precision) if folder else {}
        self.precision, self.batch_size = precision, batch_size
        for rows in self.splits.values():
            for batch in rows.to_encode(rows.states, batch_size):
                self.places |= {key: (rows.states, index) for key, index in zip(keys(rows, batch), batch, strict=True)}

    def fill(self, into: States, rows: store.Rows, batch: np.ndarray) -> np.ndarray:
        """Copy known states to their places in `into`; returns the rows of the batch that are left to compute.

        If any are left, the longest and the shortest row are among them: these two decide the batch's width and whether
        it is padded.
        """
        if not self.places:
            return batch
        missing = []
        for key, index in zip(keys(rows, batch), batch, strict=True):
            if key in self.places:
                stored, place = self.places[key]
                into[index][:] = stored[place]
            else:
                missing.append(index)
        left = sorted({*missing, batch[0], batch[-1]}, key=list(batch).index) if missing else []
        return batch if 0 < len(left) * rows.width(batch) < FEW else np.array(left, dtype=int)

    def reproduced_by(self, model: nn.Module) -> bool:
        """Whether the model computes the known states on this machine, bit for bit; checked on one batch."""
        if not self.splits:
            return True
        rows = next(iter(self.splits.values()))
        batch = rows.to_encode(rows.states, self.batch_size)[0]
        how = {"progress": "", "precision": self.precision, "as_one_of_many": True}
        (hidden,) = parallel.each_batch(model, partial(run_batch, rows=rows), [batch], **how)
        stored = zip(as_stored(hidden, self.dtype), rows.lengths[batch], strict=True)
        return self.agrees(rows, batch, (row[:length] for row, length in stored))

    def agrees(self, rows: store.Rows, batch: np.ndarray, computed: Iterable[np.ndarray]) -> bool:
        """Whether the known states of a batch are, bit for bit, those just computed.

        Args:
            computed: of each row, (tokens, hidden), in the stored dtype.
        """
        if not self.places:
            return True
        for key, states in zip(keys(rows, batch), computed, strict=True):
            if key in self.places:
                stored, place = self.places[key]
                if not np.array_equal(states, stored[place]):
                    return False
        return True


def keys(rows: store.Rows, batch: np.ndarray) -> list[bytes]:
    """The key in `KnownStates.places` of each row of a batch."""
    width = rows.width(batch)
    padded = bool((rows.lengths[batch] < width).any())
    head = np.array([width, padded, min(len(batch) * width, FEW)], dtype=np.int32).tobytes()
    return [hashlib.sha256(head + rows.bytes_of(index)).digest() for index in batch]


def run_batch(model: nn.Module, indices: np.ndarray, *, rows: store.Rows) -> torch.Tensor:
    """The frozen blocks' output for the rows at `indices`, (batch, tokens, hidden)."""
    batch = rows.batch(indices)
    return model(**{name: to_device(tensor) for name, tensor in batch.items() if name not in ("labels", "states")})


def save(folder: Path, made_by: dict) -> None:
    """Write the fingerprint of the states."""
    files.write_json(folder / PREFIX, made_by)
