"""Work as the tasks of a Ray cluster.

Ray Data would cut the rows into blocks of its own, while the bytes of a batch depend on the rows in it: tasks take the
parts as they are.
"""

import io
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import ray
from ray import ObjectRef, cloudpickle
from ray.exceptions import RayError, RayTaskError

from stages.common.errors import PipelineError
from stages.compute import pool
from stages.compute.cluster import PATIENCE, Place, Share, connected, gone

RETRIES = 3
"""Times that a task is computed again whose process or node is gone."""


@contextmanager
def connected_tasks(options: Any) -> Iterator["Tasks"]:
    """The processes of the cluster, which this one is part of within the block.

    Args:
        options: see `stages.compute.engine`.
    """
    with connected(options.address):
        yield Tasks(options.processes)


class Tasks:
    """Processes of the cluster, see `engine.Workers`. They return what they write to arrays mapped into memory,
    and it is written here: machines that write to the same block of a shared file overwrite each other's bytes."""

    dumps = staticmethod(cloudpickle.dumps)

    def __init__(self, count: int) -> None:
        self.share, self.count = Share.of(count), count
        self.cores = None if self.share.gpus else self.share.cpus
        how = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus, "max_retries": RETRIES}
        self.task = ray.remote(in_task).options(**how).remote

    def map(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        """`function` of each part, in order, computed as tasks."""
        job, place = Job(function), Place.here()
        given = [ray.put(job.pickled)]  # in a list: each process gets it once
        for found in self.in_order(lambda part: self.task(place, given, part).future(), iter(parts)):
            result, written = pickle.loads(found)
            for number, first, values in written:
                job.arrays[number][first : first + len(values)] = values
            yield result

    def in_order(self, begin: Callable[[Any], Future], parts: Iterator[Any]) -> Iterator[bytes]:
        """What comes of each part of the work, in order.

        Raises:
            PipelineError: a process was gone too often; or what the task raises.
        """
        begun, running = deque(), set()
        while True:
            room = min(self.count - len(running), pool.WAITING * self.count - len(begun))
            for part in islice(parts, max(0, room)):
                begun.append(begin(part))
                running.add(begun[-1])
            if not begun:
                return
            # not by `ray.wait`, within which a signal would end this process without a word
            done, running = wait(running, timeout=PATIENCE, return_when=FIRST_COMPLETED)
            if not done and not self.share.room:
                raise gone("with its node, and the nodes that are left have too few CPUs")
            while begun and begun[0] not in running:
                yield result(begun.popleft())


def result(task: Future) -> bytes:
    """What comes of a task.

    Raises:
        PipelineError: its process was gone too often, or could not import this module; or what the task raises.
    """
    try:
        return task.result()
    except RayTaskError as error:
        if "failed to import on the worker" in str(error.cause):
            raise PipelineError(
                "expected all nodes to share the folder of the repository and to have its packages, found one that "
                "cannot import them; mount it there at the same path, and install the packages there"
            ) from None
        raise error.cause from None
    except RayError as error:
        raise gone(f"{RETRIES + 1} times ({type(error).__name__})") from None


class Job(cloudpickle.CloudPickler):
    """A function for the processes: they read an array that is mapped into memory from its file, and one that they
    write to is a `Written` there."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        file = io.BytesIO()
        super().__init__(file)
        self.arrays: list[np.memmap] = []
        self.dump(function)
        self.pickled = file.getvalue()

    def persistent_id(self, value: Any) -> tuple[int, np.dtype, tuple[int, ...]] | None:
        if not pool.is_mapped(value) or value.mode == "r":
            return None
        self.arrays.append(value)
        return len(self.arrays) - 1, value.dtype, value.shape

    def reducer_override(self, value: Any) -> Any:
        found = pool.ByFile.reducer_override(self, value)
        return super().reducer_override(value) if found is NotImplemented else found


class Opened(pickle.Unpickler):
    """A `Job` in a process of the cluster."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.noted: list[tuple] = []
        self.function = self.load()

    def persistent_load(self, which: tuple[int, np.dtype, tuple[int, ...]]) -> "Written":
        return Written(self.noted, *which)


class Written:
    """Takes the place of an array, or of some of its rows, and notes which rows are written."""

    def __init__(
        self, noted: list[tuple], number: int, dtype: np.dtype, shape: tuple[int, ...], first: int = 0
    ) -> None:
        self.noted, self.number, self.dtype, self.shape, self.first = noted, number, dtype, shape, first

    def __getitem__(self, rows: slice) -> "Written":
        first, end, _ = rows.indices(self.shape[0])
        return Written(self.noted, self.number, self.dtype, (end - first, *self.shape[1:]), self.first + first)

    def __setitem__(self, rows: slice, values: Any) -> None:
        part = self[rows]
        self.noted.append((self.number, part.first, np.broadcast_to(values, part.shape).astype(self.dtype)))


def in_task(place: Place, given: list[ObjectRef], part: Any) -> bytes:
    """The function of a part, and what is written meanwhile, pickled."""
    place.enter()
    job = opened(given[0])
    job.noted.clear()
    result = job.function(part)
    return pickle.dumps((result, job.noted))


@lru_cache(maxsize=1)
def opened(job: ObjectRef) -> Opened:
    """A job, which is opened once in each process."""
    return Opened(ray.get(job))
