"""train: LoRA on the top layers, from the stored states of the frozen ones.

    python -m stages.train

Reads models/base and data/encoded (train and validation rows). Writes models/adapter: adapter and head in safetensors,
the tokenizer with its template, `labels.json`, `run.json` and a model card; metrics/train.json; and the curves of
metrics/train for `dvc plots`.
"""

import importlib.metadata
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from dvclive import Live
from peft import PeftModel
from sklearn.metrics import accuracy_score
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stages.common import calibration, classifier, errors, fused, output, paths, prefix, store
from stages.common.card import model_card
from stages.common.params import Params, Train

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "safetensors")
"""Those whose version can change what the adapter is or does."""

MADE_BY = {"seed", "model", "data", "encode", "lora", "train"}
"""The sections of params.yaml that the adapter depends on."""

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
}
"""What the Trainer logs that goes into the curves, and its name there; timings differ from run to run."""


def main() -> None:
    params = Params.load()
    if params.train.precision == "float16" and not torch.accelerator.is_available():
        raise errors.PipelineError("train.precision: expected float32 or bfloat16 without a GPU, found float16")
    about = store.About.load(paths.ENCODED)
    rows = {name: store.load_rows(paths.ENCODED / name, about) for name in ("train", "validation")}
    model, metrics = build(params, about)
    print("train: {trainable_parameters:,} of {total_parameters:,} parameters".format(**metrics))
    for reason, layers in fused.fuse(model, example=rows["train"].batch([0])).items():
        print(f"train: {layers} LoRA layers run PEFT's own, slower code: {reason}")
    with output.replacing(paths.TRAIN_CURVES) as curves, output.replacing(paths.ADAPTER) as folder:
        metrics |= fit(model, rows, params.train, params.seed, curves)
        calibration.scale_head(model, metrics["temperature"])
        save(model, about, params, metrics, folder)
    output.write_json(paths.TRAIN_METRICS, metrics)


def build(params: Params, about: store.About) -> tuple[PeftModel, dict[str, int]]:
    """The base model with its head and adapters, taking stored states; and how many parameters it has when whole."""
    base = classifier.load_base(
        paths.BASE_MODEL,
        labels=classifier.label_arguments(about.class_names, about.pad_token_id),
        seed=params.seed,
        head=params.lora.head_init,
        words=params.encode.label_words,
    )
    before = base.num_parameters()
    prefix.splice(base, about.depth)
    removed = before - base.num_parameters()
    model = classifier.add_lora(base, params.lora, depth=about.depth, base=paths.BASE_MODEL)
    trainable, total = model.get_nb_trainable_parameters()
    return model, {"trainable_parameters": trainable, "total_parameters": total + removed}


def fit(
    model: PeftModel, rows: dict[str, store.Rows], options: Train, seed: int, curves: Path
) -> dict[str, float | dict[str, float]]:
    """Train, and leave `model` as it was after its best epoch on the validation rows; returns that epoch's scores.

    Raises:
        PipelineError: the loss is not finite.
    """
    counts = Counter()

    def collate(items: list[dict]) -> dict[str, torch.Tensor]:
        batch = rows[items[0]["split"]].batch([item["number"] for item in items])
        counts.update(tokens=int(batch["attention_mask"].sum()), places=batch["attention_mask"].numel())
        return batch

    with tempfile.TemporaryDirectory() as checkpoints, Live(curves, dvcyaml=None, save_dvc_exp=False) as live:
        trainer = FiniteTrainer(
            model=model,
            args=arguments(options, seed, checkpoints),
            train_dataset=numbered(rows, "train"),
            eval_dataset=numbered(rows, "validation"),
            data_collator=collate,
            compute_metrics=validation_scores,
            callbacks=[Curves(live)],
        )
        if options.early_stopping:
            trainer.add_callback(EarlyStoppingCallback(options.early_stopping))
        trainer.train()
    padding = 1 - counts["tokens"] / counts["places"]
    print(f"train: {counts['tokens']:,} tokens, validation's among them; {padding:.1%} padding")
    scores = {entry["step"]: entry for entry in trainer.state.log_history if "eval_loss" in entry}
    best = scores[trainer.state.best_global_step]
    return {
        "best_epoch": round(best["epoch"]),
        "temperature": best["eval_temperature"],
        "validation": {"accuracy": best["eval_accuracy"], "loss": best["eval_loss"]},
    }


def validation_scores(given: EvalPrediction) -> dict[str, float]:
    """Accuracy, and the temperature that makes the probabilities most truthful."""
    return {
        "accuracy": accuracy_score(given.label_ids, given.predictions.argmax(axis=1)),
        "temperature": calibration.temperature(given.predictions, given.label_ids),
    }


def arguments(options: Train, seed: int, checkpoints: str) -> TrainingArguments:
    """Our options in transformers' terms."""
    return TrainingArguments(
        output_dir=checkpoints,
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
        label_smoothing_factor=options.label_smoothing,
        use_cpu=not torch.accelerator.is_available(),
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        activation_checkpointing=options.activation_checkpointing,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
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
                "lower train.lr or lora.alpha, lengthen train.warmup, or set train.precision: float32"
            )
        return result


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


def numbered(rows: dict[str, store.Rows], split: str) -> Dataset:
    """A split's row numbers and lengths, from which the Trainer makes batches of like length."""
    lengths = rows[split].lengths
    return Dataset.from_dict({"split": [split] * len(lengths), "number": range(len(lengths)), "length": lengths})


def save(model: PeftModel, about: store.About, params: Params, metrics: dict, folder: Path) -> None:
    """Write the adapter and all that it needs elsewhere; `run.json`, written last, says what made it."""
    labels = classifier.label_arguments(about.class_names, about.pad_token_id)
    model.save_pretrained(folder)
    config = folder / "adapter_config.json"
    output.write_json(config, ordered(json.loads(config.read_text())))
    shutil.copytree(paths.ENCODED / "tokenizer", folder, dirs_exist_ok=True)
    output.write_json(folder / "labels.json", labels)
    output.write_text(folder / "README.md", model_card(about.class_names, params, metrics))
    run = {
        "params": params.model_dump(include=MADE_BY),
        "base_model": json.loads((paths.BASE_MODEL / "source.json").read_text()),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "metrics": metrics,
    }
    output.write_json(folder / "run.json", run)


def ordered(config: dict) -> dict:
    """PEFT's saved config with its sets in a fixed order, so that equal runs write equal files."""
    return {
        name: sorted(value) if name in ("target_modules", "modules_to_save") else value
        for name, value in sorted(config.items())
    }


if __name__ == "__main__":
    errors.run(main)
