"""LoRA in few, large matrix products: the results of PEFT, forward and backward, in less time.

PEFT computes an adapted projection as `base(x) + lora_B(lora_A(x)) * scaling`, with a temporary tensor as large as the
output for every step, and its backward pass multiplies tall, thin matrices in a slow order. Here one autograd function
computes all projections that share an input (query, key and value; gate and up): one product with their stacked A
factors, and every low-rank update added in place. The layers stay PEFT's own: saved, loaded and merged by PEFT.
"""

import threading
from collections import Counter
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from stages.backbone.frozen_linear import Frozen


def fuse(model: PeftModel, example: dict[str, torch.Tensor]) -> Counter[str]:
    """Make the LoRA layers of `model` compute with `LowRankUpdates`, in place.

    Layers for which that is not possible keep PEFT's `forward`.

    Args:
        example: any batch that the model takes; one pass over it shows which layers share an input.

    Returns:
        How many layers keep PEFT's `forward`, by reason.
    """
    layers = [part for part in model.modules() if isinstance(part, Linear)]
    reasons = {layer: reason for layer in layers if (reason := reason_not_fused(layer))}
    if fusible := [layer for layer in layers if layer not in reasons]:
        for group in grouped_by_input(model, fusible, example):
            LayersSharingInput(group)
    return Counter(reasons.values())


def reason_not_fused(layer: Linear) -> str | None:
    """Why a layer must keep PEFT's `forward`; None: it can be fused."""
    base = layer.get_base_layer()
    adapters = layer.active_adapters
    if len(adapters) != 1 or adapters[0] not in layer.lora_A:
        return "not exactly one active adapter"
    if layer.lora_variant or any(layer.lora_bias.values()):
        return "a variant of LoRA"
    if not isinstance(layer.lora_dropout[adapters[0]], nn.Identity):
        return "dropout"
    if type(base) not in (nn.Linear, Conv1D) or any(parameter.requires_grad for parameter in base.parameters()):
        return "a base layer that is trained or not linear"
    if isinstance(base.weight, DTensor):
        return "weights that are spread over processes"
    return None


def grouped_by_input(model: nn.Module, layers: list[Linear], example: dict[str, torch.Tensor]) -> list[list[Linear]]:
    """The layers, grouped by the tensor object that they get as input, found in one pass over `example`."""
    groups: list[tuple[torch.Tensor, list[Linear]]] = []  # the tensors are held, so that no two share an address

    def note(layer: Linear, args: tuple[torch.Tensor]) -> None:
        if groups and groups[-1][0] is args[0]:
            groups[-1][1].append(layer)
        else:
            groups.append((args[0], [layer]))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    there = next(model.parameters()).device  # the accelerator's, once a start has been fitted
    with torch.no_grad():
        model(**{name: values.to(there) for name, values in example.items()})
    for hook in hooks:
        hook.remove()
    return [group for _, group in groups]


class LayersSharingInput:
    """Layers that share an input: the first one called computes the outputs of all.

    Replicas of the model, each in a thread of its own, share this object.
    """

    def __init__(self, layers: list[Linear]) -> None:
        self.layers = layers
        self.of_thread = threading.local()
        self.frozen: dict[torch.dtype, list[Frozen]] = {}
        for layer in layers:
            layer.forward = lambda x, layer=layer: self.output(layer, x)

    def output(self, layer: Linear, x: torch.Tensor) -> torch.Tensor:
        """What PEFT's `layer.forward(x)` returns."""
        if layer.disable_adapters or layer.merged:
            return type(layer).forward(layer, x)
        given, outputs = getattr(self.of_thread, "kept", (None, {}))
        if given is not x or layer not in outputs:
            outputs = dict(zip(self.layers, self.compute(x), strict=True))
        result = outputs.pop(layer)
        self.of_thread.kept = (x, outputs) if outputs else (None, {})
        return result

    def compute(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of all layers, in autocast's dtype where autocast is on."""
        name = self.layers[0].active_adapters[0]
        factors = [
            *(layer.lora_A[name].weight for layer in self.layers),
            *(layer.lora_B[name].weight for layer in self.layers),
        ]
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, factors = x.to(dtype), [factor.to(dtype) for factor in factors]
        if x.dtype not in self.frozen:
            self.frozen[x.dtype] = [Frozen.of(layer.get_base_layer(), x.dtype) for layer in self.layers]
        scalings = [layer.scaling[name] for layer in self.layers]
        return LowRankUpdates.apply(self.frozen[x.dtype], scalings, x, *factors)


class LowRankUpdates(torch.autograd.Function):
    """y_i = x W_i' + b_i + s_i (x A_i') B_i' for the projections i that share the input x (Hu et al. 2021, eq. 3).

    Gradients flow to x, A and B; the base layers' W (out, in) and b (out,) are frozen. x: (..., in), A: (r, in),
    B: (out, r), y: (..., out).
    """

    @staticmethod
    def forward(
        ctx: Any, bases: list[Frozen], scalings: list[float], x: torch.Tensor, *factors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        downs, ups = factors[: len(bases)], factors[len(bases) :]
        tokens, down = x.flatten(0, -2), torch.cat(downs)
        low = tokens @ down.T
        ctx.bases, ctx.ranks, ctx.scalings = bases, [len(factor) for factor in downs], scalings
        outputs = []
        for base, part, up, scaling in zip(bases, low.split(ctx.ranks, dim=1), ups, scalings, strict=True):
            output = base(tokens).addmm_(part, up.T, alpha=scaling)
            # not a view to autograd: DeBERTa changes some of its projections' outputs in place
            outputs.append(output.new_empty(0).set_(output.unflatten(0, x.shape[:-1])))
        ctx.save_for_backward(x, low, down, *ups)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, low, down, *ups = ctx.saved_tensors
        tokens = x.flatten(0, -2)
        arriving = [gradient.flatten(0, -2) for gradient in gradients]

        # (low' g)' and g (B')' rather than g' low and g B: the same products, several times faster at these shapes
        up_gradients = [
            (part.T @ gradient).mul_(scaling).T
            for part, gradient, scaling in zip(low.split(ctx.ranks, dim=1), arriving, ctx.scalings, strict=True)
        ]
        low_gradient = torch.cat(
            [
                (gradient @ up.T.contiguous().T).mul_(scaling)
                for gradient, up, scaling in zip(arriving, ups, ctx.scalings, strict=True)
            ],
            dim=1,
        )
        down_gradients = (low_gradient.T @ tokens).split(ctx.ranks)
        x_gradient = None
        if ctx.needs_input_grad[2]:
            x_gradient = low_gradient @ down
            for base, gradient in zip(ctx.bases, arriving, strict=True):
                base.add_gradient(x_gradient, gradient)
            x_gradient = x_gradient.unflatten(0, x.shape[:-1])
        return None, None, x_gradient, *down_gradients, *up_gradients
