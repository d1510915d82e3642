"""One training run: transformers' `Trainer`, extended for this pipeline."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction, PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput
from transformers.trainer_utils import EvalLoopOutput

from stages.adapters import methods
from stages.backbone import store
from stages.classifier.weights import put
from stages.common import files, progress
from stages.common.errors import PipelineError
from stages.compute import ranks, shards
from stages.problems.main_score import LOSSES, MainScore
from stages.problems.problem import Problem
from stages.problems.single_label import row_weights
from stages.resuming.checkpoints import Checkpoints
from stages.training import callbacks, head, recipe
from stages.training.callbacks import Best, Curves, without_prefix
from stages.training.params import Train

INDICES = "indices"
"""The key of a batch's row indices, which are not passed to the model."""

FEWEST_LOGGED = 10
"""How often a run of few steps logs its training loss: a curve needs more than one point."""


def fit(
    model: PeftModel | PreTrainedModel,
    rows: dict[str, store.Rows],
    curves: Path,
    *,
    read: np.ndarray,
    checkpoints: Checkpoints,
    starts: dict[str, head.Start],
    problem: Problem,
    main: MainScore,
    options: Train,
    rates: tuple[float, ...],
    seed: int,
    precision: str,
    unit: float = 1.0,
) -> dict[str, Any]:
    """Train, and leave `model` with the weights that are best on the validation rows; returns their scores.

    The run begins with the start that is best on the validation rows. It is epoch 0, and may be what is kept.

    Args:
        rows: the train and validation splits, by name.
        curves: the folder to write the training curves to.
        read: the indices of the training rows that one epoch reads, see `recipe.rows_of_pass`.
        checkpoints: what an interrupted run has left is taken up.
        starts: what the run may start from, by name; tried in this order, each on what the one before left.
        main: the main score; options: without any `auto`, see `recipe.resolve`.
        rates: peak learning rates; each is used only if no earlier one found better weights than the start.
        precision: of the matrix products, see `stages.backbone.precision`.
        unit: the unit of the labels, see `Problem.unit`.

    Raises:
        PipelineError: the loss is not finite.
    """
    best = Best(select_by=options.select_by, main=main, patience=options.early_stopping)
    of_method = methods.callbacks(model)
    sizes = {"rows": len(read), "validation_rows": len(rows["validation"])}
    with files.scratch() as scratch:
        trainer = RowTrainer(
            model=model,
            args=arguments(options, **sizes, seed=seed, precision=precision, scratch=str(scratch)),
            train_dataset=indexed(rows, "train", read),
            eval_dataset=indexed(rows, "validation", np.arange(len(rows["validation"]))),
            data_collator=partial(collate, rows=rows),
            compute_metrics=partial(validation_scores, rows=rows["validation"], problem=problem, main=main, unit=unit),
            compute_loss_func=loss_function(model, problem, rows["train"], options),
            callbacks=of_method,
        )
        trainer.checkpoints = checkpoints
        chosen_start, scores = checkpoints.before or start(trainer, starts, best)
        logged = Curves(main.key, start=scores[chosen_start])
        for callback in (logged, best):
            trainer.add_callback(callback)
        checkpoints.attach(trainer, parts=[*of_method, logged, best], before=(chosen_start, scores))
        rate = train(trainer, logged, best, rates=rates, options=options)
    if ranks.is_first():
        logged.save(curves)
    chosen = {"head_init": chosen_start, "epochs": options.epochs, "lr": rate, "balance": options.balance}
    found = {"main": main.key, "recipe": chosen, "start": scores, "best_epoch": best.epoch}
    return found | kept_scores(best.scores, main, list(model.config.id2label.values()))


def train(trainer: "RowTrainer", curves: Curves, best: Best, *, rates: tuple[float, ...], options: Train) -> float:
    """Train with one learning rate after the other until one finds better weights than the start; returns the last.

    Leaves the trainer's model with the best weights.
    """
    for call, rate in enumerate(rates):
        if call < trainer.checkpoints.call:
            continue
        trainer.restart(rate, options)
        with callbacks.bar(trainer):
            trainer.checkpoints.train(call)
        put(trainer.model, best.weights)
        if best.epoch:
            break
        progress.say(f"train: lr {rate:g} finds nothing better on the validation rows than the start")
        curves.offset += trainer.state.global_step
    return rate


