"""A Ray cluster, whose nodes share the folder of the repository at one path and have the same packages."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import ray
from ray._private import services, worker
from ray.exceptions import RayError

from stages.common import errors
from stages.common.errors import PipelineError

PATIENCE = 10.0
"""Seconds after which it is noticed that no cluster is there, or that the nodes which are left cannot do the work."""

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "peft", "accelerate")
"""Packages whose version can change the bytes of a batch or of a training."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be part of the cluster within the block; what runs there for this process ends with it.

    Raises:
        PipelineError: there is none.
    """
    try:
        join(address or os.environ.get("RAY_ADDRESS") or "auto")
        yield
    except SystemExit as stopped:
        if isinstance(stopped, errors.Interrupted):
            raise
        raise errors.Interrupted(128 + signal.SIGTERM) from None  # a signal came while Ray was waiting for the cluster
    finally:
        ray.shutdown()


def join(address: str) -> None:
    """Connect to the cluster; signals are handled as before.

    Raises:
        PipelineError: there is none.
    """
    handlers = {number: signal.getsignal(number) for number in errors.ENDING}
    try:
        host, _, port = services.canonicalize_bootstrap_address_or_die(address).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()  # Ray itself would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise PipelineError(
            f"expected a Ray cluster at {address} with this machine as a node of it, found none "
            f"({first_line(error)}); start it with `ray start`, or name another one as HOST:PORT"
        ) from None
    finally:
        worker._worker_logs_enabled = False  # what Ray would print on standard output, as of a node that is gone
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of the cluster each process has."""

    count: int
    """How many processes there are."""
    cpus: int
    """As many as all of them can have."""
    gpus: int
    """One, if the cluster has any."""

    @classmethod
    def of(cls, count: int) -> Self:
        """Share the cluster among so many processes.

        Raises:
            PipelineError: it has fewer CPUs or GPUs.
        """
        gpus = int(any("GPU" in node for node in nodes()))
        most = max(int(node.get("CPU", 0)) for node in nodes())
        shares = (cls(count=count, cpus=cpus, gpus=gpus) for cpus in range(most, 0, -1))
        if found := next((share for share in shares if share.room >= count), None):
            return found
        room = cls(count=count, cpus=1, gpus=gpus).room
        raise PipelineError(
            f"expected at most {room} processes, one for each {'GPU' if gpus else 'CPU'} of the Ray cluster, "
            f"found {count}; start fewer, or more nodes"
        )

    @property
    def room(self) -> int:
        """For how many such shares the nodes have room that the cluster has now."""
        sizes = ((node.get("CPU", 0) // self.cpus, node.get("GPU", 0)) for node in nodes())
        return sum(int(min(of_cpus, of_gpus) if self.gpus else of_cpus) for of_cpus, of_gpus in sizes)


def nodes() -> list[dict[str, float]]:
    """The resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a command runs, which a process of the cluster has to have, too."""

    folder: Path
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Self:
        return cls(folder=Path.cwd(), versions={name: version(name) for name in PACKAGES})

    def enter(self) -> None:
        """Enter the folder.

        Raises:
            PipelineError: there is none, or the packages have other versions.
        """
        node, found = socket.gethostname(), Place.here().versions
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise PipelineError(
                f"expected all nodes to share {self.folder}, found one without it, {node} ({error.strerror}); mount it "
                "there at the same path"
            ) from None
        for name, expected in self.versions.items():
            if found[name] != expected:
                raise PipelineError(
                    f"expected {name} {expected} on all nodes, as on this one, found {found[name]} on {node}; install "
                    "the same packages there"
                )


def gone(how: str) -> PipelineError:
    """The error that a process is gone."""
    return PipelineError(
        f"expected all processes to run to the end, found one that was gone {how}, perhaps for want of memory; run the "
        "command again, or with fewer processes"
    )


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
