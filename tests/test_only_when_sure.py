"""Rows kept for the thresholds of `evaluate.target_accuracy`, and the thresholds in all that they reach."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import whole_run
import yaml
from conftest import ROOT, tiny_params
from families import BAD, GOOD, NOUNS
from ruamel.yaml import YAML

from stages import evaluate, export, report
from stages.backbone import store
from stages.common import paths

WORDS = {"praise": GOOD, "blame": BAD, "topic": NOUNS}
DATA = {
    "format": None,
    "label": "kind",
    "classes": None,
    "limit": {"train": 400, "validation": 40, "test": 80},
    "split": {"validation": 0.1, "test": 0.2, "calibration": 0.4},
}
SECTIONS = {"encode": {"template": "{text}"}, "train": {"epochs": 10, "lr": 1e-2}}


def of_kinds(count):
    """Texts whose words give away their class in two thirds of the rows, and say nothing of it in the others."""
    generator, rows = np.random.default_rng(0), []
    for number, kind in enumerate(generator.choice(list(WORDS), count)):
        shown = kind if number % 3 else generator.choice(list(WORDS))
        words = " ".join(generator.choice(WORDS[shown], 3))
        hint = "" if number % 3 else " perhaps, or perhaps not"
        rows.append({"text": f"Number {number} says: {words} and that is {words}{hint}", "kind": kind})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    sections = SECTIONS | {"data": DATA, "evaluate": {"target_accuracy": 0.9}}
    with whole_run.ran(tmp_path_factory.mktemp("sure"), of_kinds(1000), saved_model("llama"), **sections) as folder:
        yield folder


@pytest.fixture
def inside(ran, tmp_path, monkeypatch):
    """A copy of the run."""
    monkeypatch.chdir(shutil.copytree(ran, tmp_path / "run"))


def test_the_kept_rows_are_in_no_other_split_and_all_stages_but_evaluate_leave_them_alone(inside):
    rows = {name: set(pd.read_parquet(paths.PREPARED / f"{name}.parquet")["row"]) for name in paths.ALL_SPLITS}
    assert len(set.union(*rows.values())) == sum(map(len, rows.values()))
    counts = whole_run.read(paths.DATA_METRICS)
    assert counts["rows"]["calibration"] == sum(counts["calibration"].values()) == len(rows["calibration"]) > 200
    encoded = store.load_rows(paths.ENCODED / "calibration", store.About.load(paths.ENCODED))
    assert set(encoded.source_rows) == rows["calibration"]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [name for name, stage in stages.items() if "evaluate.target_accuracy" in stage["params"]] == ["evaluate"]
    assert not any("calibration" in dep for dep in stages["train"]["deps"])


def test_predict_abstains_below_the_threshold_and_names_the_classes_that_are_possible(inside, monkeypatch, tmp_path):
    found, tuned = whole_run.read(paths.ABSTENTION), whole_run.read(paths.EVALUATE_METRICS)
    answers = whole_run.predicted(monkeypatch, tmp_path)
    assert 0 < found["threshold"] < 1
    assert (answers["abstain"] == (answers["probability"] <= found["threshold"])).all()
    assert 1 - answers["abstain"].mean() == pytest.approx(tuned["abstention"]["answered"], rel=1e-4)
    truth = pd.read_csv(paths.TEST_PREDICTIONS)["label"]
    right = answers["label"] == truth
    assert right[~answers["abstain"]].mean() == pytest.approx(tuned["abstention"]["accuracy"], rel=1e-4)
    sets = [set(one.split(", ")) - {"(none)"} for one in answers["set"]]
    assert np.mean([label in one for label, one in zip(truth, sets, strict=True)]) == pytest.approx(
        tuned["sets"]["coverage"], rel=1e-4
    )
    assert np.mean([len(one) for one in sets]) == pytest.approx(tuned["sets"]["mean_size"], rel=1e-4)


@pytest.mark.parametrize("option", [[], ["--adapter"]])
def test_exports_and_cards_carry_the_threshold(inside, monkeypatch, tmp_path, option):
    monkeypatch.setattr(sys, "argv", ["export", *option, "--output", str(tmp_path / "out")])
    export.main()
    assert (tmp_path / "out/abstention.json").read_bytes() == paths.ABSTENTION.read_bytes()
    threshold = whole_run.read(paths.ABSTENTION)["threshold"]
    for path in (tmp_path / "out/README.md", paths.CARD, paths.REPORT):
        assert f"answers with a probability above {threshold:.4f}" in path.read_text()


def test_the_curve_ends_at_the_share_of_wrong_answers_among_all(inside):
    curves = pd.read_csv(paths.EVALUATE_PLOTS / "risk_coverage.csv")
    tuned = curves[curves["model"] == "tuned"]
    assert tuned["coverage"].is_monotonic_increasing
    last = tuned.iloc[-1]
    assert (last["coverage"], last["risk"]) == pytest.approx(
        (1, 1 - whole_run.read(paths.EVALUATE_METRICS)["accuracy"]), rel=1e-3
    )
    assert set(curves["model"]) == {"bag_of_words", "zero_shot", "linear_probe", "tuned"}


def test_without_a_target_evaluate_writes_what_it_wrote_before_and_predict_never_abstains(
    inside, monkeypatch, tmp_path
):
    before = whole_run.read(paths.EVALUATE_METRICS)
    adapter = {path: path.read_bytes() for path in paths.ADAPTER.iterdir()}
    YAML().dump(tiny_params(**SECTIONS, data=DATA), paths.PARAMS)
    monkeypatch.setattr(sys, "argv", ["stage"])
    evaluate.main()
    report.main()
    assert whole_run.read(paths.EVALUATE_METRICS) == {
        name: value for name, value in before.items() if name not in ("abstention", "sets")
    }
    assert whole_run.read(paths.ABSTENTION) == {}
    assert "Answer only when sure" not in paths.REPORT.read_text()
    assert not {"abstain", "set"} & set(whole_run.predicted(monkeypatch, tmp_path))
    assert {path: path.read_bytes() for path in paths.ADAPTER.iterdir()} == adapter
