"""train: LoRA, or another method of PEFT, from the stored states of the layers that it leaves frozen.

    python -m stages.train

Reads models/base and data/encoded (train and validation rows). Writes models/adapter: adapter and head in safetensors
(with `peft.method: full` the whole model), the tokenizer with its template, `labels.json`, `run.json` and a model card;
metrics/train.json; and the curves of metrics/train for `dvc plots`.
"""

import importlib.metadata
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from stages.adapters import card
from stages.adapters import methods as adapters
from stages.backbone import precision, prefix, store
from stages.backbone.base import lowest
from stages.classifier import model as classifier
from stages.common import errors, files, paths
from stages.params import Params
from stages.training import fused, head, quantized, validation
from stages.training import trainer as training

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "safetensors")
"""Those whose version can change what the adapter is or does."""

MADE_BY = {"seed", "precision", "model", "data", "encode", "lora", "peft", "train"}
"""The sections of params.yaml that the adapter depends on."""

SETS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
"""What PEFT holds in sets, whose order differs from run to run."""


def main() -> None:
    params = Params.load()
    precision.check(params.precision)
    about = store.About.load(paths.ENCODED)
    splits = ("train", "validation")
    rows = {name: store.load_rows(paths.ENCODED / name, about, params.precision) for name in splits}
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
    with files.replacing(paths.TRAIN_CURVES) as curves, files.replacing(paths.ADAPTER) as folder:
        metrics |= training.fit(model, rows, params, curves, partial(validation.MEASURES[about.problem], unit=unit))
        head.scale(model, metrics.get("temperature", 1) / unit)
        save(model, about, params, metrics, folder)
    files.write_json(paths.TRAIN_METRICS, metrics)


def in_units(rows: dict[str, store.Rows], problem: str) -> tuple[dict[str, store.Rows], float]:
    """The rows with numbers as labels in units of the training rows' standard deviation, and that unit.

    So numbers of any size train alike. They keep their mean: the head starts there, as that of a decoder has no bias to
    which it could be added after the training.
    """
    if problem != "regression":
        return rows, 1.0
    unit = float(rows["train"].labels.std())
    return {name: replace(split, labels=split.labels / np.float32(unit)) for name, split in rows.items()}, unit


def build(params: Params, about: store.About, rows: store.Rows) -> tuple[PeftModel | PreTrainedModel, dict[str, int]]:
    """The base model with its head and adapters, taking stored states; and how many parameters it has when whole.

    Args:
        rows: those of train, on some of which the head is fitted.
    """
    base = classifier.load_base(
        paths.BASE_MODEL,
        labels=arguments(about),
        seed=params.seed,
        head=params.lora.head_init,
        words=params.encode.label_words,
    )
    if params.precision != "float32":
        precision.attend_in_float32(base)
    before = base.num_parameters()
    prefix.splice(base, about.depth)
    if params.peft.method == "qlora":
        quantized.quantize(base, about.depth, params.precision)
    removed = before - sum(part.numel() for part in base.parameters())  # as they lie in memory, like `counts`
    if about.problem == "regression" or (params.lora.head_init == "probe" and head.is_fresh(base)):
        head.fit(base, rows, batch_size=params.train.batch_size, precision=params.precision, seed=params.seed)
    model = adapters.add(base, params, depth=about.depth, base=paths.BASE_MODEL)
    counts = {part: part.numel() for part in model.parameters()}
    trainable = sum(count for part, count in counts.items() if part.requires_grad)
    return model, {"trainable_parameters": trainable, "total_parameters": sum(counts.values()) + removed}


def arguments(about: store.About) -> dict:
    """With which `from_pretrained` makes the classifier here and wherever it is loaded; saved as labels.json."""
    labels = classifier.label_arguments(about.class_names, about.pad_token_id, about.problem)
    return labels | lowest(paths.BASE_MODEL, about.layers)


def save(model: PeftModel | PreTrainedModel, about: store.About, params: Params, metrics: dict, folder: Path) -> None:
    """Write the adapter and all that it needs elsewhere; `run.json`, written last, says what made it."""
    model.save_pretrained(folder)
    config = folder / "adapter_config.json"
    if config.exists():
        files.write_json(config, ordered(json.loads(config.read_text())))
    shutil.copytree(paths.ENCODED / "tokenizer", folder, dirs_exist_ok=True)
    files.write_json(folder / "labels.json", arguments(about))
    run = {
        "depth": about.depth,
        "params": params.model_dump(include=MADE_BY),
        "base_model": json.loads((paths.BASE_MODEL / "source.json").read_text()),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "metrics": metrics,
    }
    files.write_text(folder / "README.md", card.model_card(run, about.class_names))
    files.write_json(folder / "run.json", run)


def ordered(config: dict) -> dict:
    """PEFT's saved config with its sets in a fixed order, so that equal runs write equal files."""
    return {
        name: sorted(value) if isinstance(value, list) and name in SETS else value
        for name, value in sorted(config.items())
    }


if __name__ == "__main__":
    errors.run(main)
