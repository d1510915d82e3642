"""The classification head: its initial weights, and the scaling of its weights after training."""

from functools import partial

import numpy as np
import torch
from peft import PeftModel
from sklearn.linear_model import RidgeCV
from torch import nn
from transformers import PreTrainedModel

from stages.backbone import parallel, store
from stages.classifier import inference

MAX_ROWS = 1_000
"""Maximum number of rows on which a head is fitted: more would take long, and training sees all of them."""

RIDGE_PENALTIES = np.logspace(0, 6, 13)
"""Penalties of ridge regression, as multiples of the mean square of its inputs; chosen by leave-one-out."""


def fit(model: PreTrainedModel, rows: store.Rows, *, batch_size: int, precision: str, seed: int) -> None:
    """Initialize the head as a linear probe (Kumar et al. 2022): fit its last layer by ridge regression, in place.

    The targets are numbers, or ±1/2 for classes. The resulting logits are small; those of a logistic regression would
    be overconfident on the rows that it was fitted on and leave training little to learn from them.

    Args:
        rows: the training rows; at most `MAX_ROWS` of them, drawn with `seed`, are read.
        precision: of the matrix products, see `stages.backbone.precision`.
    """
    last = last_layer(model)
    indices = np.random.default_rng(seed).permutation(len(rows))[:MAX_ROWS]
    batches = [indices[batch] for batch in store.by_length(rows.lengths[indices], batch_size)]
    hook = last.register_forward_pre_hook(keep_inputs)
    read = parallel.each_batch(
        model, partial(head_inputs, rows=rows), batches, progress="train, initial head", precision=precision
    )
    hook.remove()
    features = np.concatenate(read).astype(np.float64)
    # a decoder's head has no bias: a constant then comes from the means of its inputs
    ridge = RidgeCV(RIDGE_PENALTIES * np.square(features).mean(), fit_intercept=last.bias is not None)
    ridge.fit(features, targets(rows.labels[np.concatenate(batches)], last.out_features))
    last.weight.data.copy_(torch.from_numpy(ridge.coef_))
    if last.bias is not None:
        last.bias.data.copy_(torch.from_numpy(ridge.intercept_))


def keep_inputs(last: nn.Linear, args: tuple[torch.Tensor]) -> None:
    """Keep the input of the head's last layer."""
    last.read = args[0]


def head_inputs(model: PreTrainedModel, indices: np.ndarray, *, rows: store.Rows) -> np.ndarray:
    """The inputs of the head's last layer for the rows at `indices`, (rows, inputs)."""
    batch = inference.inputs(rows, indices)
    model(**batch)
    read = last_layer(model).read
    return inference.array(inference.pooled_states(read, batch, model.config) if read.ndim == 3 else read)


def targets(labels: np.ndarray, outputs: int) -> np.ndarray:
    """The targets for the logits, (rows, outputs): numbers unchanged, ±1/2 for classes."""
    if outputs == 1:
        return labels[:, None]
    return (labels if labels.ndim == 2 else np.eye(outputs)[labels]) - 0.5


def is_fresh(model: PreTrainedModel) -> bool:
    """Whether the base model was saved without its head."""
    last = last_layer(model)
    return any(part is last for name, part in model.named_modules() if name in model.fresh_modules)


def scale(model: PeftModel | PreTrainedModel, divisor: float) -> None:
    """Divide the model's logits by `divisor`, in place.

    The last layer of the head is scaled, so that a temperature, for example, is saved with the model and applies
    wherever it is loaded.
    """
    last = last_layer(model)
    last.weight.data /= divisor
    if last.bias is not None:
        last.bias.data /= divisor


def last_layer(model: PeftModel | PreTrainedModel) -> nn.Linear:
    """The head's last layer, which gives the logits."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    return [
        part for part in whole.modules() if isinstance(part, nn.Linear) and part.out_features == model.config.num_labels
    ][-1]
