"""train: LoRA, or another method of PEFT, on the stored states of the layers that stay frozen.

    python -m stages.train

Reads models/base and the train and validation rows of data/encoded. Writes models/adapter: adapter and head in
safetensors (with `peft.method: full` the whole model), the tokenizer with its template, `labels.json`, `run.json` and a
model card; metrics/train.json; and the curves of metrics/train for `dvc plots`.
"""

import importlib.metadata
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from stages.adapters import card, methods
from stages.adapters.run import Run
from stages.backbone import base, precision, prefix, store
from stages.classifier.labels import label_arguments
from stages.classifier.model import load_base
from stages.common import errors, files, paths
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.training import fused, head, quantized, trainer

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "safetensors")
"""Packages whose version can change the adapter or its predictions."""

RECORDED = {"seed", "precision", "model", "data", "encode", "lora", "peft", "train"}
"""The sections of params.yaml that the adapter depends on, except for the keys in `NOT_RECORDED`."""

NOT_RECORDED = {"data": {"limit": {"test"}}, "encode": {"max_gb", "batch_size"}}

SET_FIELDS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
"""Fields that PEFT holds as sets, whose order differs from run to run."""


def main() -> None:
    params = Params.load()
    precision.check(params.precision)
    base.quiet_transformers()
    about, rows = load_rows(params)
    problem = PROBLEMS[about.problem]
    unit = problem.unit(rows["train"].labels)
    rows = {name: in_units(split, unit) for name, split in rows.items()}
    model, metrics = build(params, about, rows["train"])
    print("train: {trainable_parameters:,} of {total_parameters:,} parameters".format(**metrics))
    for reason, layers in fused.fuse(model, example=rows["train"].batch([0])).items():
        print(f"train: {layers} LoRA layers use PEFT's slower implementation: {reason}")
    settings = {"options": params.train, "seed": params.seed, "precision": params.precision}
    with files.replacing(paths.TRAIN_CURVES) as curves, files.replacing(paths.ADAPTER) as folder:
        metrics |= trainer.fit(model, rows, curves, problem=problem, unit=unit, **settings)
        head.scale(model, metrics.get("temperature", 1) / unit)
        save(model, about, params, metrics, folder)
    files.write_json(paths.TRAIN_METRICS, metrics)


def load_rows(params: Params) -> tuple[store.About, dict[str, store.Rows]]:
    """The train and validation rows, without states if the method changes the layers that computed them."""
    about = store.About.load(paths.ENCODED)
    splits = ("train", "validation")
    rows = {name: store.load_rows(paths.ENCODED / name, about, params.precision) for name in splits}
    depth = methods.depth(params.peft.method, about.depth)
    if depth == about.depth:
        return about, rows
    print(f"train: {params.peft.method} changes the lowest layers too: the whole model is run from the tokens")
    return replace(about, depth=depth), {name: replace(split, states=None) for name, split in rows.items()}


def in_units(rows: store.Rows, unit: float) -> store.Rows:
    """The rows with their labels in units of `unit`."""
    return rows if unit == 1 else replace(rows, labels=rows.labels / np.float32(unit))


def build(params: Params, about: store.About, rows: store.Rows) -> tuple[PeftModel | PreTrainedModel, dict[str, int]]:
    """The base model with head and adapters, which reads stored states; and the parameter counts of the whole model.

    Args:
        rows: the training rows; where the head starts from a fit, it is fitted on some of them.
    """
    plain = load_base(
        paths.BASE_MODEL,
        labels=from_pretrained_arguments(about),
        seed=params.seed,
        head=params.lora.head_init,
        words=params.encode.label_words,
    )
    if params.precision != "float32":
        precision.attend_in_float32(plain)
    before = plain.num_parameters()
    prefix.splice(plain, about.depth)
    if params.peft.method == "qlora":
        quantized.quantize(plain, about.depth, params.precision)
    removed = before - sum(part.numel() for part in plain.parameters())  # counts 4-bit weights as stored, like `counts`
    if PROBLEMS[about.problem].numeric or (params.lora.head_init == "probe" and head.is_fresh(plain)):
        head.fit(plain, rows, batch_size=params.train.batch_size, precision=params.precision, seed=params.seed)
    sections = {"peft": params.peft, "lora": params.lora, "max_length": about.max_length}
    model = methods.add(plain, **sections, depth=about.depth, base=paths.BASE_MODEL)
    counts = {part: part.numel() for part in model.parameters()}
    trainable = sum(count for part, count in counts.items() if part.requires_grad)
    return model, {"trainable_parameters": trainable, "total_parameters": sum(counts.values()) + removed}


def from_pretrained_arguments(about: store.About) -> dict:
    """The arguments of `from_pretrained` for the classifier, here and wherever it is loaded; saved as labels.json."""
    labels = label_arguments(PROBLEMS[about.problem], about.class_names, about.pad_token_id)
    return labels | base.keep_lowest_layers(paths.BASE_MODEL, about.layers)


def save(model: PeftModel | PreTrainedModel, about: store.About, params: Params, metrics: dict, folder: Path) -> None:
    """Write the adapter and all files needed to load it elsewhere; `run.json`, written last, records what made it."""
    model.save_pretrained(folder)
    config = folder / "adapter_config.json"
    if config.exists():
        files.write_json(config, ordered(json.loads(config.read_text())))
    shutil.copytree(paths.ENCODED / "tokenizer", folder, dirs_exist_ok=True)
    files.write_json(folder / "labels.json", from_pretrained_arguments(about))
    run = Run(
        depth=about.depth,
        max_length=about.max_length,
        params=params.model_dump(include=RECORDED, exclude=NOT_RECORDED),
        base_model=json.loads((paths.BASE_MODEL / "source.json").read_text()),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        metrics=metrics,
    )
    files.write_text(folder / "README.md", card.model_card(run, about.class_names))
    run.save(folder)


def ordered(config: dict) -> dict:
    """PEFT's saved config with its sets in a fixed order, so that equal runs write equal files."""
    return {
        name: sorted(value) if isinstance(value, list) and name in SET_FIELDS else value
        for name, value in sorted(config.items())
    }


if __name__ == "__main__":
    errors.run(main)
