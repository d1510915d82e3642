"""The pipeline compared with the script that most people would write, in one run on one machine.

    python -m benchmarks.bench              everything, in the order of PARTS
    python -m benchmarks.bench repeated     one part; RESULTS.md keeps the others

Both run on the same base model, split, rows and prompt, alternating, in a fresh clone of this repository, whose last
commit is what gets measured. Writes benchmarks/results/PART.json, and from all of them benchmarks/RESULTS.md and
benchmarks/time_accuracy.png. A part that fails leaves its earlier result, and the others are measured. Takes over an
hour on 2 cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ruamel.yaml import YAML

from benchmarks import results
from benchmarks.methods import SETTINGS
from stages.common import errors
from stages.common.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
FEW = {"train": 400, "validation": 80, "test": 150}
"""Rows of the repeated comparison."""

ONE_EPOCH = {"epochs": 1, "lr": 1e-3}
"""The training that is compared: as long as the plain script's, with no second learning rate to try."""

DEPTHS = (2, 6)
"""Values of `lora.top_layers`, below and above the default, whose reruns are compared."""

LOAD = (
    "import stages.evaluate; from stages.classifier.model import load_base; from stages.common import paths; "
    "load_base(paths.BASE_MODEL, labels={'num_labels': 2}, seed=0)"
)

STAGES = ("fetch", "prepare", "encode", "baseline", "audit", "train", "evaluate", "report")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all of them)")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise PipelineError(f"expected parts among {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        clone = Clone(Path(scratch, "project"))
        failed = [part for part in chosen if not measure(part, clone)]
    results.report()
    if failed:
        raise PipelineError(f"expected a result of every part, found errors in {', '.join(failed)}; see above")


def measure(part: str, clone: "Clone") -> bool:
    """Measure a part and save what it gives; returns whether it did, and prints why it did not."""
    print(f"== {part}", flush=True)
    try:
        results.save(part, PARTS[part](clone))
    except PipelineError as error:
        print(error, flush=True)
        return False
    return True


@dataclass(frozen=True)
class Run:
    """A finished process."""

    seconds: float
    peak_mb: float
    """Peak resident memory of its largest process, MiB."""
    lines: list[tuple[float, str]]
    """Each line that it printed, after the seconds from the start until then."""

    @property
    def result(self) -> dict:
        """The JSON of the last line that it printed."""
        return json.loads(self.lines[-1][1])

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage that a `dvc repro` ran."""
        begun = [(line.split("'")[1], after) for after, line in self.lines if line.startswith("Running stage")]
        ended = [after for _, after in begun[1:]] + [self.seconds]
        return {name: end - after for (name, after), end in zip(begun, ended, strict=True)}


class Clone:
    """A clone of this repository, in which `fetch` and `prepare` have run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        self.python("-m", "dvc", "repro", "fetch", "prepare")

    def python(self, *arguments: str) -> Run:
        """Run a Python command in the clone; its errors and progress go to the terminal.

        Raises:
            PipelineError: the command failed.
        """
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = [(time.perf_counter() - start, line) for line in process.stdout]
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise PipelineError(f"{' '.join(arguments)} failed:\n{''.join(line for _, line in lines)}")
        return Run(time.perf_counter() - start, usage.ru_maxrss / 1024, lines)

    def set(self, **sections: dict | str) -> None:
        """Restore the committed params.yaml, then make the given changes."""
        subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=self.folder, check=True)
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        for section, values in sections.items():
            params[section] = params[section] | values if isinstance(values, dict) else values
        yaml.dump(params, self.folder / "params.yaml")

    def retrain(self) -> Run:
        """Run train and what depends on it, even if nothing changed."""
        return self.python("-m", "dvc", "repro", "--force", "--no-run-cache", "--downstream", "train")

    def limits(self) -> dict[str, int]:
        """The committed `data.limit`."""
        self.set()
        return YAML(typ="safe").load(self.folder / "params.yaml")["data"]["limit"]

    def metric(self, file: str) -> dict:
        """A metrics file of the last run."""
        return json.loads((self.folder / "metrics" / file).read_text())


def repeated(clone: Clone) -> dict:
    """Few rows, several rounds."""
    rounds = [compare(clone, FEW, "float32") for _ in range(ROUNDS)]
    return {"rows": FEW, "rounds": rounds}


def full(clone: Clone) -> dict:
    """All rows of the default run, once."""
    return whole(clone, "float32")


def bfloat16(clone: Clone) -> dict:
    """The same with matrix products in 16 bits on both sides; slower on a CPU without AMX or AVX512-BF16."""
    return whole(clone, "bfloat16")


def whole(clone: Clone, precision: str) -> dict:
    """All rows of the default run, and reruns at other depths."""
    limits = clone.limits()
    compared = compare(clone, limits, precision)
    depths = [at_depth(clone, layers, precision) for layers in DEPTHS]
    return {"rows": limits, **compared, "depths": depths}


