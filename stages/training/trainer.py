"""One training: transformers' `Trainer`, with what this pipeline asks of it."""

import tempfile
from collections import Counter
from collections.abc import Callable
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

from stages.adapters import methods as adapters
from stages.backbone import store
from stages.common.errors import PipelineError
from stages.params import Params, Train
from stages.training import validation

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
    "eval_mae": "validation/mae",
}
"""What the Trainer logs that goes into the curves, and its name there; timings differ from run to run."""


def fit(
    model: PeftModel | PreTrainedModel,
    rows: dict[str, store.Rows],
    params: Params,
    curves: Path,
    measure: Callable[..., validation.Measured] = validation.single_label,
) -> dict[str, float | dict[str, float]]:
    """Train, and leave `model` as it was after its best epoch on the validation rows; returns that epoch's scores.

    Args:
        curves: the folder to write them to.
        measure: what logits and labels of the validation rows say; see `stages.training.validation`.

    Raises:
        PipelineError: the loss is not finite.
    """
    options, counts, evaluated = params.train, Counter(), []

    def collate(items: list[dict]) -> dict[str, torch.Tensor]:
        split, numbers = items[0]["split"], [item["number"] for item in items]
        batch = rows[split].batch(numbers)
        if split == "validation":
            evaluated.extend(numbers)
        counts.update(tokens=int(batch["attention_mask"].sum()), places=batch["attention_mask"].numel())
        return batch

    def measured(given: EvalPrediction) -> validation.Measured:
        order = np.argsort(evaluated)  # batches of like length came in another
        evaluated.clear()
        return measure(rows["validation"].pooled(given.predictions[order]), rows["validation"].text_labels)

    best = Best(options.select_by)
    with tempfile.TemporaryDirectory() as scratch, Live(curves, dvcyaml=None, save_dvc_exp=False) as live:
        settings = arguments(params, scratch)
        trainer = FiniteTrainer(
            model=model,
            args=settings,
            train_dataset=numbered(rows, "train", balanced=options.balance == "sampling"),
            eval_dataset=numbered(rows, "validation"),
            data_collator=collate,
            compute_metrics=measured,
            compute_loss_func=loss_function(model, rows["train"].labels, options),
            optimizers=(lora_plus(model, options, settings) if options.lora_plus_ratio else None, None),
            callbacks=[Curves(live), best, *adapters.callbacks(model)],
        )
        if options.early_stopping:
            trainer.add_callback(EarlyStoppingCallback(options.early_stopping))
        trainer.train()
    padding = 1 - counts["tokens"] / counts["places"]
    print(f"train: {counts['tokens']:,} tokens, validation's among them; {padding:.1%} padding")
    found = {name.removeprefix("eval_"): value for name, value in best.scores.items()}
    if "thresholds" in found:
        found["thresholds"] = dict(zip(model.config.id2label.values(), found["thresholds"], strict=True))
    return {
        "best_epoch": best.epoch,
        **{name: found[name] for name in ("temperature", "thresholds") if name in found},
        "validation": {name: found[name] for name in ("accuracy", "mae", "loss") if name in found},
    }


def loss_function(model: nn.Module, labels: np.ndarray, options: Train) -> Callable[..., torch.Tensor] | None:
    """Cross entropy, with balanced weights and label smoothing while `model` trains; None: the model's own loss does.

    On validation rows it is plain, so that epochs and runs with other settings can be compared.

    Args:
        labels: (rows,) of the training rows; with `balance: weights`, a class weighs as the inverse of its share.
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


def arguments(params: Params, scratch: str) -> TrainingArguments:
    """Our parameters in transformers' terms."""
    options = params.train
    return TrainingArguments(
        output_dir=scratch,
        seed=params.seed,
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
        bf16=params.precision == "bfloat16",
        fp16=params.precision == "float16",
        activation_checkpointing=options.activation_checkpointing,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        metric_for_best_model=options.select_by,
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
    )


class FiniteTrainer(Trainer):
    """A Trainer that ends at the first loss that is not finite."""

    loss_is_scaled_for_ga = False  # the models' classification loss is a mean over the batch, whatever they accept

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(*args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if not torch.isfinite(loss):
            raise PipelineError(
                f"train: expected a finite loss, found {loss.item()} at step {self.state.global_step}; "
                "lower train.lr or lora.alpha, lengthen train.warmup, or set precision: float32"
            )
        return result


class Best(TrainerCallback):
    """Keeps the trained weights of the best epoch, and puts them back at the end.

    They stay in memory: PEFT cannot load a checkpoint of virtual tokens or of AdaLoRA into the model that it trains.
    """

    def __init__(self, select_by: str) -> None:
        self.select_by = select_by
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
        score = metrics[f"eval_{self.select_by}"] * (-1 if self.select_by == "loss" else 1)
        if score > self.best:
            self.best, self.scores, self.epoch = score, metrics, round(state.epoch)
            self.weights = {part: part.detach().clone() for part in model.parameters() if part.requires_grad}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for part, weights in self.weights.items():
            part.data.copy_(weights)


class Curves(TrainerCallback):
    """Writes what `LOGGED` names to DVCLive."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self.live.step = state.global_step
        for name, curve in LOGGED.items():
            if name in logs:
                self.live.log_metric(curve, logs[name])


def numbered(rows: dict[str, store.Rows], split: str, *, balanced: bool = False) -> Dataset:
    """A split's row numbers and lengths, from which the Trainer makes batches of like length.

    Balanced: every class is as frequent, as rows of rarer ones come again.
    """
    numbers = equally_often(rows[split].labels) if balanced else np.arange(len(rows[split]))
    lengths = rows[split].lengths[numbers]
    return Dataset.from_dict({"split": [split] * len(numbers), "number": numbers, "length": lengths})


def equally_often(labels: np.ndarray) -> np.ndarray:
    """Numbers of the rows, (rows,), each class's as many as the most frequent one has."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, classes))
    return np.concatenate([np.resize(numbers, most) for numbers in classes])
