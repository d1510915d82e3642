"""prepare: labelled rows, cleaned, without duplicates, in three splits that share no text.

    python -m stages.prepare

Reads the source named by `data` in params.yaml. Writes data/prepared/{train,validation,test}.parquet (columns `row`,
`text`, of pairs `text_pair`, and `label`: a `ClassLabel`, which carries the class names, a list of those, or a float64)
and metrics/data.json: rows by split and class, or each split's mean and standard deviation, and every dropped row by
reason.
"""

import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
from datasets import Dataset, Features, Value, disable_progress_bars

from stages.common import errors, files, paths, texts
from stages.params import Data, Params
from stages.rows import splits as rows
from stages.rows.labels import KINDS
from stages.sources import fetched


def main() -> None:
    data = Params.load().data
    dropped = Counter()
    tables = read(data)
    splits = prepare(tables, data, dropped)
    names = rows.class_names(splits, data)
    with files.replacing(paths.PREPARED) as folder:
        for name, split in splits.items():
            save(split, names, data.problem, folder / f"{name}.parquet")
    guard = {"near_duplicate_threshold": data.near_duplicate}
    files.write_json(paths.DATA_METRICS, counts(tables, splits, names, data.problem, dropped) | guard)
    print(f"{paths.PREPARED}: " + ", ".join(f"{len(split)} {name}" for name, split in splits.items()))
    print("dropped: " + (", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"))
    if data.classes and not set(names) & set(data.classes):
        print(f"data.classes: no label is a number; each is a class of its own: {', '.join(names)}")


def read(data: Data) -> dict[str, pd.DataFrame]:
    """The rows as they came, by the split that they came in; those that came in none are for train to give away."""
    files = data.file if isinstance(data.file, dict) else {"train": data.file}
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for split, file in files.items():
            folder = Path(scratch, split)
            folder.mkdir()
            found = fetched.fetch(
                source=data.source, revision=data.revision, file=file, into=folder, repo_type="dataset"
            )
            tables[split] = rows.read(found.path, data)
    return tables


def prepare(tables: dict[str, pd.DataFrame], data: Data, dropped: Counter) -> dict[str, pd.DataFrame]:
    """From the rows as they came to the rows of each split; counts in `dropped` the rows that fell out, by reason."""
    if data.classes:
        tables = {split: rows.classify(table, data.classes, dropped) for split, table in tables.items()}
    tables = {split: rows.clean_rows(table, dropped) for split, table in tables.items()}
    splits = rows.split(tables, data)
    rows.refuse_leak(splits, data)
    return rows.limit(rows.separate(splits, data.near_duplicate, dropped), data, dropped)


def save(split: pd.DataFrame, names: list[str], problem: str, path: Path) -> None:
    """Write one split as Parquet that `datasets` reads back with the class names."""
    disable_progress_bars()
    kind = KINDS[problem]
    types = dict.fromkeys(texts.COLUMNS, Value("string")) | {"row": Value("int64"), "label": kind.feature(names)}
    columns = {name: values.tolist() for name, values in split.items()} | {"label": kind.stored(split["label"], names)}
    Dataset.from_dict(columns, features=Features({name: types[name] for name in columns})).to_parquet(path)


def counts(
    tables: dict[str, pd.DataFrame], splits: dict[str, pd.DataFrame], names: list[str], problem: str, dropped: Counter
) -> dict:
    """What metrics/data.json holds; the kept and the dropped rows add up to the source's."""
    return {
        "rows": {"source": sum(map(len, tables.values()))} | {split: len(rows) for split, rows in splits.items()},
        **{split: KINDS[problem].counts(rows["label"], names) for split, rows in splits.items()},
        "dropped": dict(dropped),
    }


if __name__ == "__main__":
    errors.run(main)
