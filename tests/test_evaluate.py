"""The main score and errors by length; the seeds of a tiny run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import Project
from safetensors.torch import load_file, save_file

from stages.evidence import slices
from stages.problems.kinds import PROBLEMS
from stages.scoring import plots
from stages.scoring.kinds import SCORED

SINGLE = PROBLEMS["single_label"]
ACCURACY, MAE = SINGLE.main_scores["accuracy"], PROBLEMS["regression"].main_scores["mae"]


@pytest.mark.parametrize("lengths", [[256] * 6, [255, 256] * 3, [3, 4, 5, 60, 70, 80], [1, 1, 1, 1, 1, 9]])
def test_every_row_is_counted_by_length_however_alike_the_lengths_are(lengths):
    lengths = np.array(lengths)
    right = np.array([1, 0, 1, 1, 0, 1])
    labels, predictions = np.zeros(6, dtype=int), {"tuned": np.eye(2)[1 - right]}
    fifths = pd.DataFrame(plots.by_length(ACCURACY, labels, predictions, lengths))
    errors = pd.DataFrame(plots.errors_by_length(SCORED["single_label"], labels, predictions, lengths))
    assert fifths["rows"].sum() == 6
    assert (fifths["score"] * fifths["rows"]).sum() == pytest.approx(4)
    assert errors.groupby("model")["rows"].sum().to_dict() == {"all rows": 6, "tuned": 2}
    assert fifths["tokens"].max() == errors["tokens"].max() == lengths.max()


def test_fifths_are_named_by_their_longest_row_and_have_the_main_score_of_their_rows():
    lengths, found = np.arange(1, 11), np.arange(10.0)
    fifths = pd.DataFrame(plots.by_length(MAE, np.zeros(10), {"tuned": found, "median": -2 * found}, lengths))
    assert fifths["tokens"].tolist() == [2, 4, 6, 8, 10] * 2
    assert fifths["score"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 1.0, 5.0, 9.0, 13.0, 17.0]
    assert fifths["rows"].tolist() == [2] * 10


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_every_main_score_is_finite_even_in_a_fifth_of_one_class(key):
    labels, lengths = np.repeat([0, 1], 5), np.arange(10)
    predictions = SINGLE.outputs(np.random.default_rng(0).normal(size=(10, 2)))
    fifths = plots.by_length(SINGLE.main_scores[key], labels, {"tuned": predictions}, lengths)
    assert all(np.isfinite(fifth["score"]) for fifth in fifths)


def test_a_curve_of_one_point_is_not_drawn():
    points = [{"confidence": 0.5, "accuracy": 0.4, "rows": 3}, {"confidence": 0.9, "accuracy": 1.0, "rows": 1}]
    assert plots.series("majority", points[:1]) == []
    assert [point["model"] for point in plots.series("tuned", points)] == ["tuned", "tuned"]


@pytest.fixture
def two_seeds(project, tmp_path) -> Project:
    """The tiny project with a second seed's adapter, whose head says the opposite of the kept one's."""
    copied = Project(shutil.copytree(project.folder, tmp_path / "project"))
    folder = shutil.copytree(copied.folder / "models/adapter", copied.folder / "models/seeds/1")
    file = folder / "adapter_model.safetensors"
    weights = {name: -weight if "score" in name else weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return copied


def test_every_seed_is_scored_on_the_same_rows_and_the_verdict_is_about_all_of_them(two_seeds):
    written = ("data/predictions", "metrics/plots")
    before = {folder: two_seeds.files(folder) for folder in written}
    alone = json.loads((two_seeds.folder / "metrics/evaluate.json").read_text())
    two_seeds.call("evaluate")
    values = json.loads((two_seeds.folder / "metrics/evaluate.json").read_text())
    seeds = values.pop("seeds")
    assert values == alone
    assert {folder: two_seeds.files(folder) for folder in written} == before
    accuracy, gain = alone["accuracy"], alone["gain"]["strongest_rival"]
    assert list(seeds["by_seed"]) == ["42", "1"]
    assert seeds["by_seed"]["42"] == pytest.approx({"accuracy": accuracy, "gain": gain}, abs=2e-5)
    assert seeds["by_seed"]["1"] == pytest.approx({"accuracy": 1 - accuracy, "gain": gain + 1 - 2 * accuracy}, abs=5e-5)
    report = two_seeds.call("report").stdout
    assert report.startswith("**No evidence of a gain**")
    assert f"| 42 (kept) | {100 * accuracy:.1f}% |" in report


def test_a_single_seed_has_no_scores_over_seeds(project):
    assert "seeds" not in json.loads((project.folder / "metrics/evaluate.json").read_text())


@pytest.fixture
def sliced(project, tmp_path) -> Project:
    """The tiny project with a slice of each half of its test rows."""
    copied = Project(shutil.copytree(project.folder, tmp_path / "project"))
    rows = pd.read_parquet(copied.folder / "data/prepared/test.parquet")[["row"]]
    halves = rows.assign(column="half", value=np.where(np.arange(len(rows)) < len(rows) // 2, "first", "second"))
    halves.to_parquet(copied.folder / "data/slices.parquet")
    return copied


def test_every_slice_is_scored_and_shown_and_all_other_numbers_stay(sliced, monkeypatch):
    monkeypatch.setattr(slices, "FEWEST", 5)
    alone = json.loads((sliced.folder / "metrics/evaluate.json").read_text())
    assert "slices" not in alone
    sliced.call("evaluate")
    values = json.loads((sliced.folder / "metrics/evaluate.json").read_text())
    by_half = values.pop("slices")["half"]
    assert values == alone
    answers = pd.read_csv(sliced.folder / "data/predictions/test.csv")
    right = answers["label"] == answers["tuned"]
    first, second = (half.mean() for half in (right[: len(right) // 2], right[len(right) // 2 :]))
    assert by_half["first"]["accuracy"] == by_half["second"]["rest"] == pytest.approx(first, rel=1e-4)
    assert by_half["second"]["accuracy"] == pytest.approx(second, rel=1e-4)
    report = sliced.call("report").stdout
    assert "\n\nWorst slice: `half = " in report
    assert f"| `half = first` | {len(right) // 2} |" in report


def test_slices_that_are_too_small_leave_no_trace(sliced):
    before = sliced.files("metrics")
    sliced.call("evaluate")
    assert sliced.files("metrics") == before


def test_slices_of_other_rows_are_refused(sliced):
    path = sliced.folder / "data/slices.parquet"
    pd.read_parquet(path)[::-1].to_parquet(path)
    failed = sliced.call("evaluate", check=False)
    assert "data/slices.parquet: expected the rows of data/encoded, found others" in failed.stderr
