"""Texts with a number, through every stage and out again."""

import shutil
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import whole_run
from conftest import tiny_params
from families import BAD, GOOD
from ruamel.yaml import YAML

from stages import audit, predict, train
from stages.backbone import store
from stages.classifier import inference
from stages.common import paths
from stages.common.errors import ParamsError, PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.rows import reading, splits
from stages.scoring.kinds import SCORED

REGRESSION = PROBLEMS["regression"]

DATA = {"problem": "regression", "format": None, "label": "stars", "classes": None}
SECTIONS = {
    "data": DATA | {"limit": {"train": 150, "validation": 40, "test": 60}},
    "encode": {"template": "{text}"},
    "train": {"epochs": 10, "lr": 6e-3},
}


def rated(count):
    """Texts whose words give away a number, about 40 or about 20."""
    generator = np.random.default_rng(0)
    texts = []
    for number in range(count):
        words = generator.choice((BAD, GOOD)[number % 2], 3)
        text = " ".join(["Number", str(number), "says:", *words, "and that is", *words])
        texts.append({"text": text, "stars": round(20 + 20 * (number % 2) + generator.normal(), 2)})
    return pd.DataFrame(texts)


@pytest.fixture(scope="module", params=["llama", pytest.param("bert", marks=pytest.mark.long)])
def ran(request, tmp_path_factory, saved_model):
    """A decoder, whose head has no bias, and an encoder, whose head has one."""
    model = saved_model(request.param)
    with whole_run.ran(tmp_path_factory.mktemp(request.param), rated(400), model, **SECTIONS) as folder:
        yield folder


@pytest.fixture
def inside(ran, monkeypatch):
    monkeypatch.chdir(ran)
    return pd.read_csv(paths.TEST_PREDICTIONS)


def test_the_model_learns_and_every_rival_is_scored_alike(inside):
    baseline, tuned = whole_run.read(paths.BASELINE_METRICS), whole_run.read(paths.EVALUATE_METRICS)
    assert list(baseline) == ["median", "bag_of_words", "untrained", "linear_probe"]
    assert tuned["mae"] < baseline["median"]["mae"] / 2
    scores = {"mae", "mse", "rmse", "r2", "pearson", "spearman", "interval"}
    assert set(tuned) == scores | {"gain", "gain_low", "gain_high", "p_value", "run"}
    for name, rival in baseline.items():
        assert set(rival) - {"regularization"} == scores
        assert tuned["gain"][name] == pytest.approx(rival["mae"] - tuned["mae"], abs=1e-3)
        low, high = rival["interval"]["mae"].values()
        assert 0 < low <= rival["mae"] <= high
    assert tuned["gain"]["strongest_rival"] == min(tuned["gain"][name] for name in baseline)
    assert baseline["median"]["pearson"] == baseline["median"]["spearman"] == 0


def test_the_recorded_scores_are_those_of_the_recorded_answers(inside):
    scores = whole_run.read(paths.BASELINE_METRICS) | {"tuned": whole_run.read(paths.EVALUATE_METRICS)}
    for name, expected in scores.items():
        assert (inside[name] - inside["label"]).abs().mean() == pytest.approx(expected["mae"], rel=1e-4)
    train_numbers = pd.read_parquet(paths.PREPARED / "train.parquet")["label"]
    np.testing.assert_allclose(inside["median"], train_numbers.median(), rtol=1e-6)


def test_predict_evaluate_plain_peft_and_a_pipeline_give_the_same_numbers_in_their_own_scale(
    inside, monkeypatch, tmp_path
):
    texts = inside["text"].tolist()
    np.testing.assert_allclose(whole_run.plain_logits(texts)[:, 0], inside["tuned"], atol=1e-3)
    answers = whole_run.predicted(monkeypatch, tmp_path)
    assert list(answers) == ["text", "value"]
    np.testing.assert_allclose(answers["value"], inside["tuned"], atol=1e-3)
    found = whole_run.piped(monkeypatch, tmp_path)(texts)
    assert {one["label"] for one in found} == {"value"}
    np.testing.assert_allclose([one["score"] for one in found], inside["tuned"], atol=1e-3)


@pytest.mark.long
def test_in_onnx_and_without_this_project_the_numbers_are_the_same(inside, monkeypatch, tmp_path):
    answers, printed = whole_run.in_onnx(monkeypatch, tmp_path, texts={"text": "text"})
    np.testing.assert_allclose([float(value) for (value,) in printed], answers["value"], rtol=1e-4)


def test_predict_prints_the_value(inside, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["predict", "--compare", "Number 7 says: good warm good and that is good warm good"]
    )
    predict.main()
    header, row = capsys.readouterr().out.splitlines()
    assert header == "text\tvalue\tuntouched_value"
    assert 20 < float(row.split("\t")[1]) < 60


