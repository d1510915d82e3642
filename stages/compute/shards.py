"""A model that is too large for one device: each rank of a training holds its share of every weight.

PyTorch's fully sharded data parallelism (FSDP2; Zhao et al. 2023): the weights of one block at a time are gathered for
its forward and its backward pass, and gradients and the optimizer's state are shared out as the weights are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from stages.backbone.device import device
from stages.backbone.parallel import Way
from stages.backbone.precision import autocast
from stages.common.errors import PipelineError
from stages.common.texts import shortened


def mesh() -> DeviceMesh:
    """The devices of all ranks; every rank calls this at the same time."""
    return init_device_mesh(device().type, (distributed.get_world_size(),))


def shard(model: nn.Module, base: PreTrainedModel, blocks: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Leave this rank its share of every weight, in place, on its device; every rank does so with the same model.

    Args:
        model: `base`, or adapters around it; blocks: its parts whose weights are gathered by themselves, those of all
            others together.

    Raises:
        PipelineError: PyTorch cannot share out the weights, for example one that blocks have in common.
    """
    try:
        for part in (*blocks, model):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        reason = shortened(" ".join(str(error).split()), 200)
        raise PipelineError(f"compute.strategy: expected ddp, as fsdp cannot share out this model: {reason}") from error
    base._is_distributed_loading_by_transformers = True  # the Trainer then neither wraps nor moves the model


def is_sharded(model: nn.Module) -> bool:
    """Whether this rank holds only its share of the weights."""
    return isinstance(model, FSDPModule)


def assign(part: nn.Parameter, values: torch.Tensor) -> None:
    """Set a parameter, of which this rank may hold a share, to values that all ranks have."""
    if isinstance(part, DTensor):
        values = distribute_tensor(values.to(part.device), part.device_mesh, part.placements, src_data_rank=None)
    part.data.copy_(values)


def whole(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """The trained weights and the buffers by name, whole, in the first rank, and nothing in the others; every rank
    calls this. None: the model is not sharded."""
    if not is_sharded(model):
        return None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options)


def in_step(model: nn.Module, compute: Callable[[nn.Module, Any], Any], batches: Sequence[Any], way: Way) -> list[Any]:
    """`compute(model, batch)` for every batch, without gradients; every rank has as many, as it takes all of them to
    gather the weights."""
    model.eval()
    with torch.no_grad(), autocast(way.precision):  # weights cannot be gathered in inference mode
        return [compute(model, batch) for batch in batches]
