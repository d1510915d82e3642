"""Where the model runs."""

import torch


def device() -> torch.device:
    """The accelerator, where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
