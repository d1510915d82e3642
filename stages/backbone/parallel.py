"""Inference with one batch per core: the many small products of a batch use one core well, but several poorly.

`SPREAD` says who else may compute the batches; where a batch is computed changes no bit of its results.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Self

import torch
from torch import nn

from stages.backbone import frozen_linear
from stages.backbone.device import device
from stages.backbone.precision import autocast
from stages.common.progress import bar

MAX_BATCHES_AT_ONCE = 8
"""Maximum number of batches at once, however many cores there are; it limits the memory used."""

ON_ACCELERATOR = 2
"""Number of batches at once on an accelerator: it computes one while the other is made, or its results are written."""

SPREAD: ContextVar[Callable[..., Iterator[Any]] | None] = ContextVar("SPREAD", default=None)
"""What computes batches in the place of `in_threads`, in several processes: see `stages.compute`."""


def each_batch(
    model: nn.Module,
    compute: Callable[[nn.Module, Any], Any],
    batches: Sequence[Sized],
    *,
    progress: str | None,
    precision: str = "float32",
    as_one_of_many: bool = False,
    kept: dict[Any, Any] | None = None,
    note: Callable[[Any], None] | None = None,
) -> list[Any]:
    """`compute(model, batch)` for every batch of rows, in order, without gradients.

    On a CPU several batches are computed at once, each with its share of the cores, by a replica of the model:
    replicas share the weights, but not what modules store during a forward pass. An accelerator computes batches one
    after the other, in the order in which its two workers queue them.

    Args:
        compute: where batches are spread over processes, these get it, and send back what it returns.
        progress: the label of the progress bar; a single batch has no bar. None: there is no bar.
        precision: of the matrix products, see `stages.backbone.precision`.
        as_one_of_many: compute even a single batch with one worker's cores and packed weights, so that its results are,
            bit for bit, the same as among many batches.
        kept: where the replicas are kept for further calls with the same model, whose weights do not change meanwhile.
        note: called with each batch once it is computed, in order.
    """
    if not batches:
        return []
    way, kept = Way.of(len(batches), precision, as_one_of_many=as_one_of_many), {} if kept is None else kept
    computed = (SPREAD.get() or in_threads)(model, compute, batches, way, kept)
    results, hidden = [], len(batches) == 1 or progress is None
    with bar(progress or "", total=sum(map(len, batches)), unit="row", hidden=hidden) as shown, closing(computed):
        for batch, result in zip(batches, computed, strict=True):
            results.append(result)
            if note:
                note(batch)
            shown.update(len(batch))
    return results


@dataclass(frozen=True, kw_only=True)
class Way:
    """How batches are computed; their last bits depend on it."""

    workers: int
    """Batches at once."""
    cores: int
    """For each."""
    precision: str
    packed: bool
    """Whether weights are packed, which takes longer than it saves on a single batch."""

    @classmethod
    def of(cls, batches: int, precision: str, *, as_one_of_many: bool) -> Self:
        """How so many batches are computed in a process of their own."""
        threads, many = torch.get_num_threads(), batches > 1 or as_one_of_many
        most = threads // math.ceil(threads / MAX_BATCHES_AT_ONCE) if device().type == "cpu" else ON_ACCELERATOR
        workers, cores = (min(most, batches), max(1, threads // most)) if many else (1, threads)
        return cls(workers=workers, cores=cores, precision=precision, packed=precision == "float32" and many)

    def shared(self, processes: int) -> Self:
        """The same in one of so many processes, which on CPUs share the cores."""
        return replace(self, workers=math.ceil(self.workers / processes)) if device().type == "cpu" else self


def in_threads(
    model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
) -> Iterator[Any]:
    """The results for the batches, in order, computed in this process; see `each_batch`."""
    model, threads = model.to(device()).eval(), torch.get_num_threads()
    if (way.workers, way.packed) not in kept:
        kept[way.workers, way.packed] = replicas_of(model, way.workers, packed=way.packed)
    replicas = kept[way.workers, way.packed]

    def work(batch: Any) -> Any:
        replica = replicas.get()
        try:
            with torch.inference_mode(), autocast(way.precision):
                return compute(replica, batch)
        finally:
            replicas.put(replica)

    try:
        with ThreadPoolExecutor(way.workers, initializer=torch.set_num_threads, initargs=(way.cores,)) as pool:
            try:
                yield from pool.map(work, batches)
            finally:
                pool.shutdown(cancel_futures=True)  # an interruption waits for the current batches alone
    finally:
        torch.set_num_threads(threads)


def replicas_of(model: nn.Module, count: int, *, packed: bool) -> SimpleQueue:
    """So many replicas of a model, which share its weights, or packed copies of those of its linear layers."""
    weights = {id(part): part for part in [*model.parameters(), *model.buffers()]}
    replica = copy.deepcopy(model, dict(weights))
    if packed:
        frozen_linear.pack(replica)
    replicas = SimpleQueue()
    for _ in range(count):
        replicas.put(copy.deepcopy(replica, dict(weights)))
    return replicas
