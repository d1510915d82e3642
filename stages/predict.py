"""predict: classify new texts with the tuned model.

    python -m stages.predict "A warm, funny and wise film." "Dull."
    cat texts.txt | python -m stages.predict                              one text a line
    python -m stages.predict --input reviews.csv --output answers.csv     or .tsv, .jsonl, .parquet
    python -m stages.predict --compare "Not bad at all."                  the untouched model's answer beside it

Between the two texts of a pair stands a TAB; a file has both columns. Runs the whole model on the raw text: no stored
states. Reads models/base and models/adapter.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.adapters import methods as adapters
from stages.backbone import parallel, store
from stages.backbone.device import device
from stages.classifier import model as classifier
from stages.common import errors, files, paths, texts
from stages.common.texts import clean, valid
from stages.encoding import template
from stages.rows import formats
from stages.scoring import single_label
from stages.scoring.problem import Problem
from stages.scoring.problems import of_run

BATCH_SIZE = 16
"""Texts at once, unless the command line says otherwise; as many rows as fit a core's cache."""


def main() -> None:
    options = parse_arguments()
    run = json.loads((paths.ADAPTER / "run.json").read_text())
    made, thresholds = run["params"], list(run["metrics"].get("thresholds", {}).values())
    columns = {name: made["data"][name] for name in texts.COLUMNS if made["data"][name]}
    table = read_texts(options, columns)
    inputs = texts.as_inputs(table.map(clean))

    tokenizer = AutoTokenizer.from_pretrained(paths.ADAPTER)
    labels = classifier.load_labels(paths.ADAPTER)
    tuned = adapters.load(paths.ADAPTER)
    given = {
        "tokenizer": tokenizer,
        "inputs": inputs,
        "batch_size": options.batch_size,
        "stride": made["encode"]["stride"] if made["encode"]["truncation"] == "windows" else None,
        "problem": of_run(made),
    }
    table = table.join(answers(tuned, **given, thresholds=thresholds))
    if options.compare:
        whole = classifier.label_arguments(
            list(labels["id2label"].values()), labels["pad_token_id"], made["data"]["problem"]
        )
        untouched = classifier.load_base(
            paths.BASE_MODEL, labels=whole, seed=made["seed"], head="label_words", words=made["encode"]["label_words"]
        )
        table = table.join(answers(untouched, **given).add_prefix("untouched_"))
    write(table, options.output)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Classify texts with the tuned model."
    )
    parser.add_argument("texts", nargs="*", help="texts to classify; none: standard input, one a line")
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
    """The texts as the column `text` of a table, of pairs also `text_pair`; `columns` says what a file calls them.

    Raises:
        PipelineError: there are none, the file cannot be read, or a pair is no pair.
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


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: list[str] | list[tuple[str, str]],
    batch_size: int,
    stride: int | None = None,
    problem: Problem = single_label,
    thresholds: Sequence[float] = (),
) -> pd.DataFrame:
    """Each text's or pair's answer, its probability, and the probability of every class or label; or its number."""
    fitted = template.fitted(tokenizer, inputs, stride)
    tokens = [row for rows in fitted for row in rows]
    logits = np.empty((len(tokens), model.config.num_labels), dtype=np.float32)

    def compute(model: PreTrainedModel, rows: np.ndarray) -> None:
        batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
        logits[rows] = classifier.array(model(**batch.to(device())).logits)

    batches = store.by_length(np.array([len(row) for row in tokens]), batch_size)
    parallel.each_batch(model, compute, batches, progress="predict")
    pooled = store.pooled(logits, np.cumsum([0, *map(len, fitted)]))
    predictions = problem.decide(problem.predictions(pooled), thresholds)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    answered = {problem.ANSWER: problem.answers(predictions, names)} | problem.confidence(predictions)
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
