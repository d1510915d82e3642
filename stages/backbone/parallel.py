"""Inference with one batch per core: the many small products of a batch use one core well, but several poorly."""

import copy
import math
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from stages.backbone import frozen_linear
from stages.backbone.device import device
from stages.backbone.precision import autocast
from stages.common.progress import bar

MAX_BATCHES_AT_ONCE = 8
"""Maximum number of batches at once, however many cores there are; it limits the memory used."""

ON_ACCELERATOR = 2
"""Number of batches at once on an accelerator: it computes one while the other is made, or its results are written."""


def each_batch(
    model: nn.Module,
    compute: Callable[[nn.Module, Any], Any],
    batches: Sequence[Sized],
    *,
    progress: str | None,
    precision: str = "float32",
    as_one_of_many: bool = False,
    kept: dict[Any, SimpleQueue] | None = None,
) -> list[Any]:
    """`compute(model, batch)` for every batch of rows, in order, without gradients.

    On a CPU several batches are computed at once, each with its share of the cores, by a replica of the model:
    replicas share the weights, but not what modules store during a forward pass. An accelerator computes batches one
    after the other, in the order in which its two workers queue them.

    Args:
        progress: the label of the progress bar; a single batch has no bar. None: there is no bar.
        precision: of the matrix products, see `stages.backbone.precision`.
        as_one_of_many: compute even a single batch with one worker's cores and packed weights, so that its results are,
            bit for bit, the same as among many batches.
        kept: where the replicas are kept for further calls with the same model, whose weights do not change meanwhile.
    """
    if not batches:
        return []
    model = model.to(device()).eval()
    threads = torch.get_num_threads()
    on_cpu = device().type == "cpu"
    most = threads // math.ceil(threads / MAX_BATCHES_AT_ONCE) if on_cpu else ON_ACCELERATOR
    many = len(batches) > 1 or as_one_of_many
    workers, share = (min(most, len(batches)), max(1, threads // most)) if many else (1, threads)
    packed = precision == "float32" and many  # packing weights takes longer than it saves on a single batch
    kept = {} if kept is None else kept
    if (workers, packed) not in kept:
        kept[workers, packed] = replicas_of(model, workers, packed=packed)
    replicas = kept[workers, packed]

    def work(batch: Any) -> Any:
        replica = replicas.get()
        try:
            with torch.inference_mode(), autocast(precision):
                return compute(replica, batch)
        finally:
            replicas.put(replica)

    results, hidden = [], len(batches) == 1 or progress is None
    try:
        with (
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool,
            bar(progress or "", total=sum(map(len, batches)), unit="row", hidden=hidden) as shown,
        ):
            try:
                for batch, result in zip(batches, pool.map(work, batches), strict=True):
                    results.append(result)
                    shown.update(len(batch))
            finally:
                pool.shutdown(cancel_futures=True)  # an interruption waits for the current batches alone
    finally:
        torch.set_num_threads(threads)
    return results


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
