"""Whatever a table holds: `prepare` keeps each row's text and label or says one line, and `predict` answers every row.

`make fuzz` tries many more tables.
"""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import whole_run
from conftest import tiny_params
from datasets import Dataset
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages import predict, prepare
from stages.common import paths
from stages.common.errors import PipelineError
from stages.common.texts import clean, valid
from stages.problems.problem import label_text

ODD = [
    *("", " ", "NA", "null", "None", "nan", "-1", "01", "1.0", "1e5", "=1+1", "true", '"', "'", 'a "b" c', "a,b"),
    *("a\tb", "a\nb", "a\r\nb", "a\rb", "a\u2028b", "a\x85b", "a\x0cb", "a\x1cb", "\ufeff", "\u200b", "\0", "\\"),
    *("<|endoftext|>", "[MASK]", "</s>", "{text}", "{}", "$x$", "|", "#1", "é", "e\u0301", "ﬁ", "好", "🙂"),
    *("\U000e0001", "\u202eabc", "\\N", "<b>", "@a", "`"),
]
"""Values that some reader takes for something else."""

WORDS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

CLASSES = (
    st.sampled_from([["good", "bad"], ["0", "1"], [0, 1, 2], [True, False], [1.0, 2.0], ["NA", "null", "nan"]])
    | st.lists(WORDS, min_size=2, max_size=4, unique=True)
    | st.lists(WORDS | st.integers(-3, 3) | st.booleans() | st.none(), min_size=1, max_size=4)
)

FORMATS = {
    "rows.csv": lambda table, path: table.to_csv(path, index=False),
    "rows.csv.gz": lambda table, path: table.to_csv(path, index=False),
    "rows.jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "rows.parquet": lambda table, path: table.map(lambda value: None if value is None else str(value)).to_parquet(
        path, index=False
    ),
}
"""How a table is written to a file of each name."""


@st.composite
def tables(draw, least=0):
    """Up to 60 rows: of every class some plain ones, at least as many as given, and some that hold anything."""
    classes = draw(CLASSES)
    plain = draw(st.integers(least, 12)) * len(classes)
    texts = [f"plain {np.random.default_rng(row).integers(1e9, size=4)}" for row in range(plain)]
    texts += draw(st.lists(WORDS, max_size=12))
    labels = [classes[row % len(classes)] for row in range(plain)]
    labels += [draw(st.sampled_from(classes)) for _ in texts[plain:]]
    return pd.DataFrame({"text": texts, "label": labels}, dtype=object)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, saved_model):
    """A folder with a model, in which the stages run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tables"))
        paths.RAW_DATA.mkdir(parents=True)
        shutil.copytree(saved_model("bert"), paths.BASE_MODEL)
        (paths.BASE_MODEL / "source.json").write_text('{"source": "path:base", "revision": null, "license": "MIT"}')
        yield


def run(stages, table, name):
    """Whether the stages run on a table in a file of this name; if not, the reason is one line."""
    FORMATS[name](table, paths.RAW_DATA / name)
    own = {"source": f"path:{paths.RAW_DATA / name}", "revision": None, "file": None, "format": None, "columns": None}
    own |= {"text": "text", "label": "label", "classes": None, "max_leak": 1}
    changes = {"encode": {"template": "{text}"}, "evaluate": {"resamples": 100}, "train": {"epochs": 1}}
    YAML().dump(tiny_params(data=own, **changes), paths.PARAMS)
    with contextlib.redirect_stderr(io.StringIO()), mock.patch.object(sys, "argv", ["stage"]):
        try:
            for stage in stages:
                stage.main()
        except PipelineError as error:
            assert len(str(error).splitlines()) == 1
            return False
    return True


@given(tables(), st.sampled_from(sorted(FORMATS)))
def test_prepare_keeps_the_text_and_label_of_each_row_or_says_one_line(folder, table, name):
    assume(run([prepare], table, name))
    found = json.loads(paths.DATA_METRICS.read_text())
    kept = {split: Dataset.from_parquet(str(paths.PREPARED / f"{split}.parquet")) for split in paths.SPLITS}
    assert sum(map(len, kept.values())) + sum(found["dropped"].values()) == found["rows"]["source"] == len(table)
    for split in kept.values():
        for row in split:
            given = table.iloc[row["row"] - 1]
            assert row["text"] == clean(given["text"])
            assert split.features["label"].int2str(row["label"]) == label_text(given["label"])


@settings(max_examples=settings.default.max_examples // 20, suppress_health_check=[*HealthCheck])
@given(tables(least=8), st.sampled_from(sorted(FORMATS)))
def test_every_stage_runs_on_what_prepare_takes(folder, table, name):
    assume(run([prepare], table, name))
    assert run(whole_run.STAGES[1:], table, name)
    assert paths.REPORT.read_text()


@given(st.lists(WORDS, min_size=1, max_size=30), st.sampled_from(sorted(FORMATS)))
def test_predict_answers_every_row_of_a_file_in_its_order(project, texts, name):
    table = pd.DataFrame({"text": texts, "label": "x"}, dtype=object)
    with contextlib.chdir(project.folder), contextlib.redirect_stderr(io.StringIO()):
        FORMATS[name](table, name)
        with mock.patch.object(sys, "argv", ["predict", "--input", name, "--output", "answers.jsonl"]):
            predict.main()
        answers = [json.loads(line) for line in Path("answers.jsonl").read_text().split("\n")[:-1]]
        logits = whole_run.plain_logits([clean(text) for text in texts])
    assert [answer["text"] for answer in answers] == [valid(text) for text in texts]
    assert [answer["predicted_label"] for answer in answers] == [
        ["negative", "positive"][row.argmax()] for row in logits
    ]
