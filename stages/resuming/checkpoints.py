"""Checkpoints of a training: after an interruption it goes on as if there had been none, to the last bit.

transformers' Trainer can go on from a checkpoint, but not exactly: within a pass over the rows it draws another order,
and it forgets the loss since the last log. Both are added here, and so is what the Trainer does not know: the best
weights so far, the curves, the learning rates that were tried.
"""

import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from stages.classifier.weights import put, trained
from stages.common import files, progress
from stages.compute import ranks, shards
from stages.resuming.pace import Pace

STATE = "state.pt"
"""The file of a checkpoint with everything that the Trainer's own files lack."""

EPOCH = "epoch"
"""The folder with the random state at the beginning of the pass over the rows."""


class Stateful(Protocol):
    """Part of a training whose memory a checkpoint has to hold."""

    def state(self) -> dict[str, Any]:
        """Its memory, of tensors, numbers, texts, lists and dictionaries."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the memory of another one."""


class Checkpoints(TrainerCallback):
    """Saves a training every so many seconds into a folder, in which the newest checkpoint is kept.

    The training may consist of several calls of `Trainer.train`, with something before the first. Of a sharded model
    each rank saves what it holds, in a folder of its own within the checkpoint.
    """

    def __init__(self, home: Path, *, seconds: float) -> None:
        self.home, self.pace = home, Pace(seconds)
        self.found = ranks.agreed(max(home.glob("checkpoint-*"), default=None))
        if self.found and (own := self.found / of_rank()).exists():
            self.found = own
        self.state: dict[str, Any] = torch.load(self.found / STATE, weights_only=True) if self.found else {}

    @property
    def before(self) -> Any:
        """What was given to `attach` in the interrupted run; None if there was none."""
        return self.state.get("before")

    @property
    def call(self) -> int:
        """In which call of `Trainer.train` the interrupted run was."""
        return self.state.get("call", 0)

    def attach(self, trainer: Trainer, *, parts: list[Stateful], before: Any) -> None:
        """Serve this trainer.

        Args:
            parts: what else a checkpoint has to hold; before: what came out of what precedes the first call.
        """
        self.trainer, self.parts, self.given = trainer, parts, before
        trainer.add_callback(self)

    def train(self, call: int) -> None:
        """Call `Trainer.train`, or go on with it."""
        self.current = call
        if self.found:
            progress.say(f"train: goes on after step {self.state['step']:,} of an interrupted run")
        self.trainer.train(resume_from_checkpoint=str(self.found) if self.found else None)

    def put_weights(self, model: nn.Module) -> None:
        """Set the trained parameters to those of the checkpoint."""
        put(model, self.state["weights"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over the checkpoint's memory, after all other callbacks have begun anew."""
        if self.found:
            for part, state_of_part in zip(self.parts, self.state["parts"], strict=True):
                part.restore(state_of_part)
            self.trainer._tr_loss = self.state["losses"][args.process_index].to(args.device)
            self.trainer._globalstep_last_logged = self.state["logged_step"]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the random state from which the pass draws the order of the rows, or go back to the one that was kept.

        The Trainer itself goes back to that of the checkpoint once the rows that were read are skipped.
        """
        if self.found:
            within = not float(self.state["epoch"]).is_integer()
            self.trainer._load_rng_state(str(self.found / EPOCH if within else self.found))
            self.found = None
        self.trainer._save_rng_state(str(self.home / EPOCH))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have the Trainer save, once it has logged and evaluated."""
        control.should_save = ranks.agreed(self.pace.due) and state.global_step < state.max_steps

    def save(self) -> None:
        """Write a checkpoint, then remove the one before."""
        trainer = self.trainer
        name = f"checkpoint-{self.current}-{trainer.state.global_step:09}"
        memory = self.memory()
        with self.pace.saving(), ranks.by_first(files.replacing(self.home / name)) as folder:
            sharded = shards.is_sharded(trainer.model)
            if sharded:
                folder /= of_rank()
            trainer._save_rng_state(str(folder))  # of each rank
            if sharded or ranks.is_first():
                torch.save(trainer.optimizer.state_dict(), folder / OPTIMIZER_NAME)
                torch.save(trainer.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
                if trainer.accelerator.scaler:
                    torch.save(trainer.accelerator.scaler.state_dict(), folder / SCALER_NAME)
                shutil.copytree(self.home / EPOCH, folder / EPOCH)
                trainer.state.save_to_json(str(folder / TRAINER_STATE_NAME))
                torch.save(memory, folder / STATE)
        for path in self.home.glob("checkpoint-*") if ranks.is_first() else ():
            if path.name != name:
                shutil.rmtree(path)

    def memory(self) -> dict[str, Any]:
        """What the Trainer's own files lack."""
        trainer = self.trainer
        return {
            "before": self.given,
            "call": self.current,
            "step": trainer.state.global_step,
            "epoch": trainer.state.epoch,
            "weights": [part.detach() for part in trained(trainer.model)],
            "losses": ranks.gathered(trainer._tr_loss),
            "logged_step": trainer._globalstep_last_logged,
            "parts": [part.state() for part in self.parts],
        }


def of_rank() -> str:
    """The name of this rank's folder in a checkpoint of a sharded model."""
    return f"rank-{ranks.ranks()[0]}"
