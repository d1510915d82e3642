"""What `stages.predict` takes for many lines: memory, and seconds until the first answer, with a tiny random model.

    python -m benchmarks.streaming [LINES]

Sends 1,000 lines through `predict`, then LINES (1,000,000 by default, which take about ten minutes on 2 cores), each in
a process of its own, from standard input to standard output. Prints a Markdown table.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from stages.adapters.run import Run
from stages.classifier.labels import label_arguments
from stages.common import files, paths
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.reporting.markdown import table
from stages.train import recorded

ROOT = Path(__file__).resolve().parent.parent
FEW, MANY = 1_000, 1_000_000
WORDS = ("a", "the", "film", "story", "is", "was", "and", "good", "bad", "funny", "dull", "warm", "slow", "wise")
LENGTHS = (4, 20)
"""The fewest and the most words of a line."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming")
    parser.add_argument("lines", nargs="?", type=int, default=MANY, help="of the long run (default: %(default)s)")
    counts = (FEW, parser.parse_args().lines)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder)
        runs = [measured(folder, count) for count in counts]
    columns = ("lines", "peak memory", "first answer", "whole run", "lines per second")
    print(table(columns, [run.line() for run in runs]))


def write_model(folder: Path) -> None:
    """Put a random encoder of two layers where `predict` looks for the tuned model."""
    torch.manual_seed(0)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    numbers = {word: number for number, word in enumerate([*special.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(numbers, unk_token=special["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special)
    problem, names = PROBLEMS["single_label"], ["negative", "positive"]
    labels = label_arguments(problem, names, tokenizer.pad_token_id)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **labels))
    home = folder / paths.ADAPTER
    model.save_pretrained(home)
    tokenizer.save_pretrained(home)
    files.write_json(home / "labels.json", labels)
    params = Params.load(ROOT / paths.PARAMS).filled({"data": {"text": "text"}})
    metrics = {"main": "accuracy", "seed": 0}
    Run(depth=0, max_length=64, **recorded(params), base_model={}, metrics=metrics).save(home)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run of `predict`."""

    lines: int
    peak_mib: float
    """Peak resident memory, MiB."""
    first: float
    """Seconds from the start of the process to its first answer."""
    seconds: float

    def line(self) -> tuple[str, ...]:
        """A row of the table."""
        memory, rate = f"{self.peak_mib:,.0f} MiB", f"{self.lines / self.seconds:,.0f}"
        return f"{self.lines:,}", memory, f"{self.first:.1f} s", f"{self.seconds:,.0f} s", rate


def measured(folder: Path, count: int) -> Measured:
    """The cost of so many lines; every one has to get its own answer, in order."""
    path = folder / "lines.txt"
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            file.write(f"{number} {' '.join(draw.choices(WORDS, k=draw.randint(*LENGTHS)))}\n")
    begin = time.perf_counter()
    with path.open() as texts:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.predict"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=texts,
            stdout=subprocess.PIPE,
            text=True,
        )
    process.stdout.readline()  # the header
    answered, first = 0, 0.0
    for answer in process.stdout:
        first = first or time.perf_counter() - begin
        if answer.split(" ", 1)[0] != str(answered):
            sys.exit(f"expected the answer to line {answered}, found {answer}")
        answered += 1
    _, status, usage = os.wait4(process.pid, 0)
    if status or answered != count:
        sys.exit(f"expected {count:,} answers, found {answered:,} and exit status {os.waitstatus_to_exitcode(status)}")
    return Measured(lines=count, peak_mib=usage.ru_maxrss / 1024, first=first, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
