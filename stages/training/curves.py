"""The curves of a run, for `dvc plots`: losses and the main score by optimizer step."""

from pathlib import Path

import pandas as pd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common import files

LOSSES = {"loss": "training", "eval_loss": "validation", "eval_log_loss": "validation, calibrated"}
"""The logged losses, and what they are called in loss.csv; timings differ from run to run and are in no file."""


class Curves(TrainerCallback):
    """Collects the values that the Trainer logs. The start of the run is step 0."""

    def __init__(self, main: str, start: dict[str, float]) -> None:
        """Args: main: the key of the main score; start: the scores on the validation rows before the first step."""
        self.main, self.offset, self.logged = main, 0, [(0, {f"eval_{name}": value for name, value in start.items()})]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        self.logged.append((self.offset + state.global_step, logs))

    def save(self, folder: Path) -> None:
        """Write loss.csv (step, split, loss) and main.csv (step, split, score) into the folder."""
        losses = [
            {"step": step, "split": split, "loss": logs[name]}
            for name, split in LOSSES.items()
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
