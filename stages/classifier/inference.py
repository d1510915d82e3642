"""The classifier's answers for encoded rows, and the states behind them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from stages.backbone import parallel
from stages.backbone.device import to_cpu, to_device
from stages.backbone.precision import check_finite
from stages.backbone.store import Rows
from stages.classifier.last_token import last_tokens
from stages.classifier.model import is_causal


def logits(model: PreTrainedModel, rows: Rows, *, batch_size: int, progress: str) -> np.ndarray:
    """The model's logits for every row, (rows, classes) float32.

    Args:
        model: spliced at the depth of the stored states.
        progress: the label of the progress bar.

    Raises:
        PipelineError: some are not finite.
    """
    batches = rows.by_length(batch_size)
    compute = partial(logits_of_batch, rows=rows, what=progress)
    return in_order(parallel.each_batch(model, compute, batches, progress=progress), batches)


def logits_of_batch(model: PreTrainedModel, indices: np.ndarray, *, rows: Rows, what: str) -> np.ndarray:
    """The logits for the rows at `indices`, (batch, classes)."""
    found = array(model(**inputs(rows, indices)).logits)
    check_finite(found, rows.source_rows_of(indices), what=f"{what}: logits")
    return found


def logits_and_features(
    model: PreTrainedModel,
    rows: Rows,
    *,
    after: tuple[int, ...],
    batch_size: int,
    progress: str,
    precision: str = "float32",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same as `logits`, and from the same pass pooled hidden states, (rows, hidden), for each number in `after`.

    OPT may project its final hidden states.

    Args:
        after: numbers of layers after which the states are read; after all layers, that is after the final norm.
    """
    batches = rows.by_length(batch_size)
    compute = partial(logits_and_features_of_batch, rows=rows, after=after, what=progress)
    read = parallel.each_batch(model, compute, batches, progress=progress, precision=precision)
    found, *features = zip(*read, strict=True)
    return in_order(found, batches), [in_order(values, batches) for values in features]


def logits_and_features_of_batch(
    model: PreTrainedModel, indices: np.ndarray, *, rows: Rows, after: tuple[int, ...], what: str
) -> list[np.ndarray]:
    """The logits for the rows at `indices`, (batch, classes), and their pooled states, (batch, hidden), for each number
    in `after`."""
    batch = inputs(rows, indices)
    output = model(**batch, output_hidden_states=True)
    hidden = output.encoder_hidden_states if model.config.is_encoder_decoder else output.hidden_states
    found = [array(output.logits)]
    check_finite(found[0], rows.source_rows_of(indices), what=f"{what}: logits")
    for layers in after:
        place = layers - model.config.num_hidden_layers - 1  # from the end: a spliced model has fewer hidden states
        found.append(array(pooled_states(hidden[place], batch, model.config)))
        check_finite(found[-1], rows.source_rows_of(indices), what=f"{what}: states after layer {layers}")
    return found


def in_order(values: Sequence[np.ndarray], batches: list[np.ndarray]) -> np.ndarray:
    """The values of each batch's rows, (batch, columns), as one array in the order of the rows, (rows, columns)."""
    found = np.concatenate(values)
    result = np.empty_like(found)
    result[np.concatenate(batches)] = found
    return result


def pooled_states(hidden: torch.Tensor, batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> torch.Tensor:
    """One state for each row, (rows, hidden), from the states of its tokens, (rows, tokens, hidden).

    In a causal model it is the state of the last token, the only one that has seen the whole text; in an encoder, the
    mean over the tokens (Reimers & Gurevych 2019). Of an encoder-decoder they are the states of its encoder, as in
    Sentence-T5 (Ni et al. 2022): its decoder was trained to predict the next token.
    """
    if is_causal(config):
        return hidden[torch.arange(len(hidden)), last_tokens(batch["input_ids"], config.pad_token_id)]
    mask = batch["attention_mask"].unsqueeze(-1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def inputs(rows: Rows, indices: np.ndarray) -> dict[str, torch.Tensor]:
    """The rows at `indices` as the model takes them, without their labels, on the model's device."""
    return {name: to_device(tensor) for name, tensor in rows.batch(indices).items() if name != "labels"}


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as float32 in NumPy."""
    return to_cpu(tensor.float()).numpy()
