"""Is the promise of `evaluate.target_accuracy` kept? A small encoder on the default data, on five different splits.

    python -m benchmarks.abstention [TARGET]

Runs the pipeline (fetch to evaluate) for each of the seeds of the split, in a fresh clone of this repository's last
commit. Prints a Markdown table: for each, the threshold, the share of test rows that are answered, and their accuracy
with its 95 % interval. The promise holds where the upper end of the interval is not below the target.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.bench import Clone
from benchmarks.tasks import MODELS, write_params
from stages.common import paths
from stages.reporting.markdown import table

SEEDS = (42, 1, 2, 3, 4)
TARGET = 0.9

CHANGES = MODELS["all-MiniLM-L6-v2"] | {"data.split.calibration": 0.15}


def main() -> None:
    target = float(sys.argv[1]) if sys.argv[1:] else TARGET
    with tempfile.TemporaryDirectory() as scratch:
        clone = Clone(Path(scratch, "project"))
        lines = [line(seed, measured(clone, seed, target)) for seed in SEEDS]
    columns = ("seed of the split", "kept rows", "threshold", "answered", "accuracy (95 % interval)", "promise holds")
    print(f"Target: {100 * target:g} %\n\n{table(columns, lines)}")


def measured(clone: Clone, seed: int, target: float) -> dict[str, float]:
    """What became of the promise with this seed of the split: `abstention` of metrics/evaluate.json."""
    changes = CHANGES | {"data.seed": seed, "evaluate.target_accuracy": target}
    write_params(clone.folder / paths.PARAMS, changes)
    clone.python("-m", "dvc", "repro", "evaluate")
    return clone.metric("evaluate.json")["abstention"]


def line(seed: int, found: dict[str, float]) -> tuple[str, ...]:
    """A row of the table; where nothing is answered, nothing can be wrong."""
    start = (str(seed), f"{found['rows']:,}", f"{found['threshold']:.4f}", f"{100 * found['answered']:.1f} %")
    if "accuracy" not in found:
        return *start, "", "yes"
    accuracy, low, high = (f"{100 * found[key]:.1f}" for key in ("accuracy", "low", "high"))
    return *start, f"{accuracy} % ({low} to {high})", "yes" if found["high"] >= found["target"] else "no"


if __name__ == "__main__":
    main()
