"""Unbalanced classes: models are compared by macro-F1 from the training to the verdict."""

import shutil

import numpy as np
import pandas as pd
import pytest
import whole_run
from conftest import tiny_params
from families import BAD, GOOD, NOUNS
from ruamel.yaml import YAML
from sklearn.metrics import f1_score, matthews_corrcoef

from stages import baseline, evaluate, report, search, train
from stages.adapters.run import Run
from stages.backbone import store
from stages.common import paths
from stages.params import Params
from stages.problems.kinds import PROBLEMS

WORDS = {"praise": GOOD, "blame": BAD, "topic": NOUNS}
SHARES = {"praise": 0.6, "blame": 0.28, "topic": 0.12}
OPEN = {"text": None, "label": None, "columns": None, "classes": None, "format": None}
DATA = OPEN | {"limit": {"train": 150, "validation": 50, "test": 80}}
SECTIONS = {
    "data": DATA,
    "encode": {"template": "{text}"},
    "train": {"epochs": 5, "lr": 1e-2, "select_by": "main"},
}


def of_kinds(count):
    """Texts whose words give away which of three unequal classes they have."""
    generator, rows = np.random.default_rng(0), []
    for number, kind in enumerate(generator.choice(list(SHARES), count, p=list(SHARES.values()))):
        words = " ".join(generator.choice(WORDS[kind], 3))
        rows.append({"text": f"Number {number} says: {words} and that is {words}", "kind": kind})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    rows = of_kinds(400).rename(columns={"text": "review"})
    with whole_run.ran(tmp_path_factory.mktemp("kinds"), rows, saved_model("llama"), **SECTIONS) as folder:
        yield folder


@pytest.fixture
def inside(ran, tmp_path, monkeypatch):
    """A copy of the run."""
    monkeypatch.chdir(shutil.copytree(ran, tmp_path / "run"))
    return pd.read_csv(paths.TEST_PREDICTIONS)


def test_the_columns_that_were_chosen_are_recorded_and_predict_reads_them(inside):
    run = Run.load(paths.ADAPTER)
    assert run.columns == {"text": "review"}
    assert run.params["data"]["label"] == "kind"


def test_every_stage_resolves_the_same_main_score(inside):
    baselines, trained, tuned = map(
        whole_run.read, (paths.BASELINE_METRICS, paths.TRAIN_METRICS, paths.EVALUATE_METRICS)
    )
    assert trained["main"] == Run.load(paths.ADAPTER).main.key == "f1_macro"
    assert set(trained["validation"]) == {"f1_macro", "loss", "log_loss", "weighted_log_loss"}
    assert all(set(rival["interval"]) == {"f1_macro", "roc_auc"} for rival in baselines.values())
    counts = whole_run.read(paths.DATA_METRICS)["train"]
    labels = store.load_rows(paths.ENCODED / "train", store.About.load(paths.ENCODED)).text_labels
    assert sorted(counts.values()) == sorted(np.unique(labels, return_counts=True)[1])
    for name, rival in baselines.items():
        assert tuned["gain"][name] == pytest.approx(tuned["f1_macro"] - rival["f1_macro"], abs=2e-5)
        low, high = rival["interval"]["f1_macro"].values()
        assert low <= rival["f1_macro"] <= high
    assert tuned["gain"]["strongest_rival"] == min(tuned["gain"][name] for name in baselines)


def test_the_score_is_that_of_the_recorded_answers_on_all_rows_and_by_length(inside):
    tuned = whole_run.read(paths.EVALUATE_METRICS)
    assert tuned["f1_macro"] == pytest.approx(f1_score(inside["label"], inside["tuned"], average="macro"), rel=1e-4)
    lengths = pd.read_csv(paths.EVALUATE_PLOTS / "length.csv")
    lengths = lengths[lengths["model"] == "tuned"].reset_index(drop=True)
    assert lengths["rows"].sum() == len(inside)
    tokens = store.load_rows(paths.ENCODED / "test", store.About.load(paths.ENCODED)).text_lengths
    first = inside[tokens <= lengths["tokens"][0]]
    present = sorted(set(first["label"]))
    expected = f1_score(first["label"], first["tuned"], labels=present, average="macro", zero_division=0)
    assert lengths["score"][0] == pytest.approx(expected, rel=1e-3)


def test_the_report_says_which_score_it_is_and_why_and_uses_it_throughout(inside):
    text, card = paths.REPORT.read_text(), paths.CARD.read_text()
    counts = whole_run.read(paths.DATA_METRICS)["train"]
    assert (
        f"Main score: macro-F1 (`evaluate.main: auto`). The most frequent class has {max(counts.values())} training "
        f"rows, the rarest {min(counts.values())}; from 3 times as many on it is macro-F1"
    ) in text
    assert " points of macro-F1, 95 % interval " in text
    assert "(paired permutation test; one seed; p corrected for 6 rivals)." in text
    assert "| macro-F1 (95 % interval) | accuracy | MCC |" in text
    assert "| macro-F1, by length |" in text
    assert "Macro-F1 with 95 % intervals" in text
    assert "Validation macro-F1 at the kept epoch: " in card
    assert card.index("| macro-F1 |") < card.index("| accuracy |")


def test_another_choice_changes_what_every_stage_compares_by(inside):
    YAML().dump(tiny_params(**SECTIONS, evaluate={"main": "mcc"}), paths.PARAMS)
    for stage in (baseline, train, evaluate, report):
        stage.main()
    answers, tuned = pd.read_csv(paths.TEST_PREDICTIONS), whole_run.read(paths.EVALUATE_METRICS)
    assert tuned["mcc"] == pytest.approx(matthews_corrcoef(answers["label"], answers["tuned"]), rel=1e-4)
    rivals = whole_run.read(paths.BASELINE_METRICS)
    assert tuned["gain"]["strongest_rival"] == pytest.approx(
        tuned["mcc"] - max(rival["mcc"] for rival in rivals.values()), abs=2e-5
    )
    assert set(whole_run.read(paths.TRAIN_METRICS)["validation"]) == {"mcc", "loss", "log_loss"}
    text = paths.REPORT.read_text()
    assert "Main score: MCC (`evaluate.main: mcc`).\n" in text
    assert " of MCC, 95 % interval " in text
    assert search.direction(Params.load()) == "maximize"


@pytest.mark.parametrize("key", ["roc_auc", "log_loss"])
def test_other_choices_are_evaluated_with_intervals_and_p_values(key, inside):
    values = whole_run.read(paths.ADAPTER / "run.json")
    values["metrics"]["main"] = key
    Run(**values).save(paths.ADAPTER)
    evaluate.main()
    tuned, sign = whole_run.read(paths.EVALUATE_METRICS), PROBLEMS["single_label"].main_scores[key].sign
    for name, rival in whole_run.read(paths.BASELINE_METRICS).items():
        gain = tuned["gain"][name]
        assert gain == pytest.approx(sign * (tuned[key] - rival[key]), abs=5e-5)
        assert tuned["gain_low"][name] <= gain <= tuned["gain_high"][name]
        assert 0 < tuned["p_value"][name] <= 1
    assert tuned["interval"][key]["low"] <= tuned[key] <= tuned["interval"][key]["high"]
