"""train: LoRA, or another method of PEFT, from the stored states of the layers that it leaves frozen.

    python -m stages.train

Reads models/base and data/encoded (train and validation rows). Writes models/adapter: adapter and head in safetensors
(with `peft.method: full` the whole model), the tokenizer with its template, `labels.json`, `run.json` and a model card;
metrics/train.json; and the curves of metrics/train for `dvc plots`.
"""

import importlib.metadata
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
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

from stages.common import (
    adapters,
    calibration,
    card,
    classifier,
    errors,
    fused,
    output,
    paths,
    prefix,
    store,
    validation,
)
from stages.common.params import Params, Train
from stages.common.precision import attend_in_float32, check

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "safetensors")
"""Those whose version can change what the adapter is or does."""

MADE_BY = {"seed", "precision", "model", "data", "encode", "lora", "peft", "train"}
"""The sections of params.yaml that the adapter depends on."""

CENTRED = 256
"""Rows on which the head of a regression is centred: a fresh head says much the same of all."""

SETS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
"""What PEFT holds in sets, whose order differs from run to run."""

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
    "eval_mae": "validation/mae",
}
"""What the Trainer logs that goes into the curves, and its name there; timings differ from run to run."""


def main() -> None:
    params = Params.load()
    check(params.precision)
    about = store.About.load(paths.ENCODED)
    rows = {name: store.load_rows(paths.ENCODED / name, about) for name in ("train", "validation")}
    depth = adapters.depth(params.peft.method, about.depth)
    if depth < about.depth:
        print(f"train: {params.peft.method} changes the lowest layers too: the whole model runs, from the tokens")
        about = replace(about, depth=depth)
        rows = {name: replace(split, states=None) for name, split in rows.items()}
    rows, unit = in_units(rows, about.problem)
    model, metrics = build(params, about, rows["train"])
    print("train: {trainable_parameters:,} of {total_parameters:,} parameters".format(**metrics))
    for reason, layers in fused.fuse(model, example=rows["train"].batch([0])).items():
        print(f"train: {layers} LoRA layers run PEFT's own, slower code: {reason}")
    with output.replacing(paths.TRAIN_CURVES) as curves, output.replacing(paths.ADAPTER) as folder:
        metrics |= fit(
            model,
            rows,
            params.train,
            params.seed,
            params.precision,
            curves,
            partial(validation.MEASURES[about.problem], unit=unit),
        )
        calibration.scale_head(model, metrics.get("temperature", 1) / unit)
        save(model, about, params, metrics, folder)
    output.write_json(paths.TRAIN_METRICS, metrics)


def in_units(rows: dict[str, store.Rows], problem: str) -> tuple[dict[str, store.Rows], float]:
    """The rows with numbers as labels in units of the training rows' standard deviation, and that unit.

    So numbers of any size train alike. They keep their mean: the head starts there (see `centre`), as that of a decoder
    has no bias to which it could be added after the training.
    """
    if problem != "regression":
        return rows, 1.0
    unit = float(rows["train"].labels.std())
    return {name: replace(split, labels=split.labels / np.float32(unit)) for name, split in rows.items()}, unit


def build(params: Params, about: store.About, rows: store.Rows) -> tuple[PeftModel | PreTrainedModel, dict[str, int]]:
    """The base model with its head and adapters, taking stored states; and how many parameters it has when whole.

    Args:
        rows: those of train, on which the head of a regression is centred.
    """
    base = classifier.load_base(
        paths.BASE_MODEL,
        labels=classifier.label_arguments(about.class_names, about.pad_token_id, about.problem),
        seed=params.seed,
        head=params.lora.head_init,
        words=params.encode.label_words,
    )
    if params.precision != "float32":
        attend_in_float32(base)
    before = base.num_parameters()
    prefix.splice(base, about.depth)
    removed = before - base.num_parameters()
    if about.problem == "regression":
        centre(base, rows, params.train.batch_size)
    model = adapters.add(base, params, depth=about.depth, base=paths.BASE_MODEL)
    counts = {part: part.numel() for part in model.parameters()}
    trainable = sum(count for part, count in counts.items() if part.requires_grad)
    return model, {"trainable_parameters": trainable, "total_parameters": sum(counts.values()) + removed}


def centre(model: PreTrainedModel, rows: store.Rows, batch_size: int) -> None:
    """Let the fresh head of a regression answer the mean of the labels, in place, as measured on the first rows."""
    sample = replace(rows, labels=rows.labels[:CENTRED], offsets=rows.offsets[: CENTRED + 1])
    logits, features = classifier.logits_and_features(model, sample, batch_size=batch_size, progress="train, mean")
    calibration.shift_head(model, float(rows.labels.mean() - logits.mean()), features)


def fit(
    model: PeftModel | PreTrainedModel,
    rows: dict[str, store.Rows],
    options: Train,
    seed: int,
    precision: str,
    curves: Path,
    measure: Callable[..., validation.Measured] = validation.single_label,
) -> dict[str, float | dict[str, float]]:
    """Train, and leave `model` as it was after its best epoch on the validation rows; returns that epoch's scores.

    Args:
        precision: of the matrix products, see `stages.common.precision`.
        curves: the folder to write them to.
        measure: what logits and labels of the validation rows say; see `stages.common.validation`.

    Raises:
        PipelineError: the loss is not finite.
    """
    counts, evaluated = Counter(), []

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
        settings = arguments(options, seed, precision, scratch)
        trainer = FiniteTrainer(
            model=model,
            args=settings,
            train_dataset=numbered(rows, "train", balanced=options.balance == "sampling"),
            eval_dataset=numbered(rows, "validation"),
            data_collator=collate,
            compute_metrics=measured,
            compute_loss_func=training_loss(model, rows["train"].labels, options),
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


def training_loss(model: nn.Module, labels: np.ndarray, options: Train) -> Callable[..., torch.Tensor] | None:
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


def arguments(options: Train, seed: int, precision: str, scratch: str) -> TrainingArguments:
    """Our options in transformers' terms."""
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
            raise errors.PipelineError(
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


def save(model: PeftModel | PreTrainedModel, about: store.About, params: Params, metrics: dict, folder: Path) -> None:
    """Write the adapter and all that it needs elsewhere; `run.json`, written last, says what made it."""
    labels = classifier.label_arguments(about.class_names, about.pad_token_id, about.problem)
    model.save_pretrained(folder)
    config = folder / "adapter_config.json"
    if config.exists():
        output.write_json(config, ordered(json.loads(config.read_text())))
    shutil.copytree(paths.ENCODED / "tokenizer", folder, dirs_exist_ok=True)
    output.write_json(folder / "labels.json", labels)
    run = {
        "depth": about.depth,
        "params": params.model_dump(include=MADE_BY),
        "base_model": json.loads((paths.BASE_MODEL / "source.json").read_text()),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "metrics": metrics,
    }
    output.write_text(folder / "README.md", card.model_card(run, about.class_names))
    output.write_json(folder / "run.json", run)


def ordered(config: dict) -> dict:
    """PEFT's saved config with its sets in a fixed order, so that equal runs write equal files."""
    return {
        name: sorted(value) if isinstance(value, list) and name in SETS else value
        for name, value in sorted(config.items())
    }


if __name__ == "__main__":
    errors.run(main)
