"""Temperature scaling: probabilities that mean what they say; no answer changes (Guo et al. 2017, section 4.2)."""

import numpy as np
from peft import PeftModel
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import nn
from transformers import PreTrainedModel

RANGE = (0.05, 20.0)
"""Temperatures tried; rows that are all right, or all wrong, would ask for 0 or infinity."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T within `RANGE` for which softmax(logits / T) has the lowest log loss.

    Args:
        logits: (rows, classes); labels: (rows,), both of rows that were not trained on.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return -log_softmax(scaled, axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))


def scale_head(model: PeftModel | PreTrainedModel, temperature: float) -> None:
    """Divide the model's logits by `temperature`, in place.

    The last layer of the head is scaled, so that the temperature is saved with it and holds wherever it is loaded.
    """
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    last = [
        part for part in whole.modules() if isinstance(part, nn.Linear) and part.out_features == model.config.num_labels
    ][-1]
    last.weight.data /= temperature
    if last.bias is not None:
        last.bias.data /= temperature
