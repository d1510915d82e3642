"""The classification head: where it starts, and what is scaled into it so that it holds wherever it is loaded."""

from functools import partial

import numpy as np
import torch
from peft import PeftModel
from sklearn.linear_model import RidgeCV
from torch import nn
from transformers import PreTrainedModel

from stages.backbone import parallel, store
from stages.classifier import model as classifier

ROWS = 1_000
"""On which a head is fitted, at most: more would take long, and training sees them all."""

PENALTIES = np.logspace(0, 6, 13)
"""Of ridge regression, in mean squares of its inputs; tried by leave-one-out."""


def fit(model: PreTrainedModel, rows: store.Rows, *, batch_size: int, precision: str, seed: int) -> None:
    """Let the head start as a linear probe (Kumar et al. 2022): its last layer as a ridge regression, in place.

    The regression is of numbers, or of classes as ±1/2. Its logits are small, where those of a logistic regression
    would be sure of the rows that it was fitted on and leave training little to learn from them.

    Args:
        rows: those of train, of which as many as `ROWS`, drawn with `seed`, are read.
        precision: of the matrix products, see `stages.backbone.precision`.
    """
    last = last_layer(model)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:ROWS]
    batches = [chosen[batch] for batch in store.by_length(rows.lengths[chosen], batch_size)]
    hook = last.register_forward_pre_hook(keep)
    read = parallel.each_batch(
        model, partial(inputs, rows=rows), batches, progress="train, the head's start", precision=precision
    )
    hook.remove()
    features = np.concatenate(read).astype(np.float64)
    # a decoder's head has no bias: constants come from its inputs' means
    ridge = RidgeCV(PENALTIES * np.square(features).mean(), fit_intercept=last.bias is not None)
    ridge.fit(features, targets(rows.labels[np.concatenate(batches)], last.out_features))
    last.weight.data.copy_(torch.from_numpy(ridge.coef_))
    if last.bias is not None:
        last.bias.data.copy_(torch.from_numpy(ridge.intercept_))


def keep(last: nn.Linear, args: tuple[torch.Tensor]) -> None:
    """Note what the head's last layer reads."""
    last.read = args[0]


def inputs(model: PreTrainedModel, numbers: np.ndarray, *, rows: store.Rows) -> np.ndarray:
    """What the head's last layer reads of the named rows, (rows, its inputs)."""
    batch = classifier.inputs(rows, numbers)
    model(**batch)
    read = last_layer(model).read
    return classifier.array(classifier.pooled_states(read, batch, model.config) if read.ndim == 3 else read)


def targets(labels: np.ndarray, outputs: int) -> np.ndarray:
    """What the logits are to be, (rows, outputs): numbers as they are, ±1/2 for classes."""
    if outputs == 1:
        return labels[:, None]
    return (labels if labels.ndim == 2 else np.eye(outputs)[labels]) - 0.5


def is_fresh(model: PreTrainedModel) -> bool:
    """Whether the base model was saved without its head."""
    last = last_layer(model)
    return any(part is last for name, part in model.named_modules() if name in model.fresh_modules)


def scale(model: PeftModel | PreTrainedModel, divisor: float) -> None:
    """Divide the model's logits by `divisor`, in place.

    The last layer of the head is scaled, so that a temperature, say, is saved with it and holds wherever it is loaded.
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
