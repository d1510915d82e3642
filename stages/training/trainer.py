"""One training run: transformers' `Trainer`, extended for this pipeline."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from dvclive import Live
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import ModelOutput

from stages.adapters import methods
from stages.backbone import store
from stages.common.errors import PipelineError
from stages.problems.main_score import LOSS, MainScore
from stages.problems.problem import Problem
from stages.training.params import Train

INDICES = "indices"
"""The key of a batch's row indices, which are not passed to the model."""

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation/loss",
}
"""The logged values that go into the curves, and their names there; not timings, which differ from run to run. The main
score on the validation rows is added, as validation/main."""


def fit(
    model: PeftModel | PreTrainedModel,
    rows: dict[str, store.Rows],
    curves: Path,
    *,
    problem: Problem,
    main: MainScore,
    options: Train,
    seed: int,
    precision: str,
    unit: float = 1.0,
) -> dict[str, float | dict[str, float]]:
    """Train, and leave `model` as it was after its best epoch on the validation rows; returns that epoch's scores.

    Args:
        rows: the train and validation splits, by name.
        curves: the folder to write the training curves to.
        main: the main score.
        precision: of the matrix products, see `stages.backbone.precision`.
        unit: the unit of the labels, see `Problem.unit`.

    Raises:
        PipelineError: the loss is not finite.
    """
    validation = rows["validation"]

    def measure(given: EvalPrediction) -> dict[str, float | list[float]]:
        _, indices = given.label_ids
        order = np.argsort(indices)  # rows came in another order, in batches of similar length
        logits = validation.pooled(given.predictions[order])
        return problem.validate(logits, validation.text_labels, unit=unit, main=main)

    key, sign = (main.key, main.sign) if options.select_by == "main" else (LOSS, -1)
    best, training = Best(f"eval_{key}", sign), indexed(rows, "train", balanced=options.balance == "sampling")
    with tempfile.TemporaryDirectory() as scratch, Live(curves, dvcyaml=None, save_dvc_exp=False) as live:
        settings = arguments(options, seed=seed, precision=precision, scratch=scratch)
        settings.metric_for_best_model, settings.greater_is_better = key, sign > 0
        trainer = RowTrainer(
            model=model,
            args=settings,
            train_dataset=training,
            eval_dataset=indexed(rows, "validation"),
            data_collator=partial(collate, rows=rows),
            compute_metrics=measure,
            compute_loss_func=loss_function(model, rows["train"].labels, options),
            optimizers=(lora_plus(model, options, settings) if options.lora_plus_ratio else None, None),
            callbacks=[Curves(live, LOGGED | {f"eval_{main.key}": "validation/main"}), best, *methods.callbacks(model)],
        )
        if options.early_stopping:
            trainer.add_callback(EarlyStoppingCallback(options.early_stopping))
        trainer.train()
    tokens = round(trainer.state.epoch * sum(training["length"]))
    print(f"train: {tokens:,} tokens; {1 - tokens / trainer.state.num_input_tokens_seen:.1%} padding")
    return best_epoch_metrics(best, main, list(model.config.id2label.values()))


def best_epoch_metrics(best: "Best", main: MainScore, class_names: list[str]) -> dict[str, float | dict[str, float]]:
    """The entries of metrics/train.json about the best epoch."""
    found = {name.removeprefix("eval_"): value for name, value in best.scores.items()}
    if "thresholds" in found:
        found["thresholds"] = dict(zip(class_names, found["thresholds"], strict=True))
    return {
        "main": main.key,
        "best_epoch": best.epoch,
        **{name: found[name] for name in ("temperature", "thresholds") if name in found},
        "validation": {name: found[name] for name in (main.key, LOSS)},
    }


def indexed(rows: dict[str, store.Rows], split: str, *, balanced: bool = False) -> Dataset:
    """The indices of a split's rows and their lengths, from which the Trainer makes batches of similar length.

    Balanced: every class is equally frequent, as rows of rarer classes are repeated.
    """
    indices = class_balanced_indices(rows[split].labels) if balanced else np.arange(len(rows[split]))
    lengths = rows[split].lengths[indices]
    return Dataset.from_dict({"split": [split] * len(indices), "index": indices, "length": lengths})