def test_the_validation_error_is_in_the_numbers_own_scale(inside):
    validation = pd.read_parquet(paths.PREPARED / "validation.parquet")
    answers = whole_run.plain_logits(validation["text"].tolist())[:, 0]
    metrics = whole_run.read(paths.TRAIN_METRICS)
    assert metrics["validation"]["mae"] == pytest.approx(np.abs(answers - validation["label"]).mean(), rel=1e-3)
    assert set(metrics["validation"]) == {"mae", "loss"}
    numbers = pd.read_parquet(paths.PREPARED / "train.parquet")["label"]
    unit = (numbers - numbers.median()).abs().mean()
    assert metrics["validation"]["loss"] == pytest.approx(metrics["validation"]["mae"] / unit, rel=1e-3)
    assert "temperature" not in metrics


def test_what_lies_beside_the_adapter_says_how_to_read_it(inside):
    labels = whole_run.read(paths.ADAPTER / "labels.json")
    assert (labels["problem_type"], labels["num_labels"], labels["id2label"]) == ("regression", 1, {"0": "value"})
    card, report = paths.CARD.read_text(), paths.REPORT.read_text()
    assert "# Text regression: `stars`" in card
    assert "Validation MAE at the kept epoch: " in card
    assert "The `score` is the number itself." in card
    assert "| Spearman correlation | " in card
    assert " minus tuned is " in report
    assert " of MAE, 95 % interval " in report
    assert "| numbers | train | validation | test |" in report
    assert "The tuned model is closer to the true number than the linear probe on " in report
    assert "MAE, by length" in report
    assert whole_run.drawn() == {"numbers", "length", "errors", "error_characteristic"}
    assert set(whole_run.read(paths.HEADLINE)["before_tuning"]) == {"mae", "rmse"}
    assert paths.SUMMARY.read_bytes().startswith(b"\x89PNG")


def test_the_counts_are_those_of_the_rows_and_the_rows_add_up(inside):
    counts = whole_run.read(paths.DATA_METRICS)
    assert sum(counts["rows"][split] for split in paths.SPLITS) + sum(counts["dropped"].values()) == 400
    for split in paths.SPLITS:
        numbers = pd.read_parquet(paths.PREPARED / f"{split}.parquet")["label"]
        assert counts[split] == pytest.approx({"mean": numbers.mean(), "standard_deviation": np.std(numbers)}, rel=1e-4)
        stored = np.load(paths.ENCODED / split / "labels.npy")
        assert (stored.dtype, stored.shape) == (np.float32, numbers.shape)
        np.testing.assert_allclose(stored, numbers, rtol=1e-6)


def test_the_head_starts_as_a_regression_of_the_numbers(inside):
    params, about = Params.load(), store.About.load(paths.ENCODED)
    given = {name: store.load_rows(paths.ENCODED / name, about) for name in ("train", "validation")}
    unit = REGRESSION.unit(given["train"].labels)
    scaled = {name: train.in_units(rows, unit) for name, rows in given.items()}
    numbers = given["train"].labels
    assert unit == pytest.approx(np.abs(numbers - np.median(numbers)).mean())
    np.testing.assert_allclose(unit * scaled["validation"].labels, given["validation"].labels, rtol=1e-6)
    model, starts, _ = train.build(params, about, scaled["train"], seed=1)
    assert list(starts) == ["probe"]
    starts["probe"](model)
    logits = inference.logits(model, scaled["train"], batch_size=16, progress="")[:, 0]
    labels = scaled["train"].labels
    assert logits.mean() == pytest.approx(labels.mean(), rel=0.02)
    assert np.square(logits - labels).mean() < 0.5 * labels.var()


def options(**changes):
    return Params.model_validate(tiny_params(data=DATA | changes)).data


