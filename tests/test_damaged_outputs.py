"""An output that was damaged since it was written is named in one line, with what restores it."""

import re
import sys

import pandas as pd
import pytest
from conftest import sentences
from whole_run import ran

from stages import audit, baseline, encode, evaluate, export, predict, report, train
from stages.common import errors

CONFLICT = b'{\n<<<<<<< HEAD\n  "rows": 1\n=======\n  "rows": 2\n>>>>>>> other\n}\n'
EMPTY, GARBAGE, HALF, GONE = b"", b"\x93garbage" * 100, "half of it", "nothing"


@pytest.fixture(scope="module")
def folder(saved_model, tmp_path_factory):
    rows = pd.DataFrame(sentences(120), columns=["text", "label"])
    data = {"format": None, "text": "text", "label": "label", "classes": None}
    folder = tmp_path_factory.mktemp("damaged")
    with ran(
        folder,
        rows.assign(label=rows["label"].map(lambda number: "good" if number > 0 else "bad")),
        saved_model("llama"),
        data=data,
        encode={"max_length": 64, "template": None, "label_words": None},
        train={"epochs": 1},
        evaluate={"target_accuracy": None},
    ):
        yield folder


CASES = [
    (encode, "data/prepared/dataset.json", CONFLICT),
    (encode, "data/prepared/train.parquet", GARBAGE),
    (encode, "data/prepared/test.parquet", HALF),
    (encode, "models/base/config.json", CONFLICT),
    (encode, "models/base/tokenizer.json", HALF),
    (encode, "models/base/model.safetensors", HALF),
    (baseline, "data/encoded/about.json", EMPTY),
    (baseline, "data/encoded/train/tokens.bin", HALF),
    (baseline, "data/encoded/train/offsets.npy", EMPTY),
    (baseline, "data/encoded/test/labels.npy", HALF),
    (baseline, "data/prepared/test.parquet", EMPTY),
    (baseline, "models/base/model.safetensors", GARBAGE),
    (audit, "data/features/test.parquet", GARBAGE),
    (audit, "metrics/baseline.json", CONFLICT),
    (train, "data/encoded/validation/rows.npy", GARBAGE),
    (train, "data/encoded/train/states-00000.npy", HALF),
    (train, "models/base/model.safetensors", EMPTY),
    (evaluate, "models/adapter/run.json", CONFLICT),
    (evaluate, "models/adapter/labels.json", b"[]"),
    (evaluate, "models/adapter/labels.json", b"{}"),
    (evaluate, "models/adapter/adapter_config.json", CONFLICT),
    (evaluate, "models/adapter/adapter_model.safetensors", HALF),
    (evaluate, "models/adapter/adapter_model.safetensors", GARBAGE),
    (evaluate, "data/predictions/baseline.parquet", HALF),
    (report, "data/predictions/test.csv", EMPTY),
    (report, "data/predictions/suspects.csv", EMPTY),
    (report, "metrics/data.json", CONFLICT),
    (report, "metrics/plots/length.csv", EMPTY),
    (report, "metrics/plots/roc.csv", EMPTY),
    (predict, "models/adapter/tokenizer.json", HALF),
    (predict, "models/adapter/tokenizer.json", GONE),
    (predict, "models/adapter/tokenizer_config.json", CONFLICT),
    (predict, "models/abstention.json", CONFLICT),
    (export, "models/adapter/adapter_model.safetensors", GONE),
    (export, "metrics/evaluate.json", HALF),
]


@pytest.mark.parametrize(
    ("stage", "name", "damage"), CASES, ids=lambda value: getattr(value, "__name__", str(value)[:40])
)
def test_a_damaged_output_is_one_line_with_what_restores_it(folder, monkeypatch, capsys, stage, name, damage):
    path = folder / name
    whole = path.read_bytes()
    if damage == GONE:
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == HALF else damage)
    monkeypatch.setattr(sys, "argv", [stage.__name__, *(["a text"] if stage is predict else [])])
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as ended:
            errors.run(stage.main)
    finally:
        path.write_bytes(whole)
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    restore = "git checkout" if name.startswith("metrics/") else "dvc checkout --force"
    assert f"`{restore} {name.split('/')[0]}/" in lines[0]
    assert lines[0].startswith(f"error: {name}") or re.match(r"error: (models/\w+|data/encoded/\w+): ", lines[0])
