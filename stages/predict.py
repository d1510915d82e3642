"""predict: classify new texts with the tuned model.

    python -m stages.predict "A warm, funny and wise film." "Dull."
    cat texts.txt | python -m stages.predict                              one text per line; also --input texts.txt
    python -m stages.predict --input reviews.csv --output answers.csv     or .tsv, .jsonl, .parquet
    python -m stages.predict --input mails.csv --text body                the column that has the texts
    python -m stages.predict --input 'parts/*.csv.gz' --output all.csv    many files; compressed or not
    python -m stages.predict --input 's3://b/in/*.csv' --output s3://b/out.csv     object storage
    python -m stages.predict --compare "Not bad at all."                  the untouched model's answer beside it
    python -m stages.predict --explain "Not bad at all."                  the words that mattered, with their weights
    python -m stages.predict --model models/onnx "Not bad at all."        an exported model, here one in ONNX
    python -m stages.predict --adapter a=models/seeds/1 --adapter b=models/seeds/2 "Not bad at all."

Several adapters of one base model, which is in memory once, answer side by side, each under its name.

The texts of a file are in the column that the model was trained on, or else in the only column of texts. A .csv or .tsv
file without a header is read as those of the training, if they had none (data.columns). All columns of the file are
carried through; the answers follow them, with `predicted_` before a name that the file has already. The two texts of a
pair are separated by a TAB; in a file, each has its own column, as in training.

Rows are read and answered in chunks: how many there are does not matter to memory. What cannot be read as a row is
listed beside the output, in answers.rejects.csv, or ends the run with --strict. With --input and --output, a run that
was interrupted goes on where it was.

Runs the whole model on the raw text, without stored states. Reads models/base, models/adapter and
models/abstention.json, whose thresholds say where to abstain from an answer; while another model is being made, the
last one that was evaluated, from DVC's cache.
"""

import argparse
import glob
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from stages.adapters.run import Run
from stages.backbone import base, parallel
from stages.backbone.device import machine
from stages.common import errors, files, paths, progress
from stages.common.texts import as_inputs, clean
from stages.compute import engine
from stages.resuming import places
from stages.serving import adapters, evaluated, onnx_model
from stages.serving.answers import BATCH_SIZE, Classifier
from stages.serving.reasons import reasons_for
from stages.streaming import outputs, remote, tables
from stages.streaming.columns import check_each, joined, opened, text_columns
from stages.streaming.tables import Chunk, Tables
from stages.streaming.text import Lines

DECISIVE = ("model", "adapter", "text", "compare", "explain", "batch_size", "defuse_formulas", "output", "upload")
"""The arguments on which the bytes of the answers depend, besides the input."""

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "peft", "onnxruntime")
"""Packages on whose version they depend."""


