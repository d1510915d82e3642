"""Work that is spread over processes of this machine."""

import functools
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.common import errors, files

WAITING = 2
"""Parts for each process that have begun, and whose results are not taken yet: it bounds the memory."""


class Processes:
    """Processes that work for this one, see `engine.Workers`: they start with the first work, and end when this process
    does, however that is."""

    cores = None
    dumps = staticmethod(pickle.dumps)

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Self:
        # spawned: a forked process can use neither an accelerator nor torch's threads
        context = multiprocessing.get_context("spawn")
        ended, self.alive = context.Pipe(duplex=False)
        given = {"mp_context": context, "initializer": begin, "initargs": (ended,)}
        self.pool, self.left, self.names = ProcessPoolExecutor(self.count, **given), ExitStack(), itertools.count()
        self.scratch = self.left.enter_context(files.scratch())
        return self

    def __exit__(self, *_: object) -> None:
        self.alive.close()
        self.pool.shutdown(cancel_futures=True)
        self.left.close()

    def map(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        """`function` of each part, in order, computed in the processes.

        They get `function` as a file, in which an array that is mapped into memory is the name of its own, so that they
        may write to it. Each answers with a file as well: if one ended while it sent a long answer through a pipe, this
        process would wait forever for the rest.
        """
        job, parts, begun = self.new_file(), iter(parts), deque()
        with job.open("wb") as file:
            ByFile(file).dump(function)
        try:
            while True:
                for part in itertools.islice(parts, WAITING * self.count - len(begun)):
                    answer = self.new_file()
                    with naming_killed():
                        begun.append((self.pool.submit(in_process, job, part, answer), answer))
                if not begun:
                    return
                future, answer = begun.popleft()
                result(future)
                found = pickle.loads(answer.read_bytes())
                answer.unlink()
                yield found
        finally:
            for future, _ in begun:
                future.cancel()
            job.unlink()

    def new_file(self) -> Path:
        """The path of a file of its own, which is gone with the processes."""
        return self.scratch / f"{next(self.names)}.pickle"


def result(future: Future) -> Any:
    """What comes of a task.

    Raises:
        PipelineError: a process ended before it was done.
    """
    with naming_killed():
        return future.result()


@contextmanager
def naming_killed() -> Iterator[None]:
    """Around what fails once a process has ended.

    Raises:
        PipelineError: one has.
    """
    try:
        yield
    except BrokenProcessPool:
        raise errors.PipelineError(
            "expected all processes to run to the end, found one that was killed, perhaps for want of memory; run the "
            "command again, or with fewer processes"
        ) from None


def begin(ended: Connection) -> None:
    """Begin a process.

    Args:
        ended: a pipe that is at its end when the first process has no more work, or is no more.
    """
    for number in errors.ENDING:  # the first process, which gets them too, decides
        signal.signal(number, signal.SIG_IGN)
    multiprocessing.set_start_method("fork", force=True)  # locks, like tqdm's, then leave nothing behind
    threading.Thread(target=end_after, args=(ended,), daemon=True).start()


def end_after(ended: Connection) -> None:
    """End this process once a pipe is at its end."""
    ended.poll(None)
    os._exit(0)


def in_process(job: Path, part: Any, answer: Path) -> None:
    """Write what the function in the file `job` makes of a part to the file `answer`."""
    answer.write_bytes(pickle.dumps(opened(job)(part)))


@functools.lru_cache(maxsize=1)
def opened(job: Path) -> Callable[[Any], Any]:
    """The function in a file."""
    return pickle.loads(job.read_bytes())


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
