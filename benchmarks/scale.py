"""What each stage costs as rows, texts, models and workers grow, by a model that is fitted on what was measured.

    python -m benchmarks.scale                                    the default model, 10,000 to 100,000,000 rows
    python -m benchmarks.scale --rows 1e8 --parameters 7e9 --hidden 4096 --layers 32 --bytes 2 --rate 4e14 --workers 64

Bookkeeping (reading, cleaning, splitting, tokens, writing) grows with the rows: a constant and a slope, fitted on the
points of `benchmarks.growth`. Computing grows with the products: 2 operations a weight and token forward, and 2 more
backward, as the weights themselves get no gradient (Kaplan et al. 2020, Scaling Laws for Neural Language Models,
section 2.1, has 2 and 4 for a model that is trained whole). Attention between tokens is left out: it is small for texts
shorter than six times the hidden size. The rate is the machine's matmul rate times the share of it that
`benchmarks.share` found.

Workers divide the computing among them, each with the machine's whole rate, and that share of `prepare` which runs in
parts (Amdahl 1967, Validity of the single processor approach). Each that is started adds seconds. The share and the
seconds are fitted on the points of 1 to 4 processes, which shared the cores of one machine: workers with cores of their
own start sooner. For `prepare` these are three points of three unknowns: a second of noise moves the share by up to ten
points. Nothing is measured here: the output is arithmetic.
"""

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from benchmarks import results
from benchmarks.growth import ENCODE_PROCESSES, ENCODE_ROWS, PREPARE_PROCESSES, PREPARE_ROWS
from stages.reporting.markdown import table

TEST_SHARE = 0.2
"""Of the rows, by default."""

UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))
"""Each with its seconds."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run; by default that of the default model, on all rows and one epoch."""

    rows: float
    tokens: float = 25
    """A row, template included."""
    parameters: float = 134.5e6
    hidden: int = 576
    layers: int = 22
    """Those in use."""
    top: int = 4
    """Those with adapters, `lora.top_layers`."""
    bytes: int = 4
    """A stored value and a weight."""
    rate: float = 0
    """Of a worker's matrix products, operations/s; 0: that of the machine on which `benchmarks.share` ran."""
    workers: int = 1

    @property
    def operations(self) -> tuple[float, float]:
        """Per token, forward, of the frozen layers and of those with adapters."""
        layer = 12 * self.hidden**2  # attention and feed-forward weights of the usual proportions
        return 2 * layer * (self.layers - self.top), 2 * layer * self.top

    @property
    def states(self) -> float:
        """The bytes of the stored states."""
        return self.rows * self.tokens * self.hidden * self.bytes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a stage; bytes are of one worker's memory, and of what is on disk, which `dvc push` uploads, too."""

    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What several workers change."""

    divided: float
    """The share of prepare that they divide among them."""
    start_prepare: float
    """The seconds that each further one takes in prepare."""
    start: float
    """The same in the other stages."""

    @classmethod
    def fitted(cls, growth: dict, cores: int) -> Self:
        """From what `benchmarks.growth` measured on so many cores."""
        divided, start_prepare = in_processes(growth[PREPARE_PROCESSES], cores)
        return cls(divided=divided, start_prepare=start_prepare, start=starting(growth[ENCODE_PROCESSES]))


def main() -> None:
    options = vars(arguments())
    counts = options.pop("rows")
    growth, share = (results.measured()[part] for part in ("growth", "share"))
    workers = Workers.fitted(growth["values"], cores(growth["hardware"]))
    print(f"Fitted on {growth['hardware']} (benchmarks.growth) and {share['hardware']} (benchmarks.share).")
    print(
        f"Workers divide what the model computes among them, and {workers.divided:.0%} of prepare. Each further worker "
        f"takes {workers.start:.1f} s, in prepare {workers.start_prepare:.1f} s.\n"
    )
    for rows in counts:
        setting = Setting(rows=rows, **options)
        print(f"{rows:,.0f} rows of {setting.tokens:g} tokens, {setting.workers} worker(s):\n")
        print(shown(costs(setting, growth["values"], share["values"]["float32"], workers)) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="What growth will cost.")
    parser.add_argument("--rows", type=float, nargs="+", default=[1e4, 1e6, 1e8])
    for name, field in Setting.__dataclass_fields__.items():
        if name != "rows":
            parser.add_argument(f"--{name}", type=field.type, default=field.default)
    return parser.parse_args()


def costs(setting: Setting, growth: dict, share: dict, workers: Workers) -> dict[str, Cost]:
    """The cost of every stage that grows, by its name.

    Args:
        growth: what `benchmarks.growth` measured.
        share: what `benchmarks.share` measured in float32.
    """
    rows, tokens, weights = setting.rows, setting.rows * setting.tokens, setting.parameters * setting.bytes
    rate = setting.rate or 1e9 * share["gflops"]["frozen"]
    frozen, top = (operations / rate for operations in setting.operations)
    prepare, tokenize = growth[PREPARE_ROWS], growth[ENCODE_ROWS]
    memory = weights + 2**20 * at(tokenize, "peak MiB", rows)
    further = setting.workers - 1

    def computed(seconds_per_token: float, kind: str) -> float:
        return workers.start * further + tokens * seconds_per_token / share["share"][kind] / setting.workers

    return {
        "prepare": Cost(
            seconds=at(prepare, "seconds", rows) * (1 - workers.divided * further / setting.workers)
            + workers.start_prepare * further,
            memory=2**20 * at(prepare, "peak MiB", rows),
            disk=0,
        ),
        "encode": Cost(
            seconds=at(tokenize, "seconds", rows) + computed(frozen, "encode"), memory=memory, disk=setting.states
        ),
        "baseline": Cost(
            seconds=computed(top + TEST_SHARE * (frozen + top), "encode"),
            memory=memory,
            disk=4 * rows * setting.hidden,
        ),
        "train": Cost(seconds=computed(2 * top, "fused"), memory=memory, disk=0),
        "evaluate": Cost(seconds=computed(TEST_SHARE * top, "encode"), memory=memory, disk=0),
    }


def at(points: list[dict], key: str, rows: float) -> float:
    """What the points say of so many rows: a constant and a slope, by least squares of the relative errors."""
    counts, values = (np.array([point[name] for point in points], dtype=float) for name in ("rows", key))
    return float(np.polyval(np.polyfit(counts, values, 1, w=1 / values), rows))


def in_processes(points: list[dict], cores: int) -> tuple[float, float]:
    """What the points say of work that takes a core a process, by least squares: the share of it that processes divide
    among them, and the seconds that each further one takes. On a single core they cannot say it."""
    counts, seconds = (np.array([point[name] for point in points], dtype=float) for name in ("processes", "seconds"))
    terms = np.stack([np.ones_like(counts), 1 / np.minimum(counts, cores), counts - 1], axis=1)
    whole, divided, start = np.linalg.lstsq(terms, seconds)[0]
    return float(divided / (whole + divided)), float(start)


def starting(points: list[dict]) -> float:
    """The seconds that each further process takes, by least squares, where one uses all cores already."""
    counts, seconds = (np.array([point[name] for point in points], dtype=float) for name in ("processes", "seconds"))
    return float(np.polyfit(counts, seconds, 1)[0])


def cores(hardware: str) -> int:
    """The number of cores in what `results.conditions_here` says of the hardware."""
    return int(re.search(r"(\d+) cores", hardware)[1])


def shown(found: dict[str, Cost]) -> str:
    """The costs as a table."""
    lines: Iterable[tuple[str, ...]] = (
        (name, duration(cost.seconds), size(cost.memory), size(cost.disk) if cost.disk else "")
        for name, cost in found.items()
    )
    return table(("stage", "time", "memory, a worker", "disk and upload"), lines)


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    length, unit = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
    return f"{seconds / length:,.1f} {unit}"


def size(count: float) -> str:
    """Bytes as gigabytes."""
    return f"{count / 1e9:,.2g} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"


if __name__ == "__main__":
    main()
