"""What the tests of the kinds of problem share: a folder in which every stage ran on made-up rows."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_params
from peft import AutoPeftModelForSequenceClassification
from ruamel.yaml import YAML
from transformers import AutoTokenizer, pipeline, set_seed

from stages import audit, baseline, encode, evaluate, export, predict, prepare, report, train
from stages.classifier.labels import load_labels
from stages.common import paths
from stages.scoring import plots
from stages.sources import fetched

STAGES = (prepare, encode, baseline, audit, train, evaluate, report)


@contextmanager
def ran(folder: Path, rows: pd.DataFrame, model: Path, **sections: dict) -> Iterator[Path]:
    """Enters `folder` after every stage has run there on the rows and the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(fetched, "fetch", lambda **_: fetched.Fetched(path=folder / "rows.jsonl", license="MIT"))
        rows.to_json(folder / "rows.jsonl", orient="records", lines=True)
        params = tiny_params(**sections)
        YAML().dump(params, paths.PARAMS)
        shutil.copytree(model, paths.BASE_MODEL)
        source = {"source": "path:models/raw/tiny", "revision": None, "license": "MIT"}
        (paths.BASE_MODEL / "source.json").write_text(json.dumps(source))
        patch.setattr(sys, "argv", ["stage"])
        for stage in STAGES:
            stage.main()
        yield folder


def read(path: Path) -> dict:
    """A file of JSON."""
    return json.loads(path.read_text())


def drawn() -> set[str]:
    """The tables of metrics/plots that `dvc plots` draws, as they have rows; it would warn if one were missing."""
    tables = {path.stem: pd.read_csv(path) for path in paths.EVALUATE_PLOTS.iterdir()}
    assert {name: tuple(table) for name, table in tables.items()} == plots.COLUMNS
    return {name for name, table in tables.items() if len(table)}


def predicted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> pd.DataFrame:
    """What `predict` makes of the test rows."""
    pd.read_csv(paths.TEST_PREDICTIONS)[["text"]].to_csv(tmp_path / "in.csv", index=False)
    files = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    monkeypatch.setattr(sys, "argv", ["predict", *files, *arguments])
    predict.main()
    return pd.read_csv(tmp_path / "out.csv", keep_default_na=False)


def plain_logits(texts: list[str]) -> np.ndarray:
    """The saved adapter's logits, (texts, outputs), with nothing but PEFT and transformers."""
    set_seed(99)  # what is not in the file starts otherwise than in training
    model = AutoPeftModelForSequenceClassification.from_pretrained(paths.ADAPTER, **load_labels(paths.ADAPTER))
    tokenizer = AutoTokenizer.from_pretrained(paths.ADAPTER)
    with torch.inference_mode():
        return np.concatenate([model.eval()(**tokenizer(text, return_tensors="pt")).logits.numpy() for text in texts])


def piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: object) -> Callable:
    """What transformers' pipeline says of texts, with the merged model, loaded by its path alone."""
    monkeypatch.setattr(sys, "argv", ["export", "--output", str(tmp_path / "merged")])
    export.main()
    classify = pipeline("text-classification", str(tmp_path / "merged"), device="cpu")
    return lambda texts: classify(texts, **options)


ALONE = """\
import runpy, sys
sys.modules |= dict.fromkeys(("torch", "transformers", "pandas", "stages"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script that can import none of these."""


def in_onnx(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, texts: dict[str, str]
) -> tuple[pd.DataFrame, list[list[str]]]:
    """What the model in ONNX answers to the test rows, after `predict` was seen to say the same with the adapter; and
    the lines that example.py prints, by its parts, without torch and transformers.

    Args:
        texts: the name of each column of texts in data/predictions/test.csv, and in training.
    """
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package)
    given = pd.read_csv(paths.TEST_PREDICTIONS)[list(texts)].rename(columns=texts).head(8)
    given.to_csv(tmp_path / "in.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["export", "--onnx", "--output", str(tmp_path / "onnx")])
    export.main()
    found = []
    for options in ([], ["--model", str(tmp_path / "onnx")]):
        files = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
        monkeypatch.setattr(sys, "argv", ["predict", *files, *options])
        predict.main()
        found.append(pd.read_csv(tmp_path / "out.csv", keep_default_na=False, dtype={"label": str}))
    pd.testing.assert_frame_equal(*found, rtol=0, atol=1e-4)
    rows = ["\t".join(row) for row in given.itertuples(index=False)]
    command = [sys.executable, "-c", ALONE, str(tmp_path / "onnx/example.py"), *rows]
    printed = subprocess.run(command, capture_output=True, text=True)
    assert not printed.returncode, printed.stderr
    return found[1], [line.split("\t") for line in printed.stdout.splitlines()]
