"""The split at a block: the frozen blocks' output is captured once, and handed over in every later run.

LoRA on the top k of n blocks leaves the lower n - k a fixed function of the text. `capture` runs only those, for
what block n - k would get; `splice` takes them out of a model and feeds it what was captured. Indices, masks,
rotary tables and position ids stay those of the full model, so the spliced model's logits are the full model's, and an
adapter trained on it loads on the plain model.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from stages.common.errors import PipelineError


class PassThrough(nn.Module):
    """Stands where a block stood and returns the hidden states that it gets.

    Models read attributes of their blocks (`attention_type`, `layer_idx`); those are kept, the weights are not.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__ |= {name: value for name, value in vars(block).items() if isinstance(value, str | int | bool)}

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states


class Recorder(PassThrough):
    """A pass-through that keeps what went through it last."""

    states: torch.Tensor

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.states = hidden_states
        return hidden_states


class StoredStates(PassThrough):
    """A pass-through that returns the `states` of the current batch instead of what it gets."""

    states: torch.Tensor

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.states.to(hidden_states)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks: its `ModuleList` as long as `config.num_hidden_layers`.

    Raises:
        PipelineError: there is not exactly one such list.
    """
    count = model.config.num_hidden_layers
    found = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if len(found) != 1:
        raise PipelineError(
            f"{type(model).__name__}: expected one list of {count} blocks, found {len(found)}; set lora.top_layers: all"
        )
    return found[0]


def depth(layers: int, top_layers: int | str) -> int:
    """How many of a model's blocks lie below the top ones that are trained.

    Raises:
        PipelineError: there are more top layers than layers.
    """
    if top_layers == "all":
        return 0
    if top_layers > layers:
        raise PipelineError(f"lora.top_layers: expected at most the model's {layers} layers, found {top_layers}")
    return layers - top_layers


def capture(model: nn.Module, depth: int) -> None:
    """Cut `model`, in place, above its lowest `depth` blocks; its forward then returns their output.

    That is a tensor of the shape (batch, tokens, hidden).
    """
    layers = blocks(model)
    layers[depth] = Recorder(layers[depth])
    for index in range(depth + 1, len(layers)):
        layers[index] = PassThrough(layers[index])

    def states(model: nn.Module, args: tuple, output: ModelOutput) -> torch.Tensor:
        return blocks(model)[depth].states

    model.register_forward_hook(states)


def splice(model: nn.Module, depth: int) -> None:
    """Take the lowest `depth` blocks out of `model`, in place; its forward then also takes their output, `states`.

    `states` has the shape (batch, tokens, hidden). At depth 0 nothing changes.
    """
    if not depth:
        return
    layers = blocks(model)
    layers[0] = StoredStates(layers[0])
    for index in range(1, depth):
        layers[index] = PassThrough(layers[index])

    def hand_over(model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        blocks(model)[0].states = kwargs.pop("states")
        return args, kwargs

    model.register_forward_pre_hook(hand_over, with_kwargs=True)
