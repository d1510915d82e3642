"""Is the promise of `evaluate.target_accuracy` kept? A small encoder on the default data, on five different splits.

    python -m benchmarks.abstention [TARGET]

Runs the pipeline (fetch to evaluate) for each of the seeds of the split, in a fresh clone of this repository's last
commit. Writes benchmarks/results/abstention.json after each, which keeps the other splits if they had this target and
the same conditions, and in the end RESULTS.md.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import results
from benchmarks.bench import Clone
from benchmarks.tasks import MODELS, write_params
from stages.common import errors, paths

SEEDS = (42, 1, 2, 3, 4)
TARGET = 0.9

CHANGES = MODELS["all-MiniLM-L6-v2"] | {"data.split.calibration": 0.15}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abstention")
    parser.add_argument(
        "target", nargs="?", type=float, default=TARGET, help="evaluate.target_accuracy (default: %(default)s)"
    )
    target = parser.parse_args().target
    splits = results.still_valid("abstention", target=target).get("splits", {})
    with tempfile.TemporaryDirectory() as scratch:
        clone = Clone(Path(scratch, "project"))
        for seed in SEEDS:
            splits[f"{seed}"] = measured(clone, seed, target)
            results.save("abstention", {"target": target, "splits": splits})
    results.report()


def measured(clone: Clone, seed: int, target: float) -> dict[str, float]:
    """What became of the promise with this seed of the split: `abstention` of metrics/evaluate.json."""
    changes = CHANGES | {"data.seed": seed, "evaluate.target_accuracy": target}
    write_params(clone.folder / paths.PARAMS, changes)
    clone.python("-m", "dvc", "repro", "evaluate")
    return clone.metric("evaluate.json")["abstention"]


if __name__ == "__main__":
    errors.run(main)
