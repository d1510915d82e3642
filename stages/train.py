"""train: LoRA, or another method of PEFT, on the stored states of the layers that stay frozen.

    python -m stages.train

Reads models/base and the train and validation rows of data/encoded. Trains once for each of `train.seeds`, and writes
the best on the validation rows to models/adapter: adapter and head in safetensors (with `peft.method: full` the whole
model), the tokenizer with its template, `labels.json`, `run.json` and a model card; the other seeds' adapters to
models/seeds; metrics/train.json; the scores on the validation rows also to metrics/validation.json, by which
`dvc exp show` ranks; and the curves of metrics/train for `dvc plots`.
"""

import importlib.metadata
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedModel

from stages.adapters import card, methods
from stages.adapters.run import Run
from stages.backbone import base, precision, prefix, store
from stages.backbone.device import device
from stages.classifier.labels import label_arguments
from stages.classifier.model import load_base
from stages.classifier.saved_head import last_layer
from stages.common import errors, files, paths, progress
from stages.compute import ranks, shards
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import MainScore
from stages.resuming import places
from stages.resuming.checkpoints import Checkpoints
from stages.training import first_token, fused, head, quantized, recipe, trainer
from stages.training.callbacks import selection_score
from stages.training.params import Train

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "safetensors")
"""Packages whose version can change the adapter or its predictions."""

RECORDED = dict.fromkeys(("precision", "model", "data", "encode", "lora", "peft", "train"), True)
RECORDED |= {"evaluate": {"main"}}
"""The sections of params.yaml that the adapter and its metrics depend on, except for the keys in `NOT_RECORDED`."""

NOT_RECORDED = {"data": {"limit": {"test"}, "slices": True}, "encode": {"max_gb", "batch_size"}}

SET_FIELDS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
"""Fields that PEFT holds as sets, whose order differs from run to run."""


def main() -> None:
    about = store.About.load(paths.ENCODED)
    params = Params.load().filled(about.dataset)
    params = params.model_copy(update={"model": params.model.model_copy(update={"layers": about.layers})})
    precision.check(params.precision)
    base.quiet_transformers()
    ranks.run(partial(train_seeds, params), params.compute)


def train_seeds(params: Params) -> None:
    """Train with every seed, and write what comes of it; each rank calls this, see `stages.compute.ranks`."""
    ranks.check_share(params.train.batch_size)
    about, rows = load_rows(params)
    problem, training = PROBLEMS[about.problem], rows["train"]
    main_score = problem.main_score(params.evaluate.main, training.text_labels)
    read = recipe.rows_of_pass(params.train, training.labels)
    size = {"rows": len(read), "tokens": int(training.lengths[read].sum()), "classes": len(about.class_names)}
    weighs = problem.weighs_rare_classes(main_score)
    options = recipe.resolve(params.train, **size, method=params.peft.method, weighs=weighs)
    task = Task(params=params, options=options, main_score=main_score, about=about, rows=rows, read=read)
    with ranks.by_first(place_of_checkpoints(params)) as place:
        metrics = {seed: trained(task, seed=seed, home=place / f"seed-{seed}") for seed in options.seeds}
        best = best_seed(metrics, options, main_score)
        if ranks.is_first():
            publish(place, options.seeds, best)
            save_metrics(metrics, best)


