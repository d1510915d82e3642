"""prepare: labelled rows, cleaned, without duplicates, in three splits that share no text.

    python -m stages.prepare

Reads the source named by `data` in params.yaml. Writes data/prepared/{train,validation,test}.parquet (columns `row`,
`text` and `label`, a `ClassLabel` that carries the class names) and metrics/data.json: rows by split and class, and
every dropped row by reason.
"""

import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

from stages.common import errors, output, paths, rows, sources
from stages.common.params import Data, Params


def main() -> None:
    data = Params.load().data
    dropped = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        fetched = sources.fetch(source=data.source, revision=data.revision, file=data.file, into=Path(scratch))
        table = rows.read(fetched.path, data)
    splits = prepare(table, data, dropped)
    names = list(data.bins or sorted(set(splits["train"]["label"])))
    with output.replacing(paths.PREPARED) as folder:
        for name, split in splits.items():
            save(split, names, folder / f"{name}.parquet")
    guard = {"near_duplicate_threshold": data.near_duplicate}
    output.write_json(paths.DATA_METRICS, counts(table, splits, names, dropped) | guard)
    print(f"{paths.PREPARED}: " + ", ".join(f"{len(split)} {name}" for name, split in splits.items()))


def prepare(table: pd.DataFrame, data: Data, dropped: Counter) -> dict[str, pd.DataFrame]:
    """From the rows as they came to the rows of each split; counts in `dropped` the rows that fell out, by reason."""
    table = rows.bin_labels(table, data.bins, dropped) if data.bins else table.astype({"label": str})
    table = rows.clean_rows(table, dropped)
    splits = rows.separate(rows.split(table, data), data.near_duplicate, dropped)
    return rows.limit(splits, data.limit, dropped)


def save(split: pd.DataFrame, names: list[str], path: Path) -> None:
    """Write one split as Parquet that `datasets` reads back with the class names."""
    disable_progress_bars()
    features = Features({"row": Value("int64"), "text": Value("string"), "label": ClassLabel(names=names)})
    columns = {"row": split["row"], "text": split["text"], "label": split["label"].map(names.index)}
    Dataset.from_dict({key: values.tolist() for key, values in columns.items()}, features=features).to_parquet(path)


def counts(table: pd.DataFrame, splits: dict[str, pd.DataFrame], names: list[str], dropped: Counter) -> dict:
    """What metrics/data.json holds; the kept and the dropped rows add up to the source's."""
    by_class = {split: rows["label"].value_counts() for split, rows in splits.items()}
    return {
        "rows": {"source": len(table)} | {split: len(rows) for split, rows in splits.items()},
        **{split: {name: int(by_class[split][name]) for name in names} for split in splits},
        "dropped": dict(dropped),
    }


if __name__ == "__main__":
    errors.run(main)
