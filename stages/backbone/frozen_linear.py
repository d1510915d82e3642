"""Matrix products with frozen weights: by oneDNN where it is faster than MKL, which torch uses for float32.

MKL is made by Intel for Intel's CPUs. On an AMD CPU with AVX-512 and 2 cores, oneDNN multiplied 1.2 times as fast
(`python -m benchmarks.bench share`); with AVX2 code it was no faster. The forward pass uses a second copy of the
weights, packed in oneDNN's own memory layout; the backward pass uses the original weights.

torch has no public function for oneDNN's products with packed weights. Only this module calls the private operators,
which torch.compile uses too.
"""

from typing import Self

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

ONEDNN_IS_FASTER = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and "AMD" in torch.cpu.get_capabilities().get("cpu_name", "")
)


def pack(model: nn.Module) -> None:
    """Make the float32 linear layers of `model` multiply by packed weights, in place; for inference only."""
    for part in model.modules():
        if type(part) in (nn.Linear, Conv1D) and (frozen := Frozen.of(part, part.weight.dtype)).packed is not None:
            part.forward = frozen


class Frozen:
    """A linear layer whose weights never change, y = x W' + b; x: (..., in), W: (out, in), b: (out,), y: (..., out)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.packed = None
        if ONEDNN_IS_FASTER and weight.device.type == "cpu" and weight.dtype == torch.float32:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    @classmethod
    def of(cls, layer: nn.Linear | Conv1D, dtype: torch.dtype) -> Self:
        """The product with the weights and bias of `layer`, in `dtype`."""
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        return cls(weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is None:
            return nn.functional.linear(x, self.weight, self.bias)
        return onednn(x, self.packed, self.bias)

    def add_gradient(self, total: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the gradient of x, (tokens, in), to `total`, given `gradient`, that of y, (tokens, out)."""
        if self.packed is None:
            total.addmm_(gradient, self.weight)
        else:
            total.add_(onednn(gradient, self.weight.T, None))

    def __deepcopy__(self, memo: dict) -> Self:
        return self  # replicas of a model share the packed weights


def onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W' + b by oneDNN, through the operator that torch.compile uses; `weight` may be packed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
