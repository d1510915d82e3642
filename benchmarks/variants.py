"""What other settings of the training would give: the default model on the default data, without its test rows.

    python -m benchmarks.variants

In place of the test rows stand the training rows that `data.limit.train` leaves out. Adds what has not been measured
yet under the conditions of now to benchmarks/results/variants.json, which keeps no others, and writes RESULTS.md;
remove that file to measure all anew. Run from the root of the repository; rows, model and log are kept where the
gauntlet keeps its own.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import gauntlet, results
from benchmarks.tasks import DEVELOPMENT, write_params
from stages.common import errors, paths

(TASK,) = DEVELOPMENT
MODEL = "SmolLM2-135M"

DEPTH = "lora.top_layers"
"""The one key of all variants that decides what `encode` stores."""

WITH_TWO_LAYERS = {
    "seed 1": {"train.seeds": 1},
    "seed 2": {"train.seeds": 2},
    "half the learning rate": {"train.lr": 5e-4},
    "twice the learning rate": {"train.lr": 2e-3},
    "3 epochs": {"train.epochs": 3},
    "rank 32": {"lora.r": 32, "lora.alpha": 64},
    "dropout": {"lora.dropout": 0.1},
    "label smoothing": {"train.label_smoothing": 0.1},
    "LoRA+": {"train.lora_plus_ratio": 8, "train.lr": 5e-4},
    "start from the label words": {"lora.head_init": "label_words"},
}

VARIANTS = {
    "the defaults": {},
    "seed 1": {"train.seeds": 1},
    "seed 2": {"train.seeds": 2},
    "6 layers": {DEPTH: 6},
    "2 layers": {DEPTH: 2},
    **{f"2 layers, {name}": {DEPTH: 2} | changes for name, changes in WITH_TWO_LAYERS.items()},
}
"""What differs from params.yaml, by dotted keys. Those of one depth stand together."""


def main() -> None:
    folders = gauntlet.Folders(*((gauntlet.HOME / name).resolve() for name in ("data", "bases", "results")))
    gauntlet.prepare(folders, [TASK], [MODEL])
    rows = gauntlet.read(folders.data / TASK / "data.json")["rows"]
    found = results.still_valid("variants", rows=rows).get("variants", {})
    with tempfile.TemporaryDirectory() as scratch:
        run = Runs(Path(scratch), folders)
        for name, changes in VARIANTS.items():
            if found.get(name, {}).get("changes") != changes:
                found[name] = run.measured(changes)
                listed = {known: found[known] for known in VARIANTS if known in found}
                results.save("variants", {"rows": rows, "variants": listed})
                print(name, found[name], flush=True)
    results.report()


class Runs:
    """The runs in a folder, which encode the rows only where what is stored depends on what differs."""

    def __init__(self, folder: Path, folders: gauntlet.Folders) -> None:
        self.folder, self.log, self.encoded = folder, folders.results / "variants.log", "nothing"
        self.task = gauntlet.link(folder, folders, TASK, MODEL)

    def measured(self, changes: dict[str, Any]) -> dict[str, Any]:
        """What a run with these changes gives."""
        write_params(self.folder / paths.PARAMS, self.task | changes)
        if self.encoded != changes.get(DEPTH):
            self.stages("encode", "baseline")
            self.encoded = changes.get(DEPTH)
        self.stages("train", "evaluate")
        baseline, train, evaluate = (
            gauntlet.read(self.folder / path)
            for path in (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
        )
        return {
            "changes": changes,
            "validation": train["validation"]["accuracy"],
            "accuracy": evaluate["accuracy"],
            "interval": evaluate["interval"]["accuracy"],
            "log_loss": evaluate["log_loss"],
            "probe": baseline["linear_probe"]["accuracy"],
        }

    def stages(self, *names: str) -> None:
        """Run stages in the folder."""
        for name in names:
            gauntlet.stage(name, self.folder, self.log)


if __name__ == "__main__":
    errors.run_script(main, __doc__)
