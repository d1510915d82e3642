"""What the work of a stage runs on: the processes of this machine, or a Ray cluster, of which nothing is imported
otherwise."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from stages.common.errors import PipelineError
from stages.compute import pool, ranks

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_task_oom_retries": "3"}
"""Of Ray: nothing is sent anywhere; `print` stays as it is; a task that lacks memory is not tried on and on."""


class Options(Protocol):
    """The section `compute`, or what a command has instead."""

    processes: int
    engine: str
    address: str | None


def spread_over(options: Options) -> AbstractContextManager[None]:
    """Spread the batches within the block, see `pool.spread_over`; on a cluster even those of a single process."""
    if options.engine == "local":
        return pool.spread_over(options.processes)
    with importing_ray():
        from stages.compute import cluster_tasks
    return cluster_tasks.spread_over(options)


def run(work: Callable[[], None], options: Options) -> None:
    """Do `work` in the ranks of a training, see `ranks.run`."""
    if options.engine == "local" or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        ranks.run(work, processes=options.processes)
        return
    with importing_ray():
        from stages.compute import cluster_ranks
    cluster_ranks.run(work, options)


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
            f"compute.engine: expected the packages of requirements-ray.txt for ray, found no {error.name}; install "
            "them with: pip install -r requirements-ray.txt -c requirements.lock"
        ) from None
