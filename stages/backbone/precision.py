"""Matrix products in 16 bits: faster on hardware with units for them: GPUs, and CPUs with AMX or AVX512-BF16.

And numbers that are none: `check_finite` is asked wherever a model's states or logits are read.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from stages.backbone.device import device
from stages.common.errors import PipelineError

FLOAT32_ATTENTION = "sdpa_float32"
"""The name under which `attention` is registered with transformers."""


def check(precision: str) -> None:
    """Refuse a precision that this machine cannot train in.

    Raises:
        PipelineError: float16 is asked for without a GPU.
    """
    if precision == "float16" and device().type == "cpu":
        raise PipelineError("precision: expected float32 or bfloat16 without a GPU, found float16")


def check_finite(values: Iterable[np.ndarray], rows: Iterable[int], *, what: str) -> None:
    """Check what a model computed for some rows.

    Args:
        values: for each row an array of any shape.
        rows: their numbers, by which a user knows them.
        what: the values, after the name of the stage or command.

    Raises:
        PipelineError: some are NaN or infinite.
    """
    for row, of_row in zip(rows, values, strict=True):
        if not np.isfinite(of_row).all():
            raise PipelineError(
                f"{what}: expected finite numbers, found NaN or infinity in row {row}; if precision is not float32, "
                "set it, or else restore what is damaged, the model's weights or its stored states, with: "
                "dvc checkout --force"
            )


def autocast(precision: str) -> torch.autocast:
    """The context for matrix products in `precision`; norms and the states between blocks stay float32."""
    return torch.autocast(device().type, dtype=getattr(torch, precision), enabled=precision != "float32")


def multiple_of_tokens(precision: str) -> int:
    """Batches are best padded to a multiple of this: in 16 bits each shape needs its own kernel, slow to make."""
    return 1 if precision == "float32" else 8


def convert_linear_weights(model: nn.Module, precision: str) -> None:
    """Convert weights of linear layers to `precision`, in place, so that autocast need not cast them for every batch.

    For inference only, which does not need the weights in float32.
    """
    for part in model.modules():
        if isinstance(part, nn.Linear | Conv1D):
            part.to(getattr(torch, precision))


def attend_in_float32(model: PreTrainedModel) -> None:
    """Keep attention out of autocast on a CPU, in place: its backward pass is several times slower in 16 bits."""
    if device().type == "cpu" and attention_of(model) == "sdpa":
        AttentionInterface.register(FLOAT32_ATTENTION, attention)
        AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
        model.set_attn_implementation(FLOAT32_ATTENTION)


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves in float32."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return super().forward(values.float())


def multiply_in_float32(layer: nn.Linear) -> None:
    """Keep a layer out of autocast, in place: in bfloat16 all outputs from 199.5 to 200.5 are the same number."""
    layer.__class__ = Float32Linear


def attention_of(model: PreTrainedModel) -> str:
    """The name of the model's attention implementation, which transformers exposes only in a private attribute."""
    return model.config._attn_implementation


def attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa` in float32, of all tensors that it gets: T5 adds a bias for the distance of tokens."""
    args = [in_float32(part) for part in args]
    kwargs = {name: in_float32(part) for name, part in kwargs.items()}
    with torch.autocast(query.device.type, enabled=False):
        output, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), *args, **kwargs)
    return output.to(value.dtype), weights


def in_float32(value: Any) -> Any:
    """A tensor of numbers in float32; anything else as it is."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
