"""How much of the machine's matmul rate encode and train reach, and what the fused adapters save.

    python -m benchmarks.share

Reads models/base and data/encoded. For each batch these are timed in turn, so that all run under the same conditions: a
large matrix product by torch, the same as frozen layers compute it, a training step with PEFT's adapters, and one with
fused adapters; for every fifth batch, also encode's batches, as the stage runs them. Shares are of the faster matrix
product. The counted work is that of the matrix products (`torch.utils.flop_counter`), without the last block's tokens
that the head does not read. Prints one line of JSON, medians.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from peft.tuners.lora import Linear
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from stages import encode, train
from stages.backbone import frozen_linear, parallel, precision, store
from stages.backbone.device import device
from stages.common import errors, paths
from stages.params import Params
from stages.training import fused

BATCHES, ROUNDS = 10, 2
SIZE = 2048
"""Rows and columns of the square matrices whose product measures the machine."""


def main() -> None:
    params = Params.load()
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "train", about, params.precision)
    model, _, _ = train.build(params, about, rows, seed=params.train.seeds[0])
    model.to(device()).train()
    encoder, _ = encode.load_frozen_blocks(
        params.lora.top_layers, matmul_precision=params.precision, layers=about.layers
    )
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4)
    train_batches = batches(rows, params.train.batch_size)
    encode_batches = batches(rows, params.encode.batch_size)

    def step(batch: dict[str, torch.Tensor]) -> None:
        with precision.autocast(params.precision):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def run(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])

    def encode_all() -> None:
        parallel.each_batch(encoder, run, encode_batches, progress="encode", precision=params.precision)

    train_work = [flops(step, batch) for batch in train_batches]  # PEFT's products, before they are fused
    with precision.autocast(params.precision):
        encode_work = [flops(partial(run, encoder), batch) for batch in encode_batches]
    fused.fuse(model, example=train_batches[0])
    fast = {part: part.forward for part in model.modules() if isinstance(part, Linear) and "forward" in vars(part)}
    square = torch.randn(SIZE, SIZE, device=device(), dtype=getattr(torch, params.precision))
    frozen = frozen_linear.Frozen(square, None)
    seconds: dict[str, list[float]] = {name: [] for name in ("torch", "frozen", "encode", "peft", "fused")}
    for number in [*range(BATCHES)] * ROUNDS:
        seconds["torch"].append(timed(torch.mm, square, square) / (2 * SIZE**3))
        seconds["frozen"].append(timed(frozen, square) / (2 * SIZE**3))
        if number % 5 == 0:
            seconds["encode"].append(timed(encode_all) / sum(encode_work))
        for layer in fast:
            del layer.forward
        seconds["peft"].append(timed(step, train_batches[number]) / train_work[number])
        for layer, forward in fast.items():
            layer.forward = forward
        seconds["fused"].append(timed(step, train_batches[number]) / train_work[number])
    rates = {name: 1 / median(values) / 1e9 for name, values in seconds.items()}
    ceiling = max(rates["torch"], rates["frozen"])
    train_token, encode_token = work_per_token(train_work, train_batches), work_per_token(encode_work, encode_batches)
    print(
        json.dumps(
            {
                "gflops": rates,
                "share": {name: rates[name] / ceiling for name in ("encode", "peft", "fused")},
                "tokens_per_s": {
                    "encode": rates["encode"] / encode_token,
                    "peft": rates["peft"] / train_token,
                    "fused": rates["fused"] / train_token,
                },
            }
        )
    )


def batches(rows: store.Rows, batch_size: int) -> list[dict[str, torch.Tensor]]:
    """`BATCHES` batches of rows of similar length, spread over all lengths."""
    chosen = rows.by_length(batch_size)
    spread = np.linspace(0, len(chosen) - 1, BATCHES).astype(int)
    return [{name: part.to(device()) for name, part in rows.batch(chosen[place]).items()} for place in spread]


def flops(call: Callable[[dict], None], batch: dict[str, torch.Tensor]) -> int:
    """Floating-point operations of the matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        call(batch)
    return counter.get_total_flops()


def work_per_token(work: list[int], batches: list[dict[str, torch.Tensor]]) -> float:
    """Floating-point operations per token, in 10^9."""
    return sum(work) / sum(int(batch["attention_mask"].sum()) for batch in batches) / 1e9


def timed(call: Callable, *arguments: object) -> float:
    """Seconds that the call took; on a GPU, until its work is done."""
    start = time.perf_counter()
    call(*arguments)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    errors.run_script(main, __doc__)
