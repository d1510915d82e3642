"""What a model answers to texts: the answer, its probability, that of each class, and whether to abstain from it.

A `Classifier` has all that an answer depends on. What computes its logits is a function, so that the same answers can
come from PyTorch or from another runtime.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
import pandas as pd
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.adapters.load import load
from stages.adapters.run import Run
from stages.backbone import parallel, store
from stages.backbone.base import pretrained
from stages.backbone.device import device
from stages.backbone.precision import check_finite
from stages.classifier import inference
from stages.classifier.labels import label_arguments, load_labels
from stages.classifier.model import load_base
from stages.common import texts
from stages.encoding import template
from stages.evidence.abstention import Abstention
from stages.problems.problem import Problem
from stages.serving import evaluated, onnx_model
from stages.serving.onnx_model import OnnxModel

BATCH_SIZE = 16
"""Default number of texts per batch: as many rows as fit a core's cache."""

Inputs = list[str] | list[tuple[str, str]]
"""Texts, or pairs of texts."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that answers."""

    logits: Callable[[Inputs], np.ndarray]
    """The logits for each text or pair, (texts, classes)."""
    problem: Problem
    names: Sequence[str]
    """Of the classes, in the order of the logits."""
    thresholds: Sequence[float] = ()
    """See `Problem.decide`."""
    abstention: Abstention | None = None
    """If given, an answer has `abstain` and, with more than two classes, `set`."""
    network: PreTrainedModel | None = None
    """What computes the logits, if that is PyTorch."""

    @classmethod
    def tuned(cls, model: evaluated.Model, *, batch_size: int = BATCH_SIZE) -> Self:
        """The model after tuning: an adapter, or what `stages.export` made of it."""
        run, in_onnx = Run.load(model.adapter), onnx_model.is_in(model.adapter)
        tuned = (
            OnnxModel(model.adapter / onnx_model.GRAPH) if in_onnx else parallel.loaded(partial(load, model.adapter))
        )
        return cls(
            logits=partial(logits, tuned, **reading(model, run, batch_size)),
            problem=run.problem,
            names=class_names(model),
            thresholds=run.thresholds,
            abstention=Abstention.load(model.abstention, model.adapter),
            network=None if in_onnx else tuned,
        )

    @classmethod
    def untouched(cls, model: evaluated.Model, *, batch_size: int = BATCH_SIZE) -> Self:
        """The model before tuning: a zero-shot classifier by the label words, if it has a language-model head."""
        run, names = Run.load(model.adapter), class_names(model)
        labels = label_arguments(run.problem, names, load_labels(model.adapter)["pad_token_id"])
        how = {"labels": labels, "seed": run.seed, "head": "label_words", "words": run.label_words}
        untuned = parallel.loaded(partial(load_base, model.base, **how))
        return cls(
            logits=partial(logits, untuned, **reading(model, run, batch_size)),
            problem=run.problem,
            names=names,
            network=untuned,
        )

    def answers(self, inputs: Inputs, *, rows: Sequence[int] | None = None) -> pd.DataFrame:
        """For each text or pair the answer, its probability and that of every class or label; for regression, a number.

        Args:
            rows: the number of each text, by which an error names it; by default they are counted from 1.

        Raises:
            PipelineError: a logit is not finite.
        """
        found = self.logits(inputs)
        numbers = np.arange(1, len(found) + 1) if rows is None else np.asarray(rows)
        check_finite(found, numbers, what="predict: logits")
        predictions = self.problem.decide(self.problem.outputs(found), self.thresholds)
        answered = {self.problem.answer: self.problem.answers(predictions, self.names)}
        answered |= self.problem.confidence(predictions)
        answered |= self.abstention.columns(predictions, self.names) if self.abstention else {}
        taken = {*texts.COLUMNS, *answered}
        detail = self.problem.detail(predictions, [f"class {name}" if name in taken else name for name in self.names])
        return pd.DataFrame(answered | detail)


def class_names(model: evaluated.Model) -> list[str]:
    """The names of the classes, in the order of the logits."""
    if onnx_model.is_in(model.adapter):
        return onnx_model.About.load(model.adapter).names
    return list(load_labels(model.adapter)["id2label"].values())


def reading(model: evaluated.Model, run: Run, batch_size: int) -> dict:
    """How texts become batches, as arguments of `logits`."""
    tokenizer = pretrained(AutoTokenizer, model.adapter)
    return {"tokenizer": tokenizer, "stride": run.window_stride, "batch_size": batch_size, "kept": {}}


def logits(
    model: PreTrainedModel | OnnxModel,
    inputs: Inputs,
    *,
    tokenizer: PreTrainedTokenizerBase,
    stride: int | None = None,
    batch_size: int = BATCH_SIZE,
    kept: dict[Any, SimpleQueue] | None = None,
) -> np.ndarray:
    """The model's logits for each text or pair, (texts, classes) float32; for a text in windows, their mean.

    Args:
        stride: see `template.token_rows`; kept: see `parallel.each_batch`.
    """
    fitted = template.token_rows(tokenizer, inputs, stride)
    rows = {template.INPUTS[name]: [row for text in values for row in text] for name, values in fitted.items()}
    lengths = np.array([len(row) for row in rows["input_ids"]])
    counts = [len(text) for text in fitted["tokens"]]
    batches = store.by_length(lengths, batch_size)
    in_onnx = isinstance(model, OnnxModel)
    each = model.each_batch if in_onnx else partial(parallel.each_batch, model, progress=None, kept=kept)
    found = each(partial(logits_of_batch, rows=rows, tokenizer=tokenizer), batches)
    return store.pooled(inference.in_order(found, batches), np.cumsum([0, *counts]))


def logits_of_batch(
    model: PreTrainedModel | OnnxModel,
    indices: np.ndarray,
    *,
    rows: dict[str, list[list[int]]],
    tokenizer: PreTrainedTokenizerBase,
) -> np.ndarray:
    """The logits for the rows at `indices`, (batch, classes); `rows`: what the model takes of each, by name."""
    given = {name: [values[index] for index in indices] for name, values in rows.items()}
    if isinstance(model, OnnxModel):
        return model(tokenizer.pad(given, return_tensors="np"))[0]
    return inference.array(model(**tokenizer.pad(given, return_tensors="pt").to(device())).logits)
