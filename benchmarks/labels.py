"""What the stage `audit` finds where training labels are wrong, and what dropping its suspects regains.

    python -m benchmarks.labels             linear probes
    python -m benchmarks.labels --tuned     and the tuned model, which is trained three times

Reads data/prepared and data/features; for the tuned model also models/base, data/encoded and data/predictions. Flips
some training labels at random and judges all labels as `audit` does, with the regularization that `linear_probe`
chooses; validation and test labels stay as they are. Prints one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from stages import audit, baseline
from stages.backbone import store
from stages.common import paths
from stages.evidence import suspects
from stages.params import Params
from stages.scoring.kinds import SCORED

ROOT = Path(__file__).resolve().parent.parent
SHARES = (0.05, 0.1)
DRAWS = 3
"""Random choices of the flipped rows, over which results are averaged."""

FIRST = 50
"""How many of the most suspect rows a person may look at."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels")
    parser.add_argument("--tuned", action="store_true", help="also train the tuned model, three times")
    options, data = parser.parse_args(), Data.load()
    values = {"rows": len(data.labels), "first": FIRST, "draws": DRAWS, "clean": data.probe(data.labels)[1]}
    values["shares"] = {
        share: pd.DataFrame([measure(data, share, draw) for draw in range(DRAWS)]).mean().to_dict() for share in SHARES
    }
    if options.tuned:
        values["tuned"] = measure_tuned(data, SHARES[-1])
    print(json.dumps(values))


@dataclass(frozen=True)
class Data:
    """The default run's rows, by split."""

    params: Params
    names: list[str]
    splits: dict[str, suspects.Labelled]

    @classmethod
    def load(cls) -> "Data":
        params = Params.load()
        problem = SCORED[params.data.problem]
        names = audit.label_names(problem)
        return cls(params, names, {name: audit.labelled(problem, names, audit.read(name)) for name in paths.SPLITS})

    @property
    def labels(self) -> np.ndarray:
        """Of the training rows."""
        return self.splits["train"].labels

    def flipped(self, share: float, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """The training labels, a share of them replaced by another class; and which ones, (rows,) bool."""
        generator = np.random.default_rng(draw)
        wrong = np.zeros(len(self.labels), dtype=bool)
        wrong[generator.choice(len(wrong), round(share * len(wrong)), replace=False)] = True
        others = (self.labels + generator.integers(1, len(self.names), len(wrong))) % len(self.names)
        return np.where(wrong, others, self.labels), wrong

    def probe(self, labels: np.ndarray, kept: np.ndarray | slice = slice(None)) -> tuple[float, float]:
        """The regularization that the linear probe chooses, and its accuracy on the test rows, with these training
        labels, after training on the rows `kept`."""
        problem = SCORED[self.params.data.problem]
        features = {name: rows.features for name, rows in self.splits.items()}
        features["train"] = features["train"][kept]
        given = {name: rows.labels for name, rows in self.splits.items()} | {"train": labels[kept]}
        main_score = problem.main_score(self.params.evaluate.main, given["train"])
        task = baseline.Task(problem=problem, names=self.names, main_score=main_score, labels=given)
        probe = baseline.best(task, baseline.linear_probes(task, features, self.params.baseline))
        return probe.strength, float(1 - problem.row_errors(given["test"], probe.outputs["test"]).mean())

    def audit(self, labels: np.ndarray, strength: float) -> np.ndarray:
        """The positions of the suspect training rows, the most suspect first."""
        train, validation, test = self.splits.values()
        known = suspects.Labelled(
            features=np.concatenate([train.features, validation.features]),
            labels=np.concatenate([labels, validation.labels]),
        )
        table, _ = suspects.judge(
            SCORED[self.params.data.problem],
            self.names,
            known=known,
            others=test,
            strength=strength,
            seed=self.params.seed,
        )
        table = table[: len(labels)]
        return table.index[table["suspect"]][np.argsort(table["quality"][table["suspect"]], kind="stable")].to_numpy()


def measure(data: Data, share: float, draw: int) -> dict[str, float]:
    """What is found, and test accuracies of the linear probe."""
    labels, wrong = data.flipped(share, draw)
    strength, accuracy = data.probe(labels)
    found = data.audit(labels, strength)
    return {
        "flipped": wrong.sum(),
        "suspects": len(found),
        "precision_first": wrong[found[:FIRST]].mean(),
        "precision_flipped": wrong[found[: wrong.sum()]].mean(),
        "precision": wrong[found].mean(),
        "recall": wrong[found].sum() / wrong.sum(),
        "accuracy_flipped": accuracy,
        "accuracy_without_suspects": data.probe(labels, np.setdiff1d(np.arange(len(labels)), found))[1],
        "accuracy_without_flipped": data.probe(labels, np.flatnonzero(~wrong))[1],
    }


def measure_tuned(data: Data, share: float) -> dict[str, float]:
    """Test accuracies of the tuned model: with the labels as they are, with some flipped, and without the suspects."""
    labels, _ = data.flipped(share, draw=0)
    every = np.arange(len(labels))
    left = np.setdiff1d(every, data.audit(labels, data.probe(labels)[0]))
    settings = {"clean": (data.labels, every), "flipped": (labels, every), "without_suspects": (labels, left)}
    return {name: tune(*given) for name, given in settings.items()}


def tune(labels: np.ndarray, kept: np.ndarray) -> float:
    """The test accuracy of the model that `train` makes of the training rows at `kept`, with these labels."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in (paths.PARAMS, paths.BASE_MODEL, paths.PREPARED, paths.SLICES, paths.BASELINE_PREDICTIONS):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(path.resolve())
        (folder / paths.ENCODED).mkdir()
        for part in paths.ENCODED.iterdir():
            if part.name != "train":
                (folder / part).symlink_to(part.resolve())
        write_encoded(paths.ENCODED / "train", folder / paths.ENCODED / "train", labels=labels, kept=kept)
        for stage in ("train", "evaluate"):
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True, stdout=2)
        return json.loads((folder / paths.EVALUATE_METRICS).read_text())["accuracy"]


def write_encoded(source: Path, target: Path, *, labels: np.ndarray, kept: np.ndarray) -> None:
    """Write an encoded split, in which each text is one row, with only the rows at `kept`, and these labels."""
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(source, about)
    chunk = store.Chunk(
        tokens=np.concatenate([rows.tokens[rows.offsets[index] : rows.offsets[index + 1]] for index in kept]),
        lengths=rows.lengths[kept],
        counts=np.ones(len(kept), dtype=np.int64),
        labels=labels[kept],
        source_rows=rows.source_rows[kept],
    )
    store.save_tokens(target, [chunk])
    written = store.create_states(target, store.load_rows(target, replace(about, depth=0)), about)
    for place, index in enumerate(kept):
        written[place][:] = rows.states[index]


if __name__ == "__main__":
    main()
