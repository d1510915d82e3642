"""predict: classify new texts with the tuned model.

    python -m stages.predict "A warm, funny and wise film." "Dull."
    cat texts.txt | python -m stages.predict                              one text per line
    python -m stages.predict --input reviews.csv --output answers.csv     or .tsv, .jsonl, .parquet
    python -m stages.predict --compare "Not bad at all."                  the untouched model's answer beside it

The two texts of a pair are separated by a TAB; in a file, each has its own column. Runs the whole model on the raw
text, without stored states. Reads models/base, models/adapter and models/abstention.json, whose thresholds say where to
abstain from an answer.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.adapters.load import load
from stages.adapters.run import Run
from stages.backbone import base, parallel, store
from stages.backbone.device import device
from stages.classifier import inference
from stages.classifier.labels import label_arguments, load_labels
from stages.classifier.model import load_base
from stages.common import errors, files, paths, texts
from stages.common.texts import clean, valid
from stages.encoding import template
from stages.evidence.abstention import Abstention
from stages.problems.problem import Problem
from stages.rows import formats

BATCH_SIZE = 16
"""Default number of texts per batch: as many rows as fit a core's cache."""


def main() -> None:
    options = parse_arguments()
    run = Run.load(paths.ADAPTER)
    base.quiet_transformers()
    table = read_texts(options, run.columns)
    given = {
        "tokenizer": AutoTokenizer.from_pretrained(paths.ADAPTER),
        "inputs": texts.as_inputs(table.map(clean)),
        "batch_size": options.batch_size,
        "stride": run.window_stride,
        "problem": run.problem,
    }
    sure = Abstention.load(paths.ABSTENTION, paths.ADAPTER)
    table = table.join(answers(load(paths.ADAPTER), **given, thresholds=run.thresholds, sure=sure))
    if options.compare:
        table = table.join(answers(untuned(run), **given, thresholds=[]).add_prefix("untouched_"))
    write(table, options.output)


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Classify texts with the tuned model."
    )
    parser.add_argument("texts", nargs="*", help="texts to classify; default: standard input, one per line")
    parser.add_argument("--input", type=Path, help="a .csv, .tsv, .jsonl or .parquet file with a column of texts")
    parser.add_argument("--output", type=Path, help="a .csv or .jsonl file for the answers; none: standard output")
    parser.add_argument("--compare", action="store_true", help="show the untouched model's answers too")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="texts at once (default: %(default)s)")
    options = parser.parse_args()
    if options.texts and options.input:
        parser.error("expected texts or --input, found both")
    if options.batch_size < 1:
        parser.error(f"--batch-size: expected 1 or more, found {options.batch_size}")
    if options.output and options.output.suffix not in (".csv", ".jsonl"):
        parser.error(f"--output: expected a .csv or .jsonl file, found {options.output}")
    return options


def read_texts(options: argparse.Namespace, columns: dict[str, str]) -> pd.DataFrame:
    """A table with the column `text`, and for pairs `text_pair`; `columns` gives the name of each in a file.

    Raises:
        PipelineError: there are no texts, the file cannot be read, or pairs are expected and an argument is not a pair.
    """
    if options.input is None:
        given = options.texts or [line for line in sys.stdin.read().splitlines() if line.strip()]
        if not given:
            raise errors.PipelineError("expected texts as arguments, on standard input or in --input FILE, found none")
        rows = [text.split("\t") if len(columns) > 1 else [text] for text in given]
        if odd := [text for text, row in zip(given, rows, strict=True) if len(row) != len(columns)]:
            raise errors.PipelineError(f"expected pairs of texts with a TAB between them, found {odd[0]!r}")
        return pd.DataFrame(rows, columns=list(columns), dtype=object).map(valid)
    return formats.read(options.input, wanted=columns).map(valid)


def untuned(run: Run) -> PreTrainedModel:
    """The model before tuning: a zero-shot classifier by the label words, if it has a language-model head."""
    saved = load_labels(paths.ADAPTER)
    labels = label_arguments(run.problem, list(saved["id2label"].values()), saved["pad_token_id"])
    return load_base(paths.BASE_MODEL, labels=labels, seed=run.seed, head="label_words", words=run.label_words)


def answers(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    inputs: list[str] | list[tuple[str, str]],
    batch_size: int,
    stride: int | None,
    problem: Problem,
    thresholds: Sequence[float],
    sure: Abstention | None = None,
) -> pd.DataFrame:
    """For each text or pair the answer, its probability and that of every class or label; for regression, a number.

    Args:
        stride: see `template.token_rows`.
        thresholds: see `Problem.decide`.
        sure: if given, the columns `abstain` and, with more than two classes, `set` are added.
    """
    fitted = template.token_rows(tokenizer, inputs, stride)
    tokens = [row for rows in fitted for row in rows]
    logits = np.empty((len(tokens), model.config.num_labels), dtype=np.float32)

    def compute(model: PreTrainedModel, indices: np.ndarray) -> None:
        batch = tokenizer.pad({"input_ids": [tokens[index] for index in indices]}, return_tensors="pt")
        logits[indices] = inference.array(model(**batch.to(device())).logits)

    batches = store.by_length(np.array([len(row) for row in tokens]), batch_size)
    parallel.each_batch(model, compute, batches, progress="predict")
    pooled = store.pooled(logits, np.cumsum([0, *map(len, fitted)]))
    predictions = problem.decide(problem.outputs(pooled), thresholds)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    answered = {problem.answer: problem.answers(predictions, names)} | problem.confidence(predictions)
    answered |= sure.columns(predictions, names) if sure else {}
    taken = {*texts.COLUMNS, *answered}
    detail = problem.detail(predictions, [f"class {name}" if name in taken else name for name in names])
    return pd.DataFrame(answered | detail)


def write(table: pd.DataFrame, path: Path | None) -> None:
    """Write the answers to a .csv or .jsonl file, or to standard output as tab-separated values."""
    if path is None:
        print(table.to_csv(sep="\t", index=False, float_format="%.4f"), end="")
    elif path.suffix == ".csv":
        files.write_text(path, table.to_csv(index=False))
    else:
        files.write_text(path, table.to_json(orient="records", lines=True, force_ascii=False))


if __name__ == "__main__":
    errors.run(main)
