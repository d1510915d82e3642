"""The ranks of a training as the workers of Ray Train, on a Ray cluster."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from ray import train
from ray.train.torch import TorchTrainer
from torch import distributed

from stages.common import files, progress
from stages.compute.cluster import PATIENCE, Place, Share, connected, first_line, gone

RESTARTS = 5
"""Times that a training goes on after one of its processes or nodes is gone."""


def run(work: Callable[[], None], options: Any) -> None:
    """Do `work` in the ranks of a training, and again if one of them is gone: it goes on from its last checkpoint. It
    meets the other ranks as those do that torchrun has started.

    Ray Train could start them again by itself, but would do so after an error of the work too, and would wait without
    end for nodes like those that are gone, where fewer cores for each rank do.

    Raises:
        PipelineError: the cluster is too small, or ranks were gone too often; or what `work` raises.
    """
    threads, reason = None, ""
    for tried in range(RESTARTS + 1):
        if tried:
            progress.say(f"train: a process is gone ({reason}); starting again from the last checkpoint")
        with files.scratch() as scratch, connected(options.address):
            share = Share.of(options.processes)
            threads = threads or share.cpus  # the same in every try: the last bits depend on it
            reason = tried_once(work, share, threads, scratch.absolute())
        if reason is None:
            return
    raise gone(f"{RESTARTS + 1} times, at last: {reason}")


def tried_once(work: Callable[[], None], share: Share, threads: int, scratch: Path) -> str | None:
    """Do `work` in ranks, and show what the first of them prints; returns why one is gone, None: all came to the end.

    Raises:
        PipelineError: a node lacks the folder or has other packages; or what `work` raises.
    """
    told, fitted = scratch / "told.txt", Future()
    told.touch()
    trainer = TorchTrainer(
        be_rank,
        train_loop_config={"work": work, "place": Place.here(), "threads": threads, "told": told},
        scaling_config=train.ScalingConfig(
            num_workers=share.count,
            use_gpu=bool(share.gpus),
            resources_per_worker={"CPU": share.cpus} | ({"GPU": 1} if share.gpus else {}),
        ),
        run_config=train.RunConfig(name="train", storage_path=str(scratch)),
    )
    # in a thread: in this one, Ray would handle signals instead of us
    threading.Thread(target=settle, args=(fitted, trainer.fit), daemon=True).start()
    with told.open() as lines:
        looked = time.monotonic()
        while wait([fitted], timeout=0.5).not_done:
            print(lines.read(), end="", file=sys.stderr, flush=True)
            if time.monotonic() - looked > PATIENCE:
                if share.room < share.count:
                    return "the nodes that are left have too few CPUs"
                looked = time.monotonic()
        print(lines.read(), end="", file=sys.stderr, flush=True)
    failed = fitted.exception()
    if failed is None:
        return None
    found = list(getattr(failed, "worker_failures", {0: failed}).values())
    for error in found:
        if isinstance(error, WorkError):
            raise error.args[0] from None
    said = f": {first_line(found[0])}" if type(found[0]) is RuntimeError else ""
    return f"{type(found[0]).__name__}{said}"


def settle(future: Future, work: Callable[[], Any]) -> None:
    """Do `work` for a future."""
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


class WorkError(Exception):
    """Holds an error of the work itself, which would come again."""


def be_rank(given: dict[str, Any]) -> None:
    """Do the work as a rank that Ray Train has started."""
    try:
        given["place"].enter()
        torch.set_num_threads(given["threads"])
        first = train.get_context().get_world_rank() == 0
        with given["told"].open("a", buffering=1) as told, redirect_stderr(told) if first else nullcontext():
            given["work"]()
    except Exception as error:
        # when a rank is gone, the others lose their connection to it
        if isinstance(error, distributed.DistError | ConnectionError) or "/gloo/" in str(error):
            raise
        raise WorkError(error) from None
