"""What a run logs while it trains: the curves of metrics/train, and the loss and learning rate in the progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager

from dvclive import Live
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common import progress


class Curves(TrainerCallback):
    """Writes logged values to DVCLive, under the names in `curves`."""

    def __init__(self, live: Live, curves: dict[str, str]) -> None:
        self.live, self.curves, self.offset = live, curves, 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        self.live.step = self.offset + state.global_step
        for name, curve in self.curves.items():
            if name in logs:
                self.live.log_metric(curve, logs[name])


@contextmanager
def bar(trainer: Trainer) -> Iterator[None]:
    """Shows the steps of the training within."""
    with progress.bar("train", total=0, unit="step") as shown:
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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.shown.total = state.max_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.shown.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        if "loss" in logs:
            self.shown.set_postfix_str(f"loss {logs['loss']:.3f}, learning rate {logs['learning_rate']:.2g}")
