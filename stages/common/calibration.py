"""Outputs that mean what they say, wherever the model is loaded: what is fitted lies in the weights of its head.

Temperature scaling makes probabilities truthful and changes no answer (Guo et al. 2017, section 4.2); numbers get the
scale and the mean of what they are to predict.
"""

import numpy as np
import torch
from peft import PeftModel
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import Ridge
from torch import nn
from transformers import PreTrainedModel

RANGE = (0.05, 20.0)
"""Temperatures tried."""

PRIOR = 0.5
"""Standard deviation of log T around 0 that is expected beforehand: a few rows that are all right do not prove that all
are, and hundreds outweigh it."""

RIDGE = 0.1
"""Of the rows' mean square: in SmolLM2 a constant then differs by 1.3 % between rows, along their mean by 4 %."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T within `RANGE` that is most probable, given the log loss of the probabilities of logits / T and `PRIOR`.

    Args:
        logits: (rows, classes); labels: (rows,), both of rows that were not trained on. Or (rows, labels) both: the
            probabilities are then sigmoids, and labels has a 1 for those that a row has.
    """
    loss = class_loss if labels.ndim == 1 else label_loss

    def loss_at(log_temperature: float) -> float:
        prior = (log_temperature / PRIOR) ** 2 / 2
        return loss(logits.astype(np.float64) / np.exp(log_temperature), labels) + prior / labels.size

    return float(np.exp(minimize_scalar(loss_at, bounds=np.log(RANGE), method="bounded").x))


def class_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss of one class a row."""
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def label_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss of all labels' decisions."""
    return (np.logaddexp(0, logits) - labels * logits).mean()


def scale_head(model: PeftModel | PreTrainedModel, temperature: float) -> None:
    """Divide the model's logits by `temperature`, in place.

    The last layer of the head is scaled, so that the temperature is saved with it and holds wherever it is loaded.
    """
    last = last_layer(model)
    last.weight.data /= temperature
    if last.bias is not None:
        last.bias.data /= temperature


def shift_head(model: PreTrainedModel, shift: float, features: np.ndarray) -> None:
    """Add `shift` to the model's only logit, on average over the rows, in place.

    The head of a decoder has no bias, and one that is added would be lost in plain loading. Its weights move instead,
    the way that gives all rows nearly the same: along the ridge regression of a constant.

    Args:
        features: what the head reads of some rows, (rows, hidden).
    """
    last = last_layer(model)
    if last.bias is not None:
        last.bias.data += shift
        return
    penalty = RIDGE * np.square(features).sum(axis=1).mean()
    way = Ridge(alpha=penalty, fit_intercept=False).fit(features, np.ones(len(features))).coef_
    last.weight.data += torch.from_numpy(shift * way / (features @ way).mean()).to(last.weight)


def last_layer(model: PeftModel | PreTrainedModel) -> nn.Linear:
    """The head's last layer, which gives the logits."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    return [
        part for part in whole.modules() if isinstance(part, nn.Linear) and part.out_features == model.config.num_labels
    ][-1]
