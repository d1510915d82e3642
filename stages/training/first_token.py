"""A better start for an encoder, whose head reads the first token: that token is taught the mean over all tokens.

The mean tells texts apart better than a first token that was not trained to do so (Reimers & Gurevych 2019), and to
teach it takes no labels (feature distillation, Romero et al. 2015).
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from stages.adapters.methods import PROMPTS
from stages.backbone import store
from stages.classifier import inference
from stages.classifier.model import is_causal
from stages.common import files
from stages.common.errors import PipelineError
from stages.training import callbacks, head, trainer
from stages.training.params import Train

STEPS = 100
"""Optimizer steps."""

LEARNING_RATE = 2e-3
"""Peak learning rate of the adapters."""


def can_learn(model: PeftModel | PreTrainedModel, *, method: str, init: str) -> bool:
    """Whether a training may start so.

    Args:
        method: `peft.method`; init: `lora.head_init`.

    Raises:
        PipelineError: the start is asked for, but the model is no encoder, or the method does not adapt its layers.
    """
    encoder = not is_causal(model.config) and not model.config.is_encoder_decoder
    possible = encoder and method not in (*PROMPTS, "full", "head")
    if init == "mean_probe" and not possible:
        raise PipelineError(
            "lora.head_init: mean_probe: expected an encoder and a peft.method that adapts its layers, found "
            f"{model.config.model_type} and {method}; set lora.head_init: auto"
        )
    return possible and init in ("auto", "mean_probe")


def start(model: PeftModel, *, rows: dict[str, store.Rows], options: Train, precision: str, seed: int) -> None:
    """Teach the first token, then fit the head as a probe of it, in place.

    Args:
        model: its adapters change nothing yet; rows: the train and validation splits; options: without any `auto`.
    """
    settings = {"batch_size": options.batch_size, "precision": precision}
    _, (means,) = inference.logits_and_features(
        model, rows["train"], after=(model.config.num_hidden_layers,), progress="train, means", **settings
    )
    teach(model, rows, means, options=options, precision=precision, seed=seed)
    head.put(model, head.fitted(model, rows["train"], seed=seed, **settings))


def teach(
    model: PeftModel, rows: dict[str, store.Rows], means: np.ndarray, *, options: Train, precision: str, seed: int
) -> None:
    """Train the adapters so that the final state of the first token is the mean of the states of all tokens.

    Args:
        means: that mean for each training row, (rows, hidden).
    """
    with files.scratch() as scratch:
        sizes = {"rows": len(rows["train"]), "validation_rows": len(rows["validation"])}
        usual = trainer.arguments(options, **sizes, seed=seed, precision=precision, scratch=str(scratch))
        settings = replace(usual, max_steps=STEPS, learning_rate=LEARNING_RATE, eval_strategy="no")
        taught = MeanTrainer(
            torch.from_numpy(means),
            model=model,
            args=trainer.on_one_device(settings),
            train_dataset=trainer.indexed(rows, "train", np.arange(len(rows["train"]))),
            data_collator=partial(trainer.collate, rows=rows),
        )
        with callbacks.bar(taught, "train, first token"):
            taught.train()


class MeanTrainer(trainer.RowTrainer):
    """Trains by the mean square of what the first token's final state lacks, relative to the variance of the means,
    which is not taken for 0 where all texts have the same tokens."""

    remedy = "set lora.head_init: probe, a lower lora.alpha, or precision: float32"

    def __init__(self, means: torch.Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        self.means = means
        self.variance = torch.maximum(means.var(dim=0).mean(), 1e-6 * means.square().mean())

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        indices = inputs[trainer.INDICES].cpu()
        texts = {name: values for name, values in inputs.items() if name not in (trainer.INDICES, "labels")}
        first = model(**texts, output_hidden_states=True).hidden_states[-1][:, 0]
        return self.finite((first - self.means[indices].to(first)).square().mean() / self.variance)
