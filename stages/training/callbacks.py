"""What goes along with a training: the best weights by the validation rows, the logged curves, the progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.classifier.weights import copied
from stages.common import files, progress
from stages.problems.main_score import LOSS, WEIGHTED_LOG_LOSS, MainScore, selected_by

CURVES = {
    "loss": "training",
    "eval_loss": "validation",
    "eval_log_loss": "validation, calibrated",
    f"eval_{WEIGHTED_LOG_LOSS}": "validation, calibrated, weighted",
}
"""The logged losses, and what they are called in loss.csv; timings differ from run to run and are in no file."""

LEAST_GAIN = 1e-3
"""The part of the start's loss by which a run has to lower it: where a text says nothing about its class, the lowest of
several losses is lower by chance, and the start tells the classes apart no worse."""


class Best(TrainerCallback):
    """Keeps the trained weights with the best scores on the validation rows; a run's start counts as epoch 0.

    Weights whose main score is below that of the start are never the best, nor, if selected by their loss, those that
    lower the start's by less than `LEAST_GAIN`. The weights stay in memory: PEFT cannot load virtual tokens or AdaLoRA
    from a checkpoint into the model that it trains.
    """

    def __init__(self, *, select_by: str, main: MainScore, patience: int | None) -> None:
        self.select_by, self.main, self.patience = select_by, main, patience
        self.scores: dict[str, Any] = {}
        self.start: dict[str, Any] = {}  # the scores of the start, once it is chosen

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {name: vars(self)[name] for name in ("scores", "epoch", "weights", "start", "waited")}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        vars(self).update(state)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Be patient anew: a run may follow another one, with a lower learning rate."""
        self.waited = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Consider the weights, and end the run after `patience` evaluations without better ones."""
        better = self.consider(model, without_prefix(metrics), epoch=state.epoch)
        self.waited = 0 if better else self.waited + 1
        if self.patience and self.waited >= self.patience:
            control.should_training_stop = True

    def consider(self, model: nn.Module, scores: dict[str, Any], *, epoch: float) -> bool:
        """Keep the weights of `model` if their scores are the best so far; returns whether they are."""
        if self.start and not self.beats_start(scores):
            return False
        if self.scores and self.score(scores) <= self.score(self.scores):
            return False
        self.scores, self.epoch, self.weights = scores, round(epoch, 2), copied(model)
        return True

    def beats_start(self, scores: dict[str, Any]) -> bool:
        """Whether weights with these scores may be kept instead of the start."""
        found, started = self.score(scores), self.score(self.start)
        least = LEAST_GAIN * abs(started) if self.select_by == LOSS else 0
        return self.main_score(scores) >= self.main_score(self.start) and found - started > least

    def score(self, scores: dict[str, Any]) -> float:
        """What decides; higher is better."""
        return selection_score(scores, self.select_by, self.main)

    def main_score(self, scores: dict[str, Any]) -> float:
        """The main score; higher is better."""
        return self.main.sign * scores[self.main.key]


def selection_score(scores: dict[str, Any], select_by: str, main: MainScore) -> float:
    """What weights are compared by; higher is better."""
    score = scores[selected_by(select_by, main.key, scores)]
    return -score if select_by == LOSS else main.sign * score


def without_prefix(metrics: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's validation metrics by their plain names."""
    return {name.removeprefix("eval_"): value for name, value in metrics.items()}


class Curves(TrainerCallback):
    """Collects the values that the Trainer logs. The start of the run is step 0."""

    def __init__(self, main: str, start: dict[str, float]) -> None:
        """Args: main: the key of the main score; start: the scores on the validation rows before the first step."""
        self.main, self.offset, self.logged = main, 0, [(0, {f"eval_{name}": value for name, value in start.items()})]

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"offset": self.offset, "logged": self.logged}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        vars(self).update(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self.logged.append((self.offset + state.global_step, logs))

    def save(self, folder: Path) -> None:
        """Write loss.csv (step, split, loss) and main.csv (step, split, score) into the folder."""
        losses = [
            {"step": step, "split": split, "loss": logs[name]}
            for name, split in CURVES.items()
            for step, logs in self.logged
            if name in logs
        ]
        scores = [
            {"step": step, "split": "validation", "score": logs[key]}
            for key in (f"eval_{self.main}",)
            for step, logs in self.logged
            if key in logs
        ]
        for name, points, value in (("loss", losses, "loss"), ("main", scores, "score")):
            files.write_table(folder / f"{name}.csv", pd.DataFrame(points, columns=["step", "split", value]))


@contextmanager
def bar(trainer: Trainer, label: str = "train") -> Iterator[None]:
    """Shows the steps of the training within."""
    with progress.bar(label, total=0, unit="step") as shown:
        steps = Steps(shown)
        trainer.add_callback(steps)
        try:
            yield
        finally:
            trainer.remove_callback(steps)


class Steps(TrainerCallback):
    """Counts the steps of a training in a bar, which also tells the last logged loss and learning rate."""

    def __init__(self, shown: tqdm | progress.Lines) -> None:
        self.shown = shown

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.shown.total = state.max_steps
        self.shown.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.shown.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if "loss" in logs:
            self.shown.set_postfix_str(f"loss {logs['loss']:.3f}, learning rate {logs['learning_rate']:.2g}")