def place_of_checkpoints(params: Params) -> AbstractContextManager[Path]:
    """The place of what an interrupted run of the same training has kept; see `places.place`."""
    of_run = {"ranks": ranks.ranks()[1], "strategy": params.compute.strategy, "device": device().type}
    return places.place("train", settings=recorded(params) | of_run, inputs=inputs(), days=params.checkpoints.days)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the trainings with all seeds have in common."""

    params: Params
    options: Train
    """The section `train` without any `auto`."""
    main_score: MainScore
    about: store.About
    rows: dict[str, store.Rows]
    """The train and validation splits, by name."""
    read: np.ndarray
    """The indices of the training rows that one epoch reads, (indices,)."""


def trained(task: Task, *, seed: int, home: Path) -> dict[str, Any]:
    """Train with one seed, or go on with it, unless an interrupted run has done so; returns the metrics.

    Args:
        home: of what is kept; `adapter`, `curves` and metrics.json in its folder `done` are there once all are.
    """
    done = home / "done"
    if ranks.agreed(done.exists()):
        progress.say(f"train: seed {seed} was trained by an interrupted run")
    else:
        checkpoints = Checkpoints(home, seconds=60 * task.params.checkpoints.minutes)
        with ranks.by_first(files.replacing(done)) as folder:
            metrics = train(task, seed=seed, checkpoints=checkpoints, folder=folder)
            if ranks.is_first():
                files.write_json(folder / "metrics.json", metrics)
    return files.read_json(done / "metrics.json")


def train(task: Task, *, seed: int, checkpoints: Checkpoints, folder: Path) -> dict[str, Any]:
    """Train with one seed and save the adapter and the curves in folders of these names; returns the metrics."""
    params, options, about = task.params, task.options, task.about
    problem = PROBLEMS[about.problem]
    unit = problem.unit(task.rows["train"].text_labels)
    rows = {name: in_units(split, unit) for name, split in task.rows.items()}
    mesh = shards.mesh() if params.compute.strategy == "fsdp" and ranks.ranks()[1] > 1 else None
    with ranks.in_turn() if mesh else nullcontext():
        model, starts, counts = build(params, about, rows["train"], seed, mesh)
    progress.say(
        f"train: {params.peft.method}, seed {seed}: {counts['trainable_parameters']:,} of "
        f"{counts['total_parameters']:,} parameters, {options.epochs} epochs of {len(task.read):,} rows"
    )
    for reason, layers in fused.fuse(model, example=rows["train"].batch([0])).items():
        progress.say(f"train: {layers} LoRA layers use PEFT's slower implementation: {reason}")
    if warning := recipe.too_few_steps(options, len(task.read)):
        progress.say(f"warning: {warning}")
    settings = {"options": options, "seed": seed, "precision": params.precision}
    if "saved" not in starts and first_token.can_learn(model, method=params.peft.method, init=params.lora.head_init):
        starts["mean_probe"] = partial(first_token.start, rows=rows, **settings)
    settings |= {"rates": recipe.rates(params.train, options.lr), "starts": starts, "checkpoints": checkpoints}
    settings |= {"problem": problem, "main": task.main_score, "unit": unit, "read": task.read}
    metrics = {"seed": seed} | counts | trainer.fit(model, rows, folder / "curves", **settings)
    progress.say(f"train: {recipe.described(metrics)}")
    head.scale(model, metrics.get("temperature", 1) / unit)
    weights = shards.whole(model)
    if ranks.is_first():
        (folder / "adapter").mkdir()
        save(model, about, params, metrics, folder / "adapter", weights=weights)
    return metrics


def best_seed(metrics: dict[int, dict[str, Any]], options: Train, main_score: MainScore) -> int:
    """The seed with the best scores on the validation rows, by its metrics."""
    return max(metrics, key=lambda seed: selection_score(metrics[seed]["validation"], options.select_by, main_score))


def publish(place: Path, seeds: list[int], kept: int) -> None:
    """Copy the adapters of all seeds, and the curves of the kept one, to where DVC expects them."""
    with (
        files.replacing(paths.SEEDS) as others,
        files.replacing(paths.ADAPTER) as adapter,
        files.replacing(paths.TRAIN_CURVES) as curves,
    ):
        for seed in seeds:
            made = place / f"seed-{seed}" / "done"
            shutil.copytree(made / "adapter", adapter if seed == kept else others / f"{seed}", dirs_exist_ok=True)
        shutil.copytree(place / f"seed-{kept}" / "done" / "curves", curves, dirs_exist_ok=True)
        files.write_text(others / "README.md", "The adapters of the seeds that were not kept; none with one seed.\n")


def save_metrics(metrics: dict[int, dict[str, Any]], kept: int) -> None:
    """Write metrics/train.json and, for the kept seed alone, metrics/validation.json."""
    files.write_metrics(paths.TRAIN_METRICS, metrics[kept] | scores_by_seed(metrics))
    files.write_metrics(paths.VALIDATION_METRICS, {"validation": metrics[kept]["validation"]})


def scores_by_seed(metrics: dict[int, dict[str, Any]]) -> dict[str, dict]:
    """The entry of metrics/train.json about each seed; none with one seed."""
    by_seed = {
        f"{seed}": {key: of_seed[key] for key in ("best_epoch", "validation")} for seed, of_seed in metrics.items()
    }
    return {"seeds": by_seed} if len(metrics) > 1 else {}


def load_rows(params: Params) -> tuple[store.About, dict[str, store.Rows]]:
    """The train and validation rows, without states if the method changes the layers that computed them."""
    about = store.About.load(paths.ENCODED)
    splits = ("train", "validation")
    rows = {name: store.load_rows(paths.ENCODED / name, about, params.precision) for name in splits}
    depth = methods.depth(params.peft.method, about.depth)
    if depth == about.depth:
        return about, rows
    progress.say(f"train: {params.peft.method} changes the lowest layers too: the whole model is run from the tokens")
    return replace(about, depth=depth), {name: replace(split, states=None) for name, split in rows.items()}


def in_units(rows: store.Rows, unit: float) -> store.Rows:
    """The rows with their labels in units of `unit`."""
    return rows if unit == 1 else replace(rows, labels=rows.labels / np.float32(unit))


def build(
    params: Params, about: store.About, rows: store.Rows, seed: int, mesh: DeviceMesh | None = None
) -> tuple[PeftModel | PreTrainedModel, dict[str, head.Start], dict[str, int]]:
    """The base model with head and adapters, which reads stored states; the heads with which it may start; and the
    parameter counts of the whole model.

    Args:
        rows: the training rows; a head that starts as a linear probe is fitted on some of them.
        mesh: where each device holds its share of the weights, see `shards`.
    """
    plain = load_base(
        paths.BASE_MODEL,
        labels=from_pretrained_arguments(about),
        seed=seed,
        head="label_words" if params.lora.head_init in ("auto", "label_words") else "random",
        words=params.encode.label_words,
    )
    if plain.unnamed_head:
        progress.say(
            "train: the base model's head does not name its classes (LABEL_0, LABEL_1), so its last layer starts anew"
        )
    if params.precision != "float32":
        precision.attend_in_float32(plain)
        precision.multiply_in_float32(last_layer(plain))
    before = plain.num_parameters()
    prefix.splice(plain, about.depth)
    if params.peft.method == "qlora":
        quantized.quantize(plain, about.depth, params.precision)
    removed = before - sum(part.numel() for part in plain.parameters())  # counts 4-bit weights as stored, like `counts`
    fitting = {"batch_size": params.train.batch_size, "precision": params.precision, "seed": seed}
    starts = head.starts(plain, rows, init=params.lora.head_init, later=mesh is not None, **fitting)
    sections = {"peft": params.peft, "lora": params.lora, "max_length": about.max_length}
    model = methods.add(plain, **sections, depth=about.depth, base=paths.BASE_MODEL)
    if mesh:
        blocks = [block for layers in prefix.stacks(plain) for block in layers[about.depth :]]
        shards.shard(model, plain, blocks, mesh)
    counts = {part: part.numel() for part in model.parameters()}
    trainable = sum(count for part, count in counts.items() if part.requires_grad)
    return model, starts, {"trainable_parameters": trainable, "total_parameters": sum(counts.values()) + removed}


def from_pretrained_arguments(about: store.About) -> dict:
    """The arguments of `from_pretrained` for the classifier, here and wherever it is loaded; saved as labels.json."""
    labels = label_arguments(PROBLEMS[about.problem], about.class_names, about.pad_token_id)
    return labels | base.keep_lowest_layers(paths.BASE_MODEL, about.layers)


def save(
    model: PeftModel | PreTrainedModel,
    about: store.About,
    params: Params,
    metrics: dict,
    folder: Path,
    *,
    weights: dict[str, torch.Tensor] | None,
) -> None:
    """Write the adapter and all files needed to load it elsewhere; `run.json`, written last, records what made it.

    Args:
        weights: of a sharded model, see `shards.whole`.
    """
    model.save_pretrained(folder, state_dict=weights)
    config = folder / "adapter_config.json"
    if config.exists():
        files.write_json(config, ordered(files.read_json(config)))
    shutil.copytree(paths.ENCODED / "tokenizer", folder, dirs_exist_ok=True)
    files.write_json(folder / "labels.json", from_pretrained_arguments(about))
    run = Run(
        depth=about.depth,
        max_length=about.max_length,
        **recorded(params),
        base_model=files.read_json(paths.BASE_MODEL / "source.json"),
        metrics=metrics,
    )
    files.write_text(folder / "README.md", card.model_card(run, about.class_names))
    run.save(folder)


def recorded(params: Params) -> dict[str, dict[str, Any]]:
    """The parameters and the versions of packages that decide what comes out."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"params": params.model_dump(include=RECORDED, exclude=NOT_RECORDED), "packages": packages}


def inputs() -> list[Path]:
    """What a training reads."""
    return [paths.BASE_MODEL, *(paths.ENCODED / name for name in ("about.json", "tokenizer", "train", "validation"))]


def ordered(config: dict) -> dict:
    """PEFT's saved config with its sets in a fixed order, so that equal runs write equal files."""
    return {
        name: sorted(value) if isinstance(value, list) and name in SET_FIELDS else value
        for name, value in sorted(config.items())
    }


if __name__ == "__main__":
    errors.run_script(main, __doc__)
