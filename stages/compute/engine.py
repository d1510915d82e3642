"""What the work of a stage runs on: this process, more processes of this machine, or a Ray cluster, of which nothing is
imported otherwise."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from stages.common.errors import PipelineError
from stages.compute import pool

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_task_oom_retries": "3"}
"""Of Ray: nothing is sent anywhere; `print` stays as it is; a task that lacks memory is not tried on and on."""


class Options(Protocol):
    """The section `compute`, or what a command has instead."""

    processes: int
    engine: str
    address: str | None


class Workers(Protocol):
    """Processes that work for this one, here or on a cluster."""

    count: int
    cores: int | None
    """Cores of each; None: they share those of this machine."""

    def map(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        """`function` of each part, in order, as the built-in `map` has it; some parts are read ahead.

        Raises:
            PipelineError: a process was killed; or what `function` raises.
        """

    def dumps(self, value: Any) -> bytes:
        """Pickle a value so that the processes can load it."""


def workers(options: Options) -> AbstractContextManager[Workers | None]:
    """The processes over which work is spread within the block; None: there is no other than this one. On a cluster
    even a single process is another one."""
    if options.engine == "local":
        return pool.Processes(options.processes) if options.processes > 1 else nullcontext()
    with importing_ray():
        from stages.compute import cluster_tasks
    return cluster_tasks.connected_tasks(options)


@contextmanager
def mapping(options: Options) -> Iterator[Callable[..., Iterator[Any]]]:
    """What takes the place of the built-in `map` within the block: `workers` compute the parts; one alone is computed
    here."""
    with workers(options) as given:
        yield partial(map_over, given) if given else map


def map_over(given: Workers, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
    """`function` of each part, in order; see `mapping`."""
    parts = iter(parts)
    first = list(itertools.islice(parts, 2))
    return given.map(function, itertools.chain(first, parts)) if len(first) > 1 else map(function, first)


@contextmanager
def importing_ray() -> Iterator[None]:
    """Around what imports Ray.

    Raises:
        PipelineError: it is not installed.
    """
    os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    try:
        yield
    except ModuleNotFoundError as error:
        raise PipelineError(
            f"expected the packages of requirements-ray.txt for the engine ray, found no {error.name}; install them "
            "with: pip install -r requirements-ray.txt -c requirements.lock"
        ) from None
