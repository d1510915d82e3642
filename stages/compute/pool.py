"""Batches spread over processes, each of which has an accelerator of its own or, on CPUs, the same number of cores a
batch as a single process: where a batch is computed changes no bit of its results."""

import functools
import itertools
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from stages.backbone import base
from stages.backbone.parallel import SPREAD, Way, in_threads
from stages.common import errors, files

BATCHES_OF_TASK = 8
"""Batches that a process gets at a time, for each that it computes at once: with more, processes wait for the last one
at the end; with fewer, each waits oftener."""


@contextmanager
def spread_over(count: int) -> Iterator[None]:
    """Spread over so many processes the batches that are computed within the block, of models that are `loaded`; with
    one there is no other than this one. They start with the first batches, and end with the block."""
    if count == 1:
        yield
        return
    with Processes(count) as spread, spread_by(spread):
        yield


@contextmanager
def spread_by(spread: Callable[..., Iterator[Any]]) -> Iterator[None]:
    """Have `spread` compute the batches within the block, see `stages.backbone.parallel.SPREAD`."""
    before = SPREAD.set(spread)
    try:
        yield
    finally:
        SPREAD.reset(before)


def loaded(load: Callable[[], nn.Module]) -> nn.Module:
    """What `load` returns: a model that other processes can load, too, in the same way."""
    model = load()
    model.load = load
    return model


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
        """The results for the batches, in order, computed in the processes; see `each_batch`.

        They get `compute` as a file, in which an array that is mapped into memory is the name of its own, so that they
        may write to it. A single batch, or one of a model that is not `loaded`, is computed here.
        """
        if len(batches) == 1 or not hasattr(model, "load"):
            yield from in_threads(model, compute, batches, way, kept)
            return
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
        if not is_mapped(value):
            return NotImplemented
        mode = "r" if value.mode == "r" else "r+"  # never created again
        return np.memmap, (value.filename, value.dtype, mode, value.offset, value.shape)


def is_mapped(value: Any) -> bool:
    """Whether a value is all of an array that is mapped into memory; a part of one is copied."""
    return isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.flags.c_contiguous
