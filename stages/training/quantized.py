"""QLoRA's frozen layers in 4 bits, so that a larger model fits into memory (Dettmers et al. 2023)."""

import importlib.util

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.backbone import prefix
from stages.backbone.device import device
from stages.common.errors import PipelineError


def quantize(model: PreTrainedModel, depth: int, precision: str) -> None:
    """Convert linear layers of the blocks from `depth` on to 4-bit NormalFloat, in place, and move them to the device.

    Their quantization constants are quantized too (section 3); matrix products are computed in `precision`.

    Raises:
        PipelineError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PipelineError(
            "peft.method: qlora: expected bitsandbytes, found it not installed; install it with: "
            "pip install bitsandbytes"
        )
    kept = model._keep_in_fp32_modules or ()  # T5 reads the dtype of one of its weights, which 4 bits have not
    trained = [block for layers in prefix.stacks(model) for block in layers[depth:]]
    for block in trained or prefix.adapted(model, depth):
        for name, part in list(block.named_modules()):
            if isinstance(part, nn.Linear | Conv1D) and name.rpartition(".")[2] not in kept:
                block.set_submodule(name, in_four_bits(part, getattr(torch, precision)))
    model.is_loaded_in_4bit = True  # PEFT chooses 4-bit LoRA layers by this attribute


def in_four_bits(layer: nn.Linear | Conv1D, dtype: torch.dtype) -> nn.Linear:
    """The layer in 4 bits: nearly the same outputs from an eighth of the memory, with matrix products in `dtype`."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # an optional dependency

    weight = layer.weight.detach().T if isinstance(layer, Conv1D) else layer.weight.detach()
    outputs, inputs = weight.shape
    result = Linear4bit(inputs, outputs, bias=layer.bias is not None, compute_dtype=dtype, quant_type="nf4")
    result.weight = Params4bit(
        weight.contiguous(),
        requires_grad=False,
        quant_type="nf4",
        compress_statistics=True,
        quant_storage=weight.dtype,  # whatever the bytes mean: FSDP shares out floats only
        module=result,  # keeps the constants, which a weight loses while it is shared out
    )
    result.bias = layer.bias
    result.support_avx512bf16_for_cpu = False  # that path rounds differently in inference, and refuses some sizes
    return result.to(device())
