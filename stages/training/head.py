"""The classification head: its initial weights, and the scaling of its weights after training."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from peft import PeftModel
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from torch import nn
from transformers import PreTrainedModel

from stages.backbone import parallel, store
from stages.backbone.precision import check_finite
from stages.classifier import inference, label_words
from stages.classifier.saved_head import last_layer
from stages.common.errors import PipelineError
from stages.compute import shards
from stages.problems.kinds import of_model

MAX_ROWS = 3_000
"""Rows on which a head is fitted, at most: more would take long, and training sees all."""

RIDGE_PENALTIES = np.logspace(0, 6, 13)
"""Penalties of ridge regression, as multiples of the mean square of its inputs; chosen by leave-one-out."""

FEW_CLASSES = 10
"""Classes or labels up to which a head is fitted by ridge regression."""

STRENGTH = 0.01
"""Inverse strength C of the regularization of logistic regression, on inputs whose mean square is 1: so strong that the
head fits its rows loosely, and leaves training much to learn."""

Weights = tuple[torch.Tensor, torch.Tensor | None]
"""Weight, (outputs, inputs), and bias, (outputs,), of the head's last layer; a decoder's head has no bias."""

Start = Callable[[PeftModel | PreTrainedModel], None]
"""Puts a model with its adapters into the state from which a training may start, in place."""


def starts(
    model: PreTrainedModel,
    rows: store.Rows,
    *,
    init: str,
    batch_size: int,
    precision: str,
    seed: int,
    later: bool = False,
) -> dict[str, Start]:
    """The heads from which a training may start, by name.

    Args:
        model: with the label words' head where `init` allows it and the model has one, see `load_base`; spliced.
        rows: the training rows.
        init: `lora.head_init`. `auto` tries both the probe and, where the model has one, the label words' head.
        later: fit the probe only once it is tried, on the model with its adapters, which change nothing yet.

    Raises:
        PipelineError: the label words' head is asked for, but the model has none.
    """
    problem = of_model(model.config.problem_type)
    if not is_fresh(model) and not problem.numeric:
        return {"saved": partial(put, weights=copied(model))}
    mean = init == "mean_probe"  # see stages.training.first_token
    probe = init in ("auto", "probe")
    words = init in ("auto", "label_words") and label_words.has_label_word_head(model)
    if init == "label_words" and not words:
        raise PipelineError(
            "lora.head_init: label_words: expected classes and a decoder that was saved with its language-model head, "
            f"found {problem.name} and {', '.join(model.config.architectures or [model.config.model_type])}; "
            "set lora.head_init: auto"
        )
    found = {}
    if words or not (probe or mean):
        found["label_words" if words else "random"] = partial(put, weights=copied(model))
    if probe:
        fit = partial(fitted, rows=rows, batch_size=batch_size, precision=precision, seed=seed)
        found["probe"] = partial(put_fitted, fit=fit) if later else partial(put, weights=fit(model))
    return found


def copied(model: PreTrainedModel) -> Weights:
    """The weights of the head's last layer."""
    last = last_layer(model)
    return last.weight.detach().clone(), None if last.bias is None else last.bias.detach().clone()


def put(model: PeftModel | PreTrainedModel, weights: Weights) -> None:
    """Set the head's last layer to `weights`, in place."""
    last = last_layer(model)
    shards.assign(last.weight, weights[0])
    if last.bias is not None:
        shards.assign(last.bias, weights[1])


def put_fitted(model: PeftModel | PreTrainedModel, fit: Callable[[PeftModel | PreTrainedModel], Weights]) -> None:
    """Fit the head's last layer, and set it, in place."""
    put(model, fit(model))


def fitted(
    model: PeftModel | PreTrainedModel, rows: store.Rows, *, batch_size: int, precision: str, seed: int
) -> Weights:
    """A linear probe (Kumar et al. 2022): the last layer of the head, fitted on the states that it reads.

    By ridge regression, of classes with the targets ±1/2: the logits are small, and leave training much to learn. Of
    more than `FEW_CLASSES`, or labels, they would be too small: with 77 classes, the right one would have a probability
    of 3 %, and training would first distort the states. These take a logistic regression that fits loosely; one that
    fits best is confident on the rows that it was fitted on.

    Args:
        rows: the training rows; `MAX_ROWS` of them, drawn with `seed`, are read.
        precision: of the matrix products, see `stages.backbone.precision`.
    """
    last = last_layer(model)
    indices = np.random.default_rng(seed).permutation(len(rows))[:MAX_ROWS]
    batches = [indices[batch] for batch in store.by_length(rows.lengths[indices], batch_size)]
    hook = last.register_forward_pre_hook(keep_inputs)
    read = parallel.each_batch(
        model, partial(head_inputs, rows=rows), batches, progress="train, linear probe", precision=precision
    )
    hook.remove()
    features, labels = np.concatenate(read).astype(np.float64), rows.labels[np.concatenate(batches)]
    # a decoder's head has no bias: a constant then comes from the means of its inputs
    bias = last.bias is not None
    if last.out_features > FEW_CLASSES:
        weight, constant = logistic(features, labels, outputs=last.out_features, bias=bias)
    else:
        ridge = RidgeCV(RIDGE_PENALTIES * np.square(features).mean(), fit_intercept=bias)
        ridge.fit(features, targets(labels, last.out_features))
        weight, constant = ridge.coef_, np.atleast_1d(ridge.intercept_)
    return torch.from_numpy(weight).float(), torch.from_numpy(constant).float() if bias else None


def logistic(features: np.ndarray, labels: np.ndarray, *, outputs: int, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """The weight, (outputs, inputs), and bias, (outputs,), of a logistic regression, or of one for each of several
    labels.

    Args:
        features: (rows, inputs); labels: classes, (rows,), or 0 and 1 for each label, (rows, outputs); outputs: how
            many classes or labels there are; bias: else it is 0.
    """
    several, scale = labels.ndim == 2, np.sqrt(np.square(features).mean(axis=0)).clip(min=np.finfo(np.float32).tiny)
    # of each class, or with and without each label, there is a row of zeros, as these rows may have none
    of_each = np.repeat([[0], [1]], outputs, axis=1) if several else np.arange(outputs)
    inputs, zeros = features / scale, np.zeros((len(of_each), features.shape[1]))
    regression = LogisticRegression(C=STRENGTH, fit_intercept=bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training goes on from here
        found = (OneVsRestClassifier(regression) if several else regression).fit(
            np.concatenate([inputs, zeros]), np.concatenate([labels, of_each])
        )
    parts = found.estimators_ if several else [found]
    weight, constant = (np.concatenate([getattr(part, name) for part in parts]) for name in ("coef_", "intercept_"))
    return weight / scale, constant


def keep_inputs(last: nn.Linear, args: tuple[torch.Tensor]) -> None:
    """Keep the input of the head's last layer."""
    last.read = args[0]


def head_inputs(model: PreTrainedModel, indices: np.ndarray, *, rows: store.Rows) -> np.ndarray:
    """The inputs of the head's last layer for the rows at `indices`, (rows, inputs)."""
    batch = inference.inputs(rows, indices)
    model(**batch)
    read = last_layer(model).read
    found = inference.array(inference.pooled_states(read, batch, model.config) if read.ndim == 3 else read)
    check_finite(found, rows.source_rows_of(indices), what="train: states that the head reads")
    return found


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