def start(trainer: "RowTrainer", starts: dict[str, head.Start], best: Best) -> tuple[str, dict[str, dict[str, float]]]:
    """Put the trainer's model into the start that is best on the validation rows; returns its name and the scores of
    each."""
    found = {}
    for name, put_start in starts.items():
        put_start(trainer.model)
        scores = without_prefix(trainer.evaluate())
        if best.consider(trainer.model, scores, epoch=0):
            chosen = name
        found[name] = validation_entries(scores, best.main)
    put(trainer.model, best.weights)
    best.start = best.scores
    return chosen, found


def validation_scores(
    given: EvalPrediction, *, rows: store.Rows, problem: Problem, main: MainScore, unit: float
) -> dict[str, float | list[float]]:
    """What `Problem.validate` finds in the logits of the validation rows; all ranks take what the first one finds."""
    _, indices = given.label_ids
    order = np.argsort(indices)  # rows came in another order, in batches of similar length
    found = problem.validate(rows.pooled(given.predictions[order]), rows.text_labels, unit=unit, main=main)
    return ranks.agreed(found)


def kept_scores(found: dict[str, Any], main: MainScore, class_names: list[str]) -> dict[str, float | dict[str, float]]:
    """The entries of metrics/train.json about the kept weights."""
    fitted = {name: found[name] for name in ("temperature", "thresholds") if name in found}
    if "thresholds" in fitted:
        fitted["thresholds"] = dict(zip(class_names, fitted["thresholds"], strict=True))
    return fitted | {"validation": validation_entries(found, main)}


def validation_entries(found: dict[str, Any], main: MainScore) -> dict[str, float]:
    """The scores on the validation rows that metrics/train.json holds."""
    return {name: found[name] for name in dict.fromkeys((main.key, *reversed(LOSSES))) if name in found}


def indexed(rows: dict[str, store.Rows], split: str, indices: np.ndarray) -> Dataset:
    """The indices of a split's rows and their lengths, from which the Trainer makes batches of similar length."""
    lengths = rows[split].lengths[indices]
    return Dataset.from_dict({"split": [split] * len(indices), "index": indices, "length": lengths})


def collate(items: list[dict], *, rows: dict[str, store.Rows]) -> dict[str, torch.Tensor]:
    """The batch of the rows that `items` name, and their indices, (batch,)."""
    indices = [item["index"] for item in items]
    return rows[items[0]["split"]].batch(indices) | {INDICES: torch.tensor(indices)}


def loss_function(model: nn.Module, problem: Problem, rows: store.Rows, options: Train) -> Callable[..., torch.Tensor]:
    """The mean loss of rows; on validation rows without what is for training alone, so that epochs and runs with other
    settings can be compared.

    Args:
        rows: of the training.
    """
    return loss_of_numbers(model, rows.text_labels) if problem.numeric else loss_of_classes(model, rows, options)


