"""Inference with a batch on every core: its many small products keep one core busy, and leave several waiting."""

import copy
import math
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from stages.backbone import frozen_linear
from stages.backbone.device import device
from stages.backbone.precision import autocast

MOST = 8
"""Batches at once on a machine of many cores; bounds the memory."""


def each_batch(
    model: nn.Module,
    compute: Callable[[nn.Module, Any], Any],
    batches: Sequence[Sized],
    *,
    progress: str,
    precision: str = "float32",
) -> list[Any]:
    """`compute(model, batch)` for every batch of rows, in order, without gradients.

    On a CPU several batches are computed at once, each with its share of the cores, by a replica of the model that has
    the same weights: what modules keep during a forward pass stays apart. On an accelerator, one after the other.

    Args:
        progress: what the progress bar says; a single batch has none.
        precision: of the matrix products, see `stages.backbone.precision`.
    """
    model = model.to(device()).eval()
    threads = torch.get_num_threads()
    workers = min(threads // math.ceil(threads / MOST), len(batches)) if device().type == "cpu" else 1
    weights = {id(part): part for part in [*model.parameters(), *model.buffers()]}
    replica = copy.deepcopy(model, dict(weights))
    if precision == "float32" and len(batches) > 1:  # packing weights takes longer than it saves on one
        frozen_linear.freeze(replica)
    replicas = SimpleQueue()
    for _ in range(workers):
        replicas.put(copy.deepcopy(replica, dict(weights)))

    def work(batch: Any) -> Any:
        replica = replicas.get()
        try:
            with torch.inference_mode(), autocast(precision):
                return compute(replica, batch)
        finally:
            replicas.put(replica)

    results = []
    try:
        with (
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool,
            tqdm(total=sum(map(len, batches)), desc=progress, unit="row", disable=len(batches) == 1) as bar,
        ):
            for batch, result in zip(batches, pool.map(work, batches), strict=True):
                results.append(result)
                bar.update(len(batch))
    finally:
        torch.set_num_threads(threads)
    return results