def main() -> None:
    options = parse_arguments()
    with adapters.chosen(options.adapter, options.model) as models, remote.copied(options.elsewhere) as copies:
        base.quiet_transformers()
        options.inputs += copies
        run = first_of(models)
        given, roles = read_texts(options, run.columns, copies, **run.dialect)
        kinds = types(given, options.output)
        strict = options.strict or bool(options.texts)
        how = {"strict": strict, "defuse": options.defuse_formulas, "header": given.header}
        with (
            parallel.spread_over(engine.workers(options)),
            place(options, models, given, copies) as home,
            remote.sent(options.output, options.upload, home) as path,
            outputs.opened(path, home, kinds, **how) as output,
        ):
            chunks = left(given.chunks(prompt=options.output is None), output)
            if first := next(chunks, None):  # before the models are loaded: what cannot be read ends the run at once
                classifiers = load(models, options)
                hidden = bool(options.texts) or (options.output is None and sys.stdout.isatty())
                begin = first.position if output.parts else 0
                for chunk in shown(itertools.chain([first], chunks), given.size, begin=begin, hidden=hidden):
                    output.add(answered(chunk, roles, classifiers, explain=options.explain))


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Classify texts with the tuned model."
    )
    parser.add_argument("texts", nargs="*", help="texts to classify; default: standard input, one per line")
    parser.add_argument(
        "--input",
        type=remote.path_or_url,
        help="a .csv, .tsv, .jsonl or .parquet file with a column of texts, a quoted glob of some, or a URL of these; "
        "or a .txt file or a stream, like - for standard input: one text per line, or with --text a table",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of texts (default: as in training, or else the only one)"
    )
    parser.add_argument(
        "--output",
        type=remote.path_or_url,
        help="a .csv, .tsv, .jsonl or .parquet file, or its URL; none: standard output",
    )
    parser.add_argument("--compare", action="store_true", help="show the untouched model's answers too")
    parser.add_argument(
        "--explain", action="store_true", help="show the words that mattered, too; it takes a pass for each word"
    )
    adapters.add_arguments(parser)
    parser.add_argument("--strict", action="store_true", help="end at the first row that cannot be read")
    parser.add_argument(
        "--defuse-formulas",
        action="store_true",
        help="put an apostrophe before texts that a spreadsheet would take for formulas",
    )
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="texts at once (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes, each with batches of its own; with GPUs, one each"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where the processes run (default: %(default)s)"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster (default: RAY_ADDRESS, or else this machine's)"
    )
    options = parser.parse_args()
    check(parser, options)
    locate(options)
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse arguments that contradict each other."""
    if options.texts and options.input:
        parser.error("expected texts or --input, found both")
    if options.text and not options.input:
        parser.error("--text: expected --input FILE with it, which has that column")
    if options.adapter and options.model:
        parser.error("expected --adapter or --model, found both")
    if options.compare and options.model:
        parser.error("--compare: expected the model in models/adapter, whose base is beside it, found --model")
    if options.address and options.engine != "ray":
        parser.error("--address: expected --engine ray with it, whose cluster that is")
    for option in ("batch_size", "processes"):
        if (found := getattr(options, option)) < 1:
            parser.error(f"--{option.replace('_', '-')}: expected 1 or more, found {found}")
    if options.defuse_formulas and options.output and Path(options.output).suffix not in outputs.SPREADSHEETS:
        parser.error(f"--defuse-formulas: expected --output to end in .csv or .tsv, found {options.output}")


def locate(options: argparse.Namespace) -> None:
    """Find the files that --input names, `inputs` here and `elsewhere`, and the place that --output does, which for a
    URL is its `upload`.

    Raises:
        PipelineError: there is no such file, or no such place.
    """
    options.elsewhere = remote.inputs(options.input) if isinstance(options.input, str) else []
    options.inputs = inputs(options.input) if isinstance(options.input, Path) else []
    options.upload = None
    if isinstance(options.output, str):
        options.upload = remote.destination("--output", options.output, read=options.elsewhere)
        options.output = Path(options.upload.name)
    elif options.output:
        how = {"endings": outputs.ENDINGS, "read": options.inputs}
        options.output = files.destination("--output", options.output, **how)
        files.destination("--output", outputs.rejects_of(options.output), **how)


def first_of(models: dict[str, evaluated.Model]) -> Run:
    """The training of the first model, whose columns and files were like those that are read.

    Raises:
        PipelineError: one model is of texts, and another of pairs.
    """
    first, *others = (Run.load(model.adapter) for model in models.values())
    if any(len(other.columns) != len(first.columns) for other in others):
        raise errors.PipelineError(
            "--adapter: expected models of texts or of pairs of texts, found both; run them one by one"
        )
    return first


def inputs(path: Path) -> list[Path]:
    """The files that a path names: `-` is standard input; a glob, those that match it as in a shell, without hidden
    ones, in sorted order.

    Raises:
        PipelineError: there are none, or one is no file.
    """
    if path == Path("-"):
        path = Path("/dev/stdin")
    if path.exists() or not glob.has_magic(str(path)):
        return [files.readable(path)]
    found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 (its `*` finds what is hidden)
    if not found:
        raise errors.PipelineError(f"--input: expected files that match {path}, found none")
    return [files.readable(one) for one in found]


def read_texts(
    options: argparse.Namespace, trained: dict[str, str], copies: dict[Path, remote.Remote], **dialect: Any
) -> tuple[Tables, dict[str, str]]:
    """The rows, and their column for `text`, and for pairs `text_pair`; `trained` gives these columns in training.

    Args:
        copies: the files that were elsewhere, by their copies; dialect: see `Run.dialect`.

    Raises:
        PipelineError: a file cannot be read, or has no such column.
    """
    given = [opened(path, list(trained), named=options.text, **dialect) for path in options.inputs]
    if not given:
        given = [Lines(options.texts or sys.stdin.buffer, list(trained), path=Path("standard input"))]
    first = given[0]
    if first.format == Lines.format:
        roles = {role: role for role in trained}
    else:
        roles = text_columns(tables.sample(first), trained, named=options.text, file=first.path)
    names = {path: str(one) for path, one in copies.items()}
    found = Tables(tables=given, texts=list(roles.values()), names=names)
    check_each(found)
    return found, roles


def types(given: Tables, output: Path | None) -> pa.Schema | None:
    """The types of the columns that are carried through to a Parquet file, which all chunks share.

    Raises:
        PipelineError: the values of a column have no type in common.
    """
    if output is None or output.suffix != ".parquet":
        return None
    with outputs.holdable(output):
        return given.types()


def place(
    options: argparse.Namespace, models: dict[str, evaluated.Model], given: Tables, copies: dict[Path, remote.Remote]
) -> AbstractContextManager[Path | None]:
    """Where the answers stay if the run is interrupted; None: nowhere, as what is read from a stream is gone.

    A model is known by the files of `evaluated.Model.marks`, the input, which may be large, by its size and time; of
    `copies`, by what their servers say of them.
    """
    there = next(folder for folder in (paths.CHECKPOINTS, *paths.CHECKPOINTS.absolute().parents) if folder.exists())
    if not options.output or given.size is None or not os.access(there, os.W_OK):
        return nullcontext()
    here = [path for path in options.inputs if path not in copies]
    read = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in here]
    read += [(str(one), str(one.info)) for one in copies.values()]
    versions = [(one.name, one.version) for name in PACKAGES for one in distributions(name=name)]
    settings = {name: getattr(options, name) for name in DECISIVE} | {"read": read, "versions": versions} | machine()
    marks = [path for model in models.values() for path in (*model.marks, model.adapter / onnx_model.ABOUT)]
    return places.place("predict", settings=settings, inputs=filter(Path.exists, marks), days=math.inf)


def left(chunks: Iterator[Chunk], output: outputs.Output) -> Iterator[Chunk]:
    """The chunks that an interrupted run has not answered."""
    rows = 0
    for chunk in chunks:
        output.reject(chunk.rejects)
        if len(chunk.table) and output.take_up():
            rows += len(chunk.table)
        elif len(chunk.table):
            say_taken_up(rows)
            rows = 0
            yield chunk
    say_taken_up(rows)


def say_taken_up(rows: int) -> None:
    """Say that so many rows are answered already, if any is."""
    if rows:
        progress.say(f"predict: goes on after {rows:,} rows of an interrupted run")


def shown(chunks: Iterator[Chunk], size: int | None, *, begin: float, hidden: bool) -> Iterator[Chunk]:
    """The chunks, while a bar shows how much is answered: bytes of the `size` from `begin` on, or else rows."""
    rows, total = 0, None if size is None else size - int(begin)
    with progress.bar("predict", total=total, unit="byte" if total else "row", hidden=hidden) as bar:
        for chunk in chunks:
            yield chunk
            rows += len(chunk.table)
            if total:
                bar.set_postfix_str(f"{rows:,} rows")
            bar.update(int(chunk.position) - int(begin) if total else len(chunk.table))
            begin = chunk.position


def load(models: dict[str, evaluated.Model], options: argparse.Namespace) -> dict[str, Classifier]:
    """The classifiers, by what comes before the names of their answers.

    Raises:
        PipelineError: a model in ONNX is to answer in several processes.
    """
    elsewhere = options.processes > 1 or options.engine == "ray"
    if elsewhere and any(onnx_model.is_in(model.adapter) for model in models.values()):
        raise errors.PipelineError(
            "--processes, --engine: expected a model in PyTorch, found one in ONNX, which takes all cores in one; "
            "leave them out"
        )
    found = {}
    for name, tuned, untouched in adapters.loaded(models, untouched=options.compare, batch_size=options.batch_size):
        prefix = f"{name}_" if name else ""
        found |= {prefix: tuned} | ({f"{prefix}untouched_": untouched} if untouched else {})
    return found


def answered(chunk: Chunk, roles: dict[str, str], classifiers: dict[str, Classifier], *, explain: bool) -> pd.DataFrame:
    """The rows with the answers beside them; `explain`: and the words that mattered for those of each tuned model."""
    table = chunk.table
    inputs = as_inputs(pd.DataFrame({role: table[column].map(clean) for role, column in roles.items()}))
    for prefix, classifier in classifiers.items():
        table = joined(table, classifier.answers(inputs, rows=chunk.lines).add_prefix(prefix))
    for prefix, classifier in classifiers.items():
        if explain and not prefix.endswith("untouched_"):
            words = [json.dumps(one.words(), ensure_ascii=False) for one in reasons_for(classifier, inputs)]
            table = joined(table, pd.DataFrame({f"{prefix}words": words}))
    return table


if __name__ == "__main__":
    errors.run(main)