def loss_of_numbers(model: nn.Module, labels: np.ndarray) -> Callable[..., torch.Tensor]:
    """Smooth L1 while `model` trains, else the mean absolute error.

    Smooth L1 (Girshick 2015) grows as the square of an error does up to a bound: training settles as with squared
    errors. The bound is the labels' median absolute deviation, 0 where most are equal: the best constant stays near the
    median.
    """
    bound = float(np.median(np.abs(labels - np.median(labels))))

    def loss(outputs: ModelOutput, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        numbers, beta = outputs.logits.flatten(), bound if model.training else 0.0
        return nn.functional.smooth_l1_loss(numbers, labels.flatten(), beta=beta)

    return loss


def loss_of_classes(model: nn.Module, rows: store.Rows, options: Train) -> Callable[..., torch.Tensor]:
    """The model's own loss; while it trains, cross entropy with weights and label smoothing, if there are any.

    Args:
        rows: with `balance: weights`, their texts are weighted as in `row_weights`, by 1 on average: what a row counts
            does not depend on the rest of its batch.
    """
    weights = None
    if options.balance == "weights":
        of_texts = row_weights(rows.text_labels)
        weights = torch.zeros(model.config.num_labels)
        weights[rows.text_labels] = torch.from_numpy(of_texts / of_texts.mean()).float()

    def loss(outputs: ModelOutput, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if not model.training or (weights is None and not options.label_smoothing):
            return ForSequenceClassificationLoss(labels, outputs.logits, model.config)
        weight = None if weights is None else weights.to(outputs.logits)
        settings = {"weight": weight, "label_smoothing": options.label_smoothing, "reduction": "none"}
        return nn.functional.cross_entropy(outputs.logits, labels, **settings).mean()

    return loss


def arguments(
    options: Train, *, rows: int, validation_rows: int, seed: int, precision: str, scratch: str
) -> TrainingArguments:
    """The section `train` as transformers' `TrainingArguments`, for passes over so many rows."""
    evaluations = recipe.evaluations(options.epochs, rows=rows, validation_rows=validation_rows)
    steps = recipe.steps_per_epoch(options, rows) * options.epochs
    found = TrainingArguments(
        output_dir=scratch,
        seed=seed,
        num_train_epochs=options.epochs,
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
        eval_strategy="steps",
        eval_steps=math.ceil(steps / evaluations),
        save_strategy="no",
        logging_steps=min(options.logging_steps, max(steps // FEWEST_LOGGED, 1)),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        label_names=["labels", INDICES],  # the Trainer passes these to compute_metrics with the logits
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
        accelerator_config={"split_batches": True},  # of the ranks, each gets its share of a batch
        average_tokens_across_devices=False,  # the loss is a mean over rows
        log_level_replica="error",
    )
    return on_one_device(found)


def on_one_device(arguments: TrainingArguments) -> TrainingArguments:
    """The arguments for one device, however many GPUs are visible: each would get a batch (`nn.DataParallel`)."""
    if arguments.device and arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def logits_alone(outputs: torch.Tensor | tuple, labels: Any) -> torch.Tensor:
    """The logits among a model's outputs, which for an encoder-decoder include the encoder's states, after them."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


class RowTrainer(Trainer):
    """A Trainer whose batches carry their row indices, and that fails at the first loss that is not finite."""

    loss_is_scaled_for_ga = False  # the models' classification loss is a mean over the batch, whatever they accept
    remedy = "lower train.lr or lora.alpha, lengthen train.warmup, or set precision: float32"
    """What may help where the loss is not finite."""

    def __init__(self, **settings: Any) -> None:
        if shards.is_sharded(settings["model"]):  # no rank has room for whole gradients until the last batch of a step
            settings["args"].accelerator_config.gradient_accumulation_kwargs = {"sync_each_batch": True}
        super().__init__(preprocess_logits_for_metrics=logits_alone, **settings)
        self.remove_callback(PrinterCallback)  # it prints dictionaries
        ranks.seed(self.args.seed)

    def _get_train_sampler(self, *args: Any) -> Sampler:
        return ranks.AgreedOrder(super()._get_train_sampler(*args))

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        loader = super()._get_dataloader(*args, **kwargs)
        if self.args.world_size > 1:
            loader.batch_sampler.__class__ = ranks.EqualShares
        return loader

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        found = super().evaluation_loop(*args, **kwargs)
        if self.args.world_size > 1:  # the Trainer weighs every rank's share of the last batch as if it were whole
            logits, labels = torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids[0])
            loss = self.compute_loss_func(SequenceClassifierOutput(logits=logits), labels)
            found.metrics["eval_loss"] = ranks.agreed(loss.item())
        return found

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        model_inputs = {name: values for name, values in inputs.items() if name != INDICES}
        result = super().compute_loss(model, model_inputs, *args, **kwargs)
        if self.model.training:
            return self.finite(result + methods.penalty(self.model))
        self.finite(result[0] if isinstance(result, tuple) else result)
        return result

    def finite(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss.

        Raises:
            PipelineError: it is not finite.
        """
        if not torch.isfinite(loss):
            raise PipelineError(
                f"train: expected a finite loss, found {loss.item()} at step {self.state.global_step}; {self.remedy}"
            )
        return loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.checkpoints.save()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.checkpoints.put_weights(self.model)

    def restart(self, rate: float, options: Train) -> None:
        """Prepare the next run of `train`, with a new optimizer at this peak learning rate.

        With `train.lora_plus_ratio`, lora_B has a multiple of it (Hayou et al. 2024), and in PEFT so have vectors, such
        as biases.
        """
        self.args.learning_rate = rate
        self.optimizer = self.lr_scheduler = None
        if self.args.world_size > 1:  # accelerate takes a model that was evaluated for one that DDP has wrapped
            self.model._is_accelerate_prepared = False
        if options.lora_plus_ratio:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = create_loraplus_optimizer(
                self.model,
                kind,
                loraplus_lr_ratio=options.lora_plus_ratio,
                loraplus_weight_decay=options.weight_decay,
                **settings,
            )