def table(numbers):
    """Rows with these numbers."""
    texts = [f"text {number}" for number in range(len(numbers))]
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": numbers})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            '"many"',
            "expected a finite number in column 'stars', found 'many' in row 1; correct it, or remove the row",
        ),
        ("true", "expected a finite number in column 'stars', found True in row 1"),
        ('"inf"', "expected a finite number in column 'stars', found 'inf' in row 1"),
        ("1e39", "expected a finite number in column 'stars', found 1e+39 in row 1"),
        ("null", "expected a label in every row, found 1 without one, the first in row 1 of column 'stars'"),
        ('"nan"', "expected a finite number in column 'stars', found 'nan' in row 1"),
        ('"2021_10"', "expected a finite number in column 'stars', found '2021_10' in row 1"),
        ("[1.0]", "expected text, numbers or booleans in column 'stars' (data.label), found list in row 1"),
    ],
)
def test_a_label_that_is_no_number_is_one_clear_line(tmp_path, value, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "stars": ' + value + "}")
    with pytest.raises(PipelineError) as caught:
        reading.read(path, options(), Counter())
    assert str(caught.value).startswith(f"rows.jsonl: {message}")
    assert "\n" not in str(caught.value)


def test_numbers_are_read_as_text_and_as_numbers(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "stars": " 1e1 "}\n{"text": "y", "stars": -0.5}')
    assert reading.read(tmp_path / "rows.jsonl", options(), Counter())["label"].tolist() == [10.0, -0.5]


def test_every_split_holds_the_whole_range_of_the_numbers():
    numbers = np.random.default_rng(0).exponential(size=400)
    prepared = splits.split({"train": table(numbers.tolist())}, options())
    for split in prepared.values():
        tenths = np.searchsorted(np.quantile(numbers, np.arange(1, 10) / 10), split["label"])
        shares = np.bincount(tenths, minlength=10) / len(split)
        np.testing.assert_allclose(shares, 0.1, atol=0.03)


@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        ([3.0] * 30, {}, "expected numbers that differ, found 3 in every row"),
        ([1e9, 1e9 + 1] * 15, {}, "expected numbers that differ, found 1e+09 in every row"),
        ([], {}, "expected numbers that differ, found no usable row"),
        (
            [1.0, 2.0],
            {},
            "split 'test': expected rows, found none; raise data.split, or add rows",
        ),
        ([1.0, 2.0] * 9, {"limit": {"train": 1, "validation": 1, "test": 1}}, "expected numbers that differ, found "),
    ],
)
def test_numbers_that_nothing_can_be_learned_from_are_one_clear_line(numbers, changes, message):
    with pytest.raises(PipelineError) as caught:
        splits.limit(splits.split({"train": table(numbers)}, options()), options(**changes), Counter())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "data",
            {"classes": {"a": 0, "b": 1}},
            "data.classes: expected None with data.problem: regression, which has no",
        ),
        (
            "data",
            {"label": ["a", "b"]},
            "data.label: expected one column with data.problem: regression, found ['a', 'b']",
        ),
        (
            "encode",
            {"label_words": {"a": "x"}},
            "encode.label_words: expected None with data.problem: regression, which",
        ),
        (
            "evaluate",
            {"main": "mcc"},
            "evaluate.main: expected auto or mae with data.problem: regression, found 'mcc'",
        ),
        (
            "train",
            {"balance": "weights"},
            "train.balance: expected None with data.problem: regression, which",
        ),
        ("train", {"label_smoothing": 0.1}, "train.label_smoothing: expected 0.0 with data.problem: regression"),
        (
            "gate",
            {"min_accuracy": 0.5},
            "gate.min_accuracy: expected None with data.problem: regression, which has no such setting",
        ),
    ],
)
def test_what_has_no_meaning_here_is_refused_before_anything_runs(tmp_path, section, changes, message):
    params = tiny_params(data=DATA)
    params[section] |= changes
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert f"has 1 problem(s):\n  {message}" in str(caught.value)


def test_a_gate_takes_gains_in_any_unit(tmp_path):
    params = tiny_params(data=DATA)
    params["gate"] |= {"min_gain": 5.0, "max_drop": 2.0}
    YAML().dump(params, tmp_path / "params.yaml")
    assert Params.load(tmp_path / "params.yaml").gate.min_gain == 5


def test_suspect_numbers_are_listed_without_probabilities(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(ran, tmp_path / "project"))
    rows = pd.read_parquet(paths.PREPARED / "train.parquet")
    rows.loc[7, "label"] += 100
    rows.to_parquet(paths.PREPARED / "train.parquet")
    monkeypatch.setattr(sys, "argv", ["stage"])
    audit.main()
    listed = pd.read_csv(paths.SUSPECTS)
    assert list(listed) == ["row", "split", "text", "label", "likely", "quality"]
    assert listed["quality"].is_monotonic_increasing
    assert (listed["split"][0], listed["row"][0]) == ("train", rows["row"][7])
    assert 0 < listed["quality"].max() < np.exp(-3.5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_single_wrong_number_does_not_spoil_the_rival_that_minimises_absolute_errors():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(600, 100))
    numbers = 2 * features[:, 0] + generator.normal(size=600)
    _, absolute = SCORED["regression"].candidates(1.0)
    absolute.fit(features[:300], np.append(1e6, numbers[1:300]))
    errors = np.abs(absolute.predict(features[300:]) - numbers[300:])
    assert errors.mean() < 0.7 * np.abs(numbers).mean()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_unit_of_numbers_of_any_scale_is_finite(scale):
    unit = REGRESSION.unit(np.array([-scale, scale], dtype=np.float32))
    assert unit == pytest.approx(scale)
