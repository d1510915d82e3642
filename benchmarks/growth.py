"""What prepare and encode cost as rows grow in number and in length, and in several processes.

    python -m benchmarks.growth
    python -m benchmarks.growth --prepare 1000000 10000000     prepare alone, with so many rows
    python -m benchmarks.growth --prepare 1000000 --processes 2

Bookkeeping alone: prepare, and encode with a stub of two tiny layers, on made-up rows. The real model:
encode on made-up rows, and on fewer but longer ones. Each measurement is a process of its own, in a scratch folder.
Prints one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from benchmarks.tasks import REVIEW, ROOT, ROWS, source, write_params
from stages.common import paths

BOOKKEEPING = (1_000, 10_000, 100_000, 1_000_000)
REAL = (500, 2_000, 8_000)
LENGTHS = {8: 2_000, 32: 500, 128: 125}
"""Number of rows by words per row; the total number of words is the same."""
PROCESSES = (1, 2, 4)

REAL_LAYERS = 6
"""How many of the default model's 30 layers encode runs here: time grows with the rows in the same way."""

PREPARE_ROWS, ENCODE_ROWS = "prepare, rows", "encode with a stub model, rows"
PREPARE_PROCESSES = "prepare, processes"
ENCODE_PROCESSES = f"encode with {REAL_LAYERS} of 30 layers, processes"
"""The titles of the measurements from which `benchmarks.scale` computes."""

WORDS = 19
"""Words per row of the default data, on average."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="What growth costs.")
    parser.add_argument("--prepare", nargs="+", type=int, metavar="ROWS", help="prepare alone, with so many rows")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="of --prepare; the memory is the first's")
    options = parser.parse_args()
    real = Path.cwd() / paths.BASE_MODEL
    with tempfile.TemporaryDirectory() as scratch:
        if options.prepare:
            tables = {
                PREPARE_ROWS: [prepared(Path(scratch), real, count, options.processes) for count in options.prepare]
            }
        else:
            tables = every_measurement(Path(scratch), real)
    print(json.dumps(tables))


def every_measurement(scratch: Path, real: Path) -> dict[str, list[dict]]:
    """The cost of prepare, of encode with a stub, and of encode with the real model."""
    stub = make_stub(real, scratch / "stub")
    return {
        PREPARE_ROWS: [prepared(scratch, stub, count) for count in BOOKKEEPING],
        ENCODE_ROWS: [{"rows": count} | measure(scratch / str(count), "-m", "stages.encode") for count in BOOKKEEPING],
        f"encode with {REAL_LAYERS} of 30 layers, rows": [real_encode(scratch, real, count, WORDS) for count in REAL],
        f"encode with {REAL_LAYERS} of 30 layers, words a row": [
            {"words a row": words} | real_encode(scratch, real, count, words) for words, count in LENGTHS.items()
        ],
        **in_processes(scratch, stub, real),
    }


def in_processes(scratch: Path, stub: Path, real: Path) -> dict[str, list[dict]]:
    """The cost of prepare with many rows and of encode with the real model, in several processes; the memory is the
    first one's."""
    return {
        PREPARE_PROCESSES: [
            {"processes": number} | prepared(scratch / f"processes-{number}", stub, max(BOOKKEEPING), number)
            for number in PROCESSES
        ],
        ENCODE_PROCESSES: [
            {"processes": number} | real_encode(scratch / f"processes-{number}", real, REAL[1], WORDS, number)
            for number in PROCESSES
        ],
    }


def prepared(scratch: Path, model: Path, count: int, processes: int = 1) -> dict:
    """The cost of prepare, on `count` rows in a folder of this name."""
    folder = workspace(scratch / str(count), model, {"train": count}, WORDS, processes)
    return {"rows": count} | measure(folder, "-m", "stages.prepare")


def real_encode(scratch: Path, model: Path, count: int, words: int, processes: int = 1) -> dict:
    """The cost of encode with the real model, on `count` rows of `words` words."""
    folder = workspace(scratch / f"real-{count}-{words}", model, {"train": count}, words, processes)
    measure(folder, "-m", "stages.prepare")
    return {"rows": count} | measure(folder, "-m", "stages.encode")


def make_stub(model: Path, folder: Path) -> Path:
    """A model of two tiny layers, with the real tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=1,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    LlamaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def workspace(folder: Path, model: Path, counts: dict[str, int], words: int, processes: int = 1) -> Path:
    """A folder in which stages run: the default params without limits, base model, made-up rows of each split."""
    (folder / paths.BASE_MODEL).parent.mkdir(parents=True)
    (folder / paths.BASE_MODEL).symlink_to(model.resolve())
    changes = source(counts) | {f"data.limit.{split}": None for split in paths.SPLITS}
    changes |= {"encode.template": REVIEW, "encode.max_gb": 100, "model.layers": None, "compute.processes": processes}
    changes |= {"lora.top_layers": 1 if model.name == "stub" else 30 - REAL_LAYERS}
    write_params(folder / paths.PARAMS, changes)
    (folder / ROWS).mkdir(parents=True)
    for seed, (split, count) in enumerate(counts.items()):
        write_made_up(folder / ROWS / f"{split}.csv", count, words, seed)
    return folder


def measure(folder: Path, *arguments: str) -> dict[str, float]:
    """Run Python in the folder; returns its seconds, and its peak memory without the pages of mapped files."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed")
    return {"seconds": round(time.perf_counter() - start, 1), "peak MiB": peak // 1024}


def anonymous_memory(process: int) -> int:
    """The process's anonymous memory, KiB: without the pages of mapped files, which the kernel frees as needed."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


def write_made_up(file: Path, count: int, words: int, seed: int) -> None:
    """Rows of words whose frequencies fall with their rank, as in natural text (Zipf 1935), as CSV."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlu"))
    vocabulary = np.array(["".join(generator.choice(letters, size)) for size in generator.integers(2, 9, 30_000)])
    frequencies = 1 / np.arange(1, len(vocabulary) + 1)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        lengths = generator.poisson(words - 1, size) + 1
        drawn = generator.choice(vocabulary, lengths.sum(), p=frequencies / frequencies.sum())
        texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
        table = pd.DataFrame({"label": generator.choice(["negative", "positive"], size), "text": texts})
        table.to_csv(file, header=not start, index=False, mode="a")


if __name__ == "__main__":
    main()
