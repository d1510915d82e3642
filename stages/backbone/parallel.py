"""Inference with one batch per core: the many small products of a batch use one core well, but several poorly.

`SPREAD` says who else may compute the batches. Each process has an accelerator of its own or, on CPUs, the same number
of cores a batch as a single process: where a batch is computed changes no bit of its results.
"""

import copy
import math
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, Self

import torch
from torch import nn

from stages.backbone import base, frozen_linear
from stages.backbone.device import device
from stages.backbone.precision import autocast
from stages.common.progress import bar

MAX_BATCHES_AT_ONCE = 8
"""Maximum number of batches at once, however many cores there are; it limits the memory used."""

ON_ACCELERATOR = 2
"""Number of batches at once on an accelerator: it computes one while the other is made, or its results are written."""

SPREAD: ContextVar[Callable[..., Iterator[Any]] | None] = ContextVar("SPREAD", default=None)
"""What computes batches in the place of `in_threads`, in several processes: see `spread_over`, `compute.ranks`."""

BATCHES_OF_TASK = 8
"""Batches that a process gets at a time, for each that it computes at once: with more, processes wait for the last one
at the end; with fewer, each waits oftener."""


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

    def shared(self, processes: int, cores: int | None) -> Self:
        """The same in one of so many processes.

        Args:
            cores: what each has; None: on CPUs they share the cores.
        """
        if cores:
            return replace(self, workers=max(1, cores // self.cores))
        return replace(self, workers=math.ceil(self.workers / processes)) if device().type == "cpu" else self


def in_threads(
    model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
) -> Iterator[Any]:
    """The results for the batches, in order, computed in this process; see `each_batch`."""
    model, threads = model.to(device()).eval(), torch.get_num_threads()
    if way.packed not in kept:
        kept[way.packed] = Replicas(model, packed=way.packed)
    replicas = kept[way.packed].at_least(way.workers)

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


class Replicas:
    """Replicas of a model, which share its weights, or the packed copies of those of its linear layers."""

    def __init__(self, model: nn.Module, *, packed: bool) -> None:
        self.first = replica_of(model)
        if packed:
            frozen_linear.pack(self.first)
        self.free: SimpleQueue = SimpleQueue()
        self.count = 0

    def at_least(self, count: int) -> SimpleQueue:
        """The replicas that are not in use, of at least so many in all."""
        for _ in range(self.count, count):
            self.free.put(replica_of(self.first))
        self.count = max(self.count, count)
        return self.free


def replica_of(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its weights."""
    return copy.deepcopy(model, {id(part): part for part in [*model.parameters(), *model.buffers()]})


def loaded(load: Callable[[], nn.Module]) -> nn.Module:
    """What `load` returns: a model that other processes can load, too, in the same way."""
    model = load()
    model.load = load
    return model


@contextmanager
def spread_over(given: AbstractContextManager[Any]) -> Iterator[None]:
    """Spread the batches within the block, of models that are `loaded`, over workers that start with the first ones.

    Args:
        given: the workers, see `stages.compute.engine.workers`.
    """
    with given as workers:
        before = SPREAD.set(partial(in_workers, workers) if workers else None)
        try:
            yield
        finally:
            SPREAD.reset(before)


def in_workers(
    workers: Any, model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
) -> Iterator[Any]:
    """The results for the batches, in order, computed by the workers; see `each_batch`.

    A single batch, or one of a model that is not `loaded`, is computed here.
    """
    if len(batches) == 1 or not hasattr(model, "load"):
        yield from in_threads(model, compute, batches, way, kept)
        return
    way = way.shared(workers.count, workers.cores)
    size = min(BATCHES_OF_TASK * way.workers, math.ceil(len(batches) / workers.count))
    tasks = (batches[begin : begin + size] for begin in range(0, len(batches), size))
    for results in workers.map(partial(in_worker, workers.dumps(model.load), compute, way), tasks):
        yield from results


def in_worker(load: bytes, compute: Callable, way: Way, batches: Sequence[Any]) -> list[Any]:
    """The results for some batches, in a process of the workers."""
    model, kept = model_by(load)
    return list(in_threads(model, compute, batches, way, kept))


@lru_cache(maxsize=2)  # of `predict --compare`
def model_by(load: bytes) -> tuple[nn.Module, dict[Any, Any]]:
    """A model on this process's accelerator, by the function that loads it, and where its replicas are kept."""
    base.quiet_transformers()
    number = re.search(r"\d+$", multiprocessing.current_process().name)  # SpawnProcess-3 is the third
    if number and (count := torch.accelerator.device_count()):
        torch.accelerator.set_device_index(int(number[0]) % count)
    return pickle.loads(load)(), {}
