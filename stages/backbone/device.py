"""Where the model runs, and the way there and back.

On an accelerator, work and copies are queued. A copy through pinned memory waits for its own data alone; any other copy
also waits for the work that other threads have queued since.
"""

from typing import Any

import torch


def device() -> torch.device:
    """The accelerator, where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def machine() -> dict[str, Any]:
    """What of a machine the last bits of a result depend on."""
    return {"device": device(), "cpu": torch.cpu.get_capabilities(), "threads": torch.get_num_threads()}


def to_device(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the CPU's memory, where the model runs."""
    if device().type == "cpu":
        return tensor
    return tensor.pin_memory().to(device(), non_blocking=True)


def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, in the CPU's memory."""
    if tensor.device.type == "cpu":
        return tensor
    copy = tensor.to("cpu", non_blocking=True)  # into pinned memory
    torch.accelerator.current_stream().record_event().synchronize()
    return copy
