"""The parameters that training changes, and their values."""

import torch
from torch import nn

Weights = list[torch.Tensor]
"""The values of a model's trained parameters, in the model's order."""


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training changes."""
    return [part for part in model.parameters() if part.requires_grad]


def copied(model: nn.Module) -> Weights:
    """The values of the trained parameters."""
    return [part.detach().clone() for part in trained(model)]


def put(model: nn.Module, weights: Weights) -> None:
    """Set the trained parameters to `weights`."""
    for part, values in zip(trained(model), weights, strict=True):
        part.data.copy_(values)
