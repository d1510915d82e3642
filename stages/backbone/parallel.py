"""Inference with one batch per core: the many small products of a batch use one core well, but several poorly.

Within the block of `processes`, batches are spread over processes, each of which has an accelerator of its own or, on
CPUs, the same number of cores a batch as a single process: where a batch is computed changes no bit of its results.
"""

import copy
import functools
import itertools
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
import torch
from torch import distributed, nn

from stages.backbone import base, frozen_linear
from stages.backbone.device import device
from stages.backbone.precision import autocast
from stages.common import errors, files
from stages.common.progress import bar

MAX_BATCHES_AT_ONCE = 8
"""Maximum number of batches at once, however many cores there are; it limits the memory used."""

ON_ACCELERATOR = 2
"""Number of batches at once on an accelerator: it computes one while the other is made, or its results are written."""

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
        compute: within `processes`, other processes get it, and send back what it returns; an array that is mapped
            into memory is opened there, so that it may write to the file.
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
    spread = PROCESSES.get() if len(batches) > 1 and hasattr(model, "load") else None
    computed = (spread or (in_ranks if ranks()[1] > 1 else in_threads))(model, compute, batches, way, kept)
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


def in_ranks(
    model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
) -> Iterator[Any]:
    """The results for the batches, in order, of which each rank of a training computes its share; see `each_batch`."""
    number, count = ranks()
    found: list[Any] = [None] * count
    distributed.all_gather_object(found, list(in_threads(model, compute, batches[number::count], way, kept)))
    return (found[index % count][index // count] for index in range(len(batches)))


def ranks() -> tuple[int, int]:
    """The number of this process among those of a training, and how many they are; see stages/compute/ranks.py."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


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


def loaded(load: Callable[[], nn.Module]) -> nn.Module:
    """What `load` returns: a model that other processes can load, too, in the same way."""
    model = load()
    model.load = load
    return model


PROCESSES: ContextVar["Processes | None"] = ContextVar("PROCESSES", default=None)
"""Those over which `each_batch` spreads its batches."""


@contextmanager
def processes(count: int) -> Iterator[None]:
    """Spread over so many processes the batches that are computed within the block, of models that are `loaded`; with
    one there is no other than this one. They start with the first batches, and end with the block."""
    if count == 1:
        yield
        return
    with Processes(count) as spread:
        before = PROCESSES.set(spread)
        try:
            yield
        finally:
            PROCESSES.reset(before)


class Processes:
    """Processes that work for this one: they end when it does, however that is."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Self:
        # spawned: a forked process can use neither an accelerator nor torch's threads
        context = multiprocessing.get_context("spawn")
        ended, self.alive = context.Pipe(duplex=False)
        given = {"mp_context": context, "initializer": begin, "initargs": (ended, context.Value("i", 0))}
        self.pool, self.left, self.names = ProcessPoolExecutor(self.count, **given), ExitStack(), itertools.count()
        self.scratch = self.left.enter_context(files.scratch())
        return self

    def __exit__(self, *_: object) -> None:
        self.alive.close()
        self.pool.shutdown(cancel_futures=True)
        self.left.close()

    def __call__(
        self, model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
    ) -> Iterator[Any]:
        """The results for the batches, in order, computed in the processes; see `each_batch`."""
        way = way.shared(self.count)
        size = min(BATCHES_OF_TASK * way.workers, math.ceil(len(batches) / self.count))
        load, job = pickle.dumps(model.load), self.scratch / f"{next(self.names)}.pickle"
        with job.open("wb") as file:
            ByFile(file).dump(compute)
        tasks = [batches[begin : begin + size] for begin in range(0, len(batches), size)]
        futures = [self.pool.submit(in_process, load, job, task, way) for task in tasks]
        try:
            for future in futures:
                yield from result(future)
        finally:
            for future in futures:
                future.cancel()
            job.unlink()


def result(future: Future) -> Any:
    """What comes of a task.

    Raises:
        PipelineError: a process ended before it was done.
    """
    try:
        return future.result()
    except BrokenProcessPool:
        raise errors.PipelineError(
            "expected all processes to run to the end, found one that was killed, perhaps for want of memory; run the "
            "command again, or lower compute.processes"
        ) from None


def begin(ended: Connection, started: Synchronized) -> None:
    """Begin a process: the accelerator, if there is one, is that of its number.

    Args:
        ended: a pipe that is at its end when the first process has no more work, or is no more.
        started: how many processes have begun.
    """
    for number in errors.ENDING:  # the first process, which gets them too, decides
        signal.signal(number, signal.SIG_IGN)
    multiprocessing.set_start_method("fork", force=True)  # locks, like tqdm's, then leave nothing behind
    base.quiet_transformers()
    threading.Thread(target=end_after, args=(ended,), daemon=True).start()
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if count := torch.accelerator.device_count():
        torch.accelerator.set_device_index(number % count)


def end_after(ended: Connection) -> None:
    """End this process once a pipe is at its end."""
    ended.poll(None)
    os._exit(0)


def in_process(load: bytes, compute: Path, batches: Sequence[Any], way: Way) -> list[Any]:
    """The results for some batches, by what `Processes` has pickled."""
    model, kept = model_by(load)
    return list(in_threads(model, opened(compute), batches, way, kept))


@functools.lru_cache(maxsize=2)  # of `predict --compare`
def model_by(load: bytes) -> tuple[nn.Module, dict[Any, Any]]:
    """A model, by the function that loads it, and where its replicas are kept, see `each_batch`."""
    return pickle.loads(load)(), {}


@functools.lru_cache(maxsize=1)
def opened(path: Path) -> Callable[[nn.Module, Any], Any]:
    """The function in a file."""
    return pickle.loads(path.read_bytes())


class ByFile(pickle.Pickler):
    """Pickles an array that is mapped into memory as the name of its file."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.memmap) or not isinstance(value.base, mmap.mmap) or not value.flags.c_contiguous:
            return NotImplemented  # a part of an array is copied
        mode = "r" if value.mode == "r" else "r+"  # never created again
        return np.memmap, (value.filename, value.dtype, mode, value.offset, value.shape)
