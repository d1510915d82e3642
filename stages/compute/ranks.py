"""The processes of one training, its ranks: all do the same, each with its share of every batch, and the first writes.

A stage starts its ranks itself (`run`), or torchrun or `accelerate launch` does, on several machines too, which then
share the repository's folder. Without them there is one rank, and nothing here does anything.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from torch import distributed, nn
from torch.utils.data import Sampler

from stages.backbone import base
from stages.backbone.parallel import SPREAD, Way, in_threads
from stages.common import files, progress
from stages.common.errors import PipelineError
from stages.compute import engine, shards
from stages.compute.pool import Processes, result

PATIENCE = 5.0
"""Seconds within which it is noticed that a rank was killed; another rank may fail first, by the lost connection."""

Value = TypeVar("Value")


def run(work: Callable[[], None], options: engine.Options) -> None:
    """Do `work` in so many ranks, each a process of its own; with one on this machine, or as one of the ranks that were
    started otherwise, in this process.

    Raises:
        PipelineError: there are accelerators, but fewer than ranks; a rank was killed; or what `work` raises.
    """
    devices, processes = torch.accelerator.device_count(), options.processes
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        join_and_do(work, "env://")
    elif options.engine == "ray":
        with engine.importing_ray():
            from stages.compute import cluster_ranks
        cluster_ranks.run(partial(join_and_do, work, "env://"), options)
    elif processes == 1:
        work()
    elif 0 < devices < processes:
        raise PipelineError(f"compute.processes: expected at most {devices}, one for each device, found {processes}")
    else:
        # of the ranks: DDP warns that it looks for unused weights
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        with files.scratch() as scratch, Processes(processes) as started:
            threads = max(1, torch.get_num_threads() // processes)
            given = {"count": processes, "threads": threads, "meeting": f"file://{(scratch / 'ranks').absolute()}"}
            futures = [started.pool.submit(be_rank, work, rank, **given) for rank in range(processes)]
            done, others = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future.exception() for future in done if future.exception()]
            if failed and not any(isinstance(error, PipelineError | BrokenProcessPool) for error in failed):
                done = wait(others, timeout=PATIENCE).done | done
            for future in sorted(done, key=lambda one: isinstance(one.exception(), BrokenProcessPool), reverse=True):
                result(future)


def be_rank(work: Callable[[], None], rank: int, *, count: int, threads: int, meeting: str) -> None:
    """Do `work` as a rank in a process that was started for it; the environment is as torchrun would have it."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in (names | {"OMP_NUM_THREADS": threads}).items()}
    torch.set_num_threads(threads)
    join_and_do(work, meeting)


def join_and_do(work: Callable[[], None], meeting: str) -> None:
    """Meet the other ranks, then do `work`; only the first shows progress."""
    if devices := torch.accelerator.device_count():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", 0)) % devices)
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if not distributed.is_initialized():  # Ray Train has done so
        distributed.init_process_group(init_method=meeting, rank=number, world_size=count)
    base.quiet_transformers()
    if number:
        progress.silence()
    before = SPREAD.set(in_ranks)
    work()
    SPREAD.reset(before)
    distributed.destroy_process_group()


def in_ranks(
    model: nn.Module, compute: Callable, batches: Sequence[Any], way: Way, kept: dict[Any, Any]
) -> Iterator[Any]:
    """The results for the batches, in order, of which each rank of a training computes its share; see `each_batch`."""
    number, count = ranks()
    if shards.is_sharded(model):  # some ranks may compute one batch more than they are asked for
        own = [batches[index % len(batches)] for index in range(number, math.ceil(len(batches) / count) * count, count)]
        computed = shards.in_step(model, compute, own, way)
    else:
        computed = list(in_threads(model, compute, batches[number::count], way, kept))
    found = gathered(computed)
    return (found[index % count][index // count] for index in range(len(batches)))


def ranks() -> tuple[int, int]:
    """The number of this process among those of a training, and how many they are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_first() -> bool:
    """Whether this is the rank that writes."""
    return ranks()[0] == 0


def agreed(value: Value) -> Value:
    """The first rank's value, in all ranks."""
    if ranks()[1] == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, src=0)
    return held[0]


def gathered(value: Value) -> list[Value]:
    """The values of all ranks, in all ranks."""
    count = ranks()[1]
    if count == 1:
        return [value]
    found: list[Any] = [None] * count
    distributed.all_gather_object(found, value)
    return found


@contextmanager
def by_first(context: AbstractContextManager[Value]) -> Iterator[Value]:
    """Enter a context in the first rank alone; all ranks get its value, and go on once it was left."""
    if is_first():
        with context as value:
            yield agreed(value)
            gathered(None)  # so that all are done with it
    else:
        yield agreed(None)
        gathered(None)
    gathered(None)


@contextmanager
def in_turn() -> Iterator[None]:
    """Enter one rank of a machine after the other, so that what is done within needs the memory of one."""
    for turn in range(max(gathered(int(os.environ.get("LOCAL_WORLD_SIZE", 1))))):
        if turn == int(os.environ.get("LOCAL_RANK", 0)):
            yield
        gathered(None)


def check_share(batch_size: int) -> None:
    """Check that every rank gets an equal share of a batch.

    Raises:
        PipelineError: it does not.
    """
    count = ranks()[1]
    if batch_size % count:
        raise PipelineError(
            f"train.batch_size: expected a multiple of the {count} processes, which share each batch, found "
            f"{batch_size}; change it, or compute.processes"
        )


def seed(value: int) -> None:
    """Have every rank but the first draw random numbers of its own, for example in dropout."""
    if number := ranks()[0]:
        torch.manual_seed(int(np.random.SeedSequence([value, number]).generate_state(1)[0]))


class AgreedOrder(Sampler):
    """The order of rows that the first rank draws, in all ranks."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        return iter(agreed(list(self.sampler)))


class EqualShares(BatchSamplerShard):
    """This rank's share of each batch. The last batch may be smaller: what it lacks to equal shares are rows of its own
    again, fewer than there are ranks, where accelerate would fill it up to a whole batch."""

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batch_sampler:
            share = math.ceil(len(batch) / self.num_processes)
            yield np.resize(batch, share * self.num_processes)[share * self.process_index :][:share].tolist()