def at_depth(clone: Clone, top_layers: int, precision: str) -> dict[str, float]:
    """A rerun of train and evaluate with adapters on another number of layers, with stored states already there."""
    clone.set(precision=precision, lora={"top_layers": top_layers}, train=ONE_EPOCH)
    clone.python("-m", "dvc", "repro", "baseline")
    done = clone.retrain()
    return {"top_layers": top_layers, "rerun_s": done.seconds, "accuracy": clone.metric("evaluate.json")["accuracy"]}


def compare(clone: Clone, rows: dict[str, int], precision: str) -> dict:
    """First full run, plain script, and the rerun after a changed rank, one after the other; one epoch on both sides.

    The pipeline's first run starts at encode, as the plain script starts with model and split in place. The plain
    script's first evaluation counts in its first run only: a second run need not repeat it.
    """
    clone.set(precision=precision, data={"limit": rows}, train=ONE_EPOCH)
    clone.python("-m", "dvc", "repro", "prepare")
    first = clone.python("-m", "dvc", "repro", "--force", "--no-run-cache", "--downstream", "encode")
    accuracy = clone.metric("evaluate.json")["accuracy"]
    sizes = ["--train-rows", str(rows["train"]), "--test-rows", str(rows["test"])]
    plain = clone.python("-m", "benchmarks.plain", *sizes, "--precision", precision)
    phases = plain.result
    clone.set(precision=precision, data={"limit": rows}, lora={"r": 4}, train=ONE_EPOCH)
    rerun = clone.python("-m", "dvc", "repro", "--no-run-cache")
    return {
        "first_run_s": {"pipeline": first.seconds, "plain": plain.seconds},
        "stages_s": first.stages,
        "rerun_s": {"pipeline": rerun.seconds, "plain": plain.seconds - phases["before_s"]},
        "peak_mb": {"pipeline": max(first.peak_mb, rerun.peak_mb), "plain": plain.peak_mb},
        "accuracy": {
            "pipeline": accuracy,
            "pipeline_rerun": clone.metric("evaluate.json")["accuracy"],
            "plain": phases["accuracy"],
        },
        "plain_train_tokens_per_s": phases["tokens"] / phases["train_s"],
    }


def methods(clone: Clone) -> dict:
    """Every method of PEFT on a sixth of the default training rows: all of them would take hours. Of an earlier run
    under the same conditions, a method's result stays until the method is measured anew."""
    limits = clone.limits() | {"train": 500}
    clone.set(data={"limit": limits})
    clone.python("-m", "dvc", "repro", "baseline")
    measured = {"rows": limits, "methods": results.still_valid("methods", rows=limits).get("methods", {})}
    for name, sections in SETTINGS.items():
        clone.set(data={"limit": limits}, **sections | {"train": ONE_EPOCH | sections.get("train", {})})
        done = clone.retrain()
        tuned = clone.metric("evaluate.json")
        measured["methods"][name] = {
            "accuracy": tuned["accuracy"],
            **tuned["interval"]["accuracy"],
            "gain": tuned["gain"]["strongest_rival"],
            "trainable_parameters": clone.metric("train.json")["trainable_parameters"],
            "seconds": done.seconds,
            "peak_mb": done.peak_mb,
        }
        results.save("methods", measured)  # after each method, as soon as it is measured
    return measured


def share(clone: Clone) -> dict:
    """Shares of the machine's matmul rate, on the default rows, in every precision."""
    measured = {}
    for precision in ("float32", "bfloat16"):
        clone.set(precision=precision)
        clone.python("-m", "dvc", "repro", "encode")
        measured[precision] = clone.python("-m", "benchmarks.share").result
    return measured


def labels(clone: Clone) -> dict:
    """What `audit` finds where labels are wrong, and what dropping its suspects regains."""
    clone.set()
    clone.python("-m", "dvc", "repro", "baseline")
    return clone.python("-m", "benchmarks.labels", "--tuned").result


def inference(clone: Clone) -> dict:
    """`stages.predict` compared with transformers' pipeline, on the adapter of the default run."""
    clone.set()
    clone.python("-m", "dvc", "repro", "train")
    return clone.python("-m", "benchmarks.inference").result


def startup(clone: Clone) -> dict:
    """A `dvc repro` with nothing to do, DVC's own imports, each stage's imports, and the loading of the base model."""
    clone.set()
    clone.python("-m", "dvc", "repro")
    commands = {
        "dvc repro, nothing to do": ("-m", "dvc", "repro"),
        "imports of DVC": ("-c", "import dvc.cli, dvc.commands.repro, dvc.repo"),
        **{f"imports of {stage}": ("-c", f"import stages.{stage}") for stage in STAGES},
        "imports of evaluate, and loading the base model": ("-c", LOAD),
    }
    return {name: median(clone.python(*command).seconds for _ in range(ROUNDS)) for name, command in commands.items()}


def growth(clone: Clone) -> dict:
    """Cost against rows and length."""
    clone.set()
    return clone.python("-m", "benchmarks.growth").result


PARTS = {part.__name__: part for part in (repeated, full, bfloat16, methods, labels, share, inference, startup, growth)}
"""In the order in which they run."""


if __name__ == "__main__":
    errors.run(main)
