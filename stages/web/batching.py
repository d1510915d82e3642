"""Questions that come at the same time are answered together: many small batches cost more than few large ones."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from stages.serving.answers import BATCH_SIZE

WAIT = 0.002
"""Seconds that an input waits for others to come. While a batch is computed others gather anyway."""

CAPACITY = 4096
"""Inputs that may wait at once; one that takes several passes of the model counts as so many."""


class FullError(Exception):
    """So much waits that no more is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A question: inputs for one way of answering."""

    answer: Callable[[Sequence[Any]], Sequence[Any]]
    inputs: Sequence[Any]
    passes: int = 1
    """Of the model, that each input takes."""
    answers: Future = field(default_factory=Future)


class Batcher:
    """One thread that answers all questions, those of the same way of answering together, in the order they come."""

    def __init__(
        self,
        *,
        most: int = BATCH_SIZE,
        wait: float = WAIT,
        capacity: int = CAPACITY,
        seen: Callable = lambda count: None,
    ) -> None:
        """Start the thread.

        Args:
            most: inputs that are answered together.
            seen: is called with the number of inputs of each batch.
        """
        self.most, self.wait, self.capacity, self.seen = most, wait, capacity, seen
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self.work, name="answers", daemon=True)
        self.thread.start()

    @property
    def waiting(self) -> int:
        """The number of inputs that wait, see `CAPACITY`."""
        return sum(len(job.inputs) * job.passes for job in list(self.jobs))

    def submit(
        self, answer: Callable[[Sequence[Any]], Sequence[Any]], inputs: Sequence[Any], *, passes: int = 1
    ) -> Future:
        """Have inputs answered by a function of a list of inputs; its result is cut by `result[start:end]`.

        Args:
            passes: see `Job`.

        Raises:
            FullError: too many wait, or the batcher is closed.
        """
        job = Job(answer=answer, inputs=inputs, passes=passes)
        with self.changed:
            if self.closed or self.waiting + len(inputs) * passes > self.capacity:
                raise FullError
            self.jobs.append(job)
            self.changed.notify()
        return job.answers

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def work(self) -> None:
        """Answer batches until closed."""
        while jobs := self.gathered():
            if jobs := [job for job in jobs if job.answers.set_running_or_notify_cancel()]:
                self.seen(sum(len(job.inputs) for job in jobs))
                answer_all(jobs)

    def gathered(self) -> list[Job]:
        """The next jobs to answer together; none: the batcher is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closed)
            until = time.monotonic() + self.wait
            self.changed.wait_for(lambda: self.closed or self.waiting >= self.most, until - time.monotonic())
            return self.taken() if self.jobs else []

    def taken(self) -> list[Job]:
        """The job that came first, and others with the same way of answering, as many as fit; they leave the queue."""
        first = self.jobs.popleft()
        taken, count = [first], len(first.inputs)
        for job in list(self.jobs):
            if job.answer == first.answer and count + len(job.inputs) <= self.most:
                self.jobs.remove(job)
                taken.append(job)
                count += len(job.inputs)
        return taken


def answer_all(jobs: list[Job]) -> None:
    """Answer jobs together; if that fails, each alone, so that one's fault is not another's."""
    if len(jobs) > 1:
        with contextlib.suppress(Exception):
            inputs = [one for job in jobs for one in job.inputs]
            answers, end = jobs[0].answer(inputs), 0
            for job in jobs:
                start, end = end, end + len(job.inputs)
                job.answers.set_result(answers[start:end])
            return
    for job in jobs:
        try:
            job.answers.set_result(job.answer(job.inputs))
        except Exception as error:
            job.answers.set_exception(error)
