"""prepare: labelled rows, cleaned, without duplicates, in splits that share no text.

    python -m stages.prepare

Reads the source named by `data` in params.yaml. Writes data/prepared/{train,validation,test}.parquet (columns `row`,
the row's number in the source; `text`; for pairs `text_pair`; and `label`: a `ClassLabel`, which carries the class
names, a list of `ClassLabel`, or a float64), with `data.split.calibration` also calibration.parquet;
data/prepared/dataset.json, what the preset and the files said for the null keys of params.yaml; data/slices.parquet,
the slices of the test rows for `data.slices`; and metrics/data.json: the number of rows by split and class, or each
split's mean and standard deviation, and the number of dropped rows by reason.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets, disable_progress_bars

from stages.common import errors, files, paths, progress, texts
from stages.compute import engine
from stages.params import Params, preset
from stages.problems.kinds import PROBLEMS
from stages.problems.problem import Problem
from stages.rows import cleaning, reading, slices, splits
from stages.rows.params import Data
from stages.sources import fetched, presets, tracked

FEW_ROWS = 10
"""Training rows of a class below which a warning is printed."""

PART_BYTES = 1 << 27
"""Size of the parts in which rows become Arrow tables; each is a group of rows in the file."""


def main() -> None:
    params, dropped = Params.load(), Counter()
    problem = PROBLEMS[params.data.problem]
    disable_progress_bars()
    progress.say(f"prepare: {params.data.source}")
    data, tables = read(params.filled().data, dropped)
    with engine.mapping(params.compute) as spread:
        prepared = prepare(tables, data, dropped, spread)
    names = splits.class_names(prepared, data)
    with files.replacing(paths.PREPARED) as folder:
        for name, split in prepared.items():
            save(split, names, problem, folder / f"{name}.parquet")
        files.write_json(folder / paths.DATASET.name, dataset(params, data))
    files.write_bytes(paths.SLICES, slices.of_test_rows(prepared).to_parquet())
    source_rows = sum(map(len, prepared.values())) + sum(dropped.values())
    guard = {"near_duplicate_threshold": data.near_duplicate}
    files.write_metrics(paths.DATA_METRICS, counts(source_rows, prepared, names, problem, dropped) | guard)
    kept = ", ".join(f"{len(split):,} {name}" for name, split in prepared.items())
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count)
    progress.say(f"prepare: {source_rows:,} rows: {kept}; left out: {left_out or 'none'}")
    if data.classes and not set(names) & set(data.classes):
        progress.say(
            f"data.classes: no label is a number, so each distinct label is a class of its own: {', '.join(names)}"
        )
    for warning in warnings(params, data, problem.counts(prepared["train"]["label"], names)):
        progress.say(f"warning: {warning}")


def read(data: Data, dropped: Counter) -> tuple[Data, dict[str, pd.DataFrame]]:
    """The rows of the source, by split; a source without splits is read as train, from which the others are cut. And
    `data` with the columns that were chosen where it names none."""
    tables = {}
    with files.scratch() as scratch:
        for split, file in data.files.items():
            folder = scratch / split
            folder.mkdir()
            found = fetched.fetch(source=data.source, revision=data.pin, file=file, into=folder, repo_type="dataset")
            data = reading.with_columns(found.path, data)
            tables[split] = reading.read(found.path, data, dropped)
    return data, tables


def dataset(params: Params, data: Data) -> presets.Values:
    """The contents of data/prepared/dataset.json: `data`, and what the preset says of templates and label words."""
    known, _ = preset(params.model_dump())
    return known | {"data": data.model_dump(include={*presets.KEYS["data"]}, exclude_none=True)}


def prepare(
    tables: dict[str, pd.DataFrame], data: Data, dropped: Counter, spread: Callable[..., Iterator[Any]] = map
) -> dict[str, pd.DataFrame]:
    """From the rows of the source to those of each split; counts the dropped rows, by reason, in `dropped`.

    Each step's tables take the place of those before, and `tables` is emptied: of millions of texts, there are no more
    than two copies in memory.

    Args:
        spread: what cleans, hashes and compares texts, part by part; see `stages.compute.engine.mapping`.
    """
    places = {split: f" of {split}" if len(tables) > 1 else "" for split in tables}
    if data.classes:
        tables |= {split: cleaning.classify(tables.pop(split), data.classes, dropped) for split in places}
    cleaned = {
        split: cleaning.clean_rows(tables.pop(split), PROBLEMS[data.problem], dropped, place=place, spread=spread)
        for split, place in places.items()
    }
    if len(cleaned) > 1:
        cleaning.warn_of_contradictions_between(cleaned)
    pa.default_memory_pool().release_unused()  # Arrow keeps what was freed, and NumPy needs as much
    cut = splits.split(cleaned, data)
    del cleaned
    pa.default_memory_pool().release_unused()
    splits.check_leak(cut, data, spread)
    apart = splits.drop_near_duplicates(cut, data.near_duplicate, dropped, spread)
    del cut
    return splits.limit(apart, data, dropped)


def warnings(params: Params, data: Data, counts: dict[str, float]) -> list[str]:
    """What will probably go wrong with this dataset, a line each, with the setting that it is about.

    Args:
        data: the section with all its values; counts: the training rows by class.
    """
    lines = [tracked.advice(fetched.split(data.source.removeprefix("path:"))[0])] if data.kind == "path" else []
    lines += [
        f"encode.template: {params.encode.template!r} is the question of {paths.PRESETS}/{name}.yaml, but data.source "
        f"is {params.data.source}; write one of your own, or null for the text alone"
        for name, values in presets.sound()
        if params.encode.template == values.get("encode", {}).get("template", "")
        and data.source != values["data"]["source"]
    ]
    if not PROBLEMS[data.problem].numeric and (rare := texts.rarest(counts, FEW_ROWS)):
        lines.append(
            f"data.label: fewer than {FEW_ROWS} training rows of {rare}, too few to learn from; add rows, raise "
            "data.limit.train, remove those rows, or name the classes to keep in data.classes"
        )
    return [line for line in lines if line]


def save(split: pd.DataFrame, names: list[str], problem: Problem, path: Path) -> None:
    """Write one split as Parquet that `datasets` reads back with the class names."""
    types = dict.fromkeys(texts.COLUMNS, Value("string")) | {"row": Value("int64"), "label": problem.feature(names)}
    features = Features({name: types[name] for name in split if name in types})
    table = split[list(features)].assign(label=problem.stored(split["label"], names))
    step = len(table) // (1 + table.memory_usage().sum() // PART_BYTES) + 1
    parts = [table[start : start + step] for start in range(0, len(table), step)]
    whole = concatenate_datasets([Dataset.from_pandas(one, features, preserve_index=False) for one in parts])
    whole.to_parquet(path, batch_size=step)


def counts(
    source_rows: int, prepared: dict[str, pd.DataFrame], names: list[str], problem: Problem, dropped: Counter
) -> dict:
    """The contents of metrics/data.json; the kept and the dropped rows add up to the source's."""
    return {
        "rows": {"source": source_rows} | {split: len(rows) for split, rows in prepared.items()},
        **{split: problem.counts(rows["label"], names) for split, rows in prepared.items()},
        "dropped": dict(dropped),
    }


if __name__ == "__main__":
    errors.run_script(main, __doc__)