def class_balanced_indices(labels: np.ndarray) -> np.ndarray:
    """Indices of rows, (indices,): as many for each class as the most frequent class has rows."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, classes))
    return np.concatenate([np.resize(indices, most) for indices in classes])


def collate(items: list[dict], *, rows: dict[str, store.Rows]) -> dict[str, torch.Tensor]:
    """The batch of the rows that `items` name, and their indices, (batch,)."""
    indices = [item["index"] for item in items]
    return rows[items[0]["split"]].batch(indices) | {INDICES: torch.tensor(indices)}


def loss_function(model: nn.Module, labels: np.ndarray, options: Train) -> Callable[..., torch.Tensor] | None:
    """Cross entropy with balanced weights and label smoothing while `model` trains; None: the model's own loss is used.

    On validation rows it has neither, so that epochs and runs with other settings can be compared.

    Args:
        labels: of the training rows, (rows,); with `balance: weights`, a class is weighted by the inverse of its share.
    """
    if options.balance != "weights" and not options.label_smoothing:
        return None
    weights = None
    if options.balance == "weights":
        classes = np.arange(model.config.num_labels)
        weights = torch.from_numpy(compute_class_weight("balanced", classes=classes, y=labels)).float()

    def loss(outputs: ModelOutput, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if not model.training:
            return nn.functional.cross_entropy(outputs.logits, labels)
        weight = None if weights is None else weights.to(outputs.logits)
        return nn.functional.cross_entropy(
            outputs.logits, labels, weight=weight, label_smoothing=options.label_smoothing
        )

    return loss


def lora_plus(model: PeftModel, options: Train, settings: TrainingArguments) -> torch.optim.Optimizer:
    """The Trainer's optimizer, with a higher learning rate for lora_B (Hayou et al. 2024)."""
    kind, its_settings = Trainer.get_optimizer_cls_and_kwargs(settings, model)
    return create_loraplus_optimizer(
        model,
        kind,
        loraplus_lr_ratio=options.lora_plus_ratio,
        loraplus_weight_decay=options.weight_decay,
        **its_settings,
    )


def arguments(options: Train, *, seed: int, precision: str, scratch: str) -> TrainingArguments:
    """The section `train` as transformers' `TrainingArguments`."""
    return TrainingArguments(
        output_dir=scratch,
        seed=seed,
        num_train_epochs=options.epochs,
        learning_rate=options.lr,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        lr_scheduler_type=options.scheduler,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        adam_beta1=options.adam_beta1,
        adam_beta2=options.adam_beta2,
        max_grad_norm=options.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        activation_checkpointing=options.activation_checkpointing,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,
        report_to="none",
        label_names=["labels", INDICES],  # the Trainer passes these to compute_metrics with the logits
        include_num_input_tokens_seen="all",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )


class RowTrainer(Trainer):
    """A Trainer whose batches carry their row indices, and that fails at the first loss that is not finite."""

    loss_is_scaled_for_ga = False  # the models' classification loss is a mean over the batch, whatever they accept

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        model_inputs = {name: values for name, values in inputs.items() if name != INDICES}
        result = super().compute_loss(model, model_inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if not torch.isfinite(loss):
            raise PipelineError(
                f"train: expected a finite loss, found {loss.item()} at step {self.state.global_step}; "
                "lower train.lr or lora.alpha, lengthen train.warmup, or set precision: float32"
            )
        return result


class Best(TrainerCallback):
    """Keeps the trained weights of the best epoch, and puts them back at the end.

    The weights stay in memory: PEFT cannot load virtual tokens or AdaLoRA from a checkpoint into the model that it
    trains.
    """

    def __init__(self, key: str, sign: int) -> None:
        """`key`: of the score that decides; `sign`: 1 if higher is better, else -1."""
        self.key, self.sign = key, sign
        self.best = float("-inf")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        score = self.sign * metrics[self.key]
        if score > self.best:
            self.best, self.scores, self.epoch = score, metrics, round(state.epoch)
            self.weights = {part: part.detach().clone() for part in model.parameters() if part.requires_grad}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for part, weights in self.weights.items():
            part.data.copy_(weights)


class Curves(TrainerCallback):
    """Writes logged values to DVCLive, under the names in `curves`."""

    def __init__(self, live: Live, curves: dict[str, str]) -> None:
        self.live, self.curves = live, curves

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self.live.step = state.global_step
        for name, curve in self.curves.items():
            if name in logs:
                self.live.log_metric(curve, logs[name])
