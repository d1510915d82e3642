"""The report: its verdict, its table and its gate; and experiments, side by side."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Project

from stages import report
from stages.params import Gate

BASELINE = {
    "linear_probe": {"accuracy": 0.84, "f1_macro": 0.84, "mcc": 0.68, "log_loss": 0.4, "roc_auc": 0.9},
    "majority": {"accuracy": 0.5, "f1_macro": 0.33, "mcc": 0.0, "log_loss": 0.69, "roc_auc": 0.5},
}
INTERVAL = {"interval": {"accuracy": {"low": 0.8, "high": 0.9}}}
OPEN = Gate(min_accuracy=None, min_gain=None, max_p_value=None, max_drop=None)


def tuned(*, gain=0.03, p_value=0.004, accuracy=0.87):
    names = (*BASELINE, "strongest_rival")
    return {
        **BASELINE["linear_probe"],
        **INTERVAL,
        "accuracy": accuracy,
        "gain": dict.fromkeys(names, gain),
        "gain_low": dict.fromkeys(names, gain - 0.02),
        "gain_high": dict.fromkeys(names, gain + 0.02),
        "p_value": dict.fromkeys(names, p_value),
    }


def test_the_verdict_names_the_strongest_rival_the_interval_and_the_p_value():
    assert report.verdict(BASELINE, tuned()) == (
        "**Tuning was worth it**: tuned minus the strongest rival (linear_probe) is +3.0 points of accuracy, "
        "95 % interval +1.0 to +5.0, p = 0.004 (exact McNemar test)."
    )


@pytest.mark.parametrize("found", [{"p_value": 0.2}, {"gain": -0.03, "p_value": 0.004}])
def test_without_significance_or_with_a_loss_there_is_no_evidence(found):
    assert report.verdict(BASELINE, tuned(**found)).startswith("**No evidence of a gain**")


def test_the_table_sorts_the_rivals_and_shows_what_was_gained_over_each():
    rivals = {name: scores | INTERVAL for name, scores in BASELINE.items()}
    lines = report.comparison(rivals, tuned(), rows={"train": 3000, "test": 1000}).splitlines()
    assert "3,000 training rows, 1,000 test rows" in lines[0]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| majority", "| linear_probe", "| **tuned**"]
    assert lines[3] == "| linear_probe | 84.0% (80.0 to 90.0) | 0.840 | 0.680 | 0.400 | 0.900 | +3.0 | 0.004 |"
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.parametrize(
    ("bound", "found", "missed"),
    [
        ({"min_accuracy": 0.9}, {}, "expected an accuracy of at least 0.9, found 0.87"),
        ({"min_gain": 0.05}, {}, "expected a gain over the strongest rival of at least 0.05, found 0.03"),
        ({"max_p_value": 0.05}, {"p_value": 0.3}, "expected a p-value of at most 0.05, found 0.3"),
        ({"max_p_value": 0.05}, {"gain": -0.1}, "expected a p-value of at most 0.05, found 1"),
        ({"max_drop": 0.01}, {"accuracy": 0.85}, "expected a drop in accuracy of at most 0.01, found 0.03"),
    ],
)
def test_each_bound_of_the_gate_is_checked_alone(bound, found, missed):
    before = {"accuracy": 0.88}
    assert report.misses(OPEN, tuned(**found), before) == []
    assert report.misses(OPEN.model_copy(update=bound), tuned(**found), before) == [missed]
    assert report.misses(OPEN.model_copy(update=bound), tuned(gain=0.06, accuracy=0.95), before) == []


@pytest.mark.parametrize(("words", "warned"), [(0.79, False), (0.8, True), (0.9, True)])
def test_a_bag_of_words_that_keeps_up_is_a_warning(words, warned):
    assert bool(report.leak_warning({"bag_of_words": {"accuracy": words}}, tuned())) == warned


def test_without_a_revision_no_drop_is_checked():
    assert report.misses(OPEN.model_copy(update={"max_drop": 0.01}), tuned(accuracy=0.1), None) == []


def test_the_surest_errors_are_shown_with_what_was_fixed_and_broken():
    answers = pd.DataFrame(
        {
            "text": ["fixed", "broken | here", "long " * 40, "right"],
            "label": ["bad", "bad", "good", "good"],
            "tuned": ["bad", "good", "bad", "good"],
            "probability": [0.9, 0.8, 0.95, 0.99],
            "zero_shot": ["good", "bad", "bad", "good"],
        }
    )
    told = report.failures(answers).splitlines()
    assert told[0] == (
        "Against the untouched model (zero_shot), tuning fixed 1 of 4 test rows and broke 1. Its commonest errors: "
        "bad taken for good, 1 rows; good taken for bad, 1 rows. Its surest:"
    )
    assert told[2:4] == ["| text | label | zero_shot | tuned | probability |", "|---|---|---|---|---:|"]
    assert told[4].endswith("… | good | bad | bad | 0.950 |")
    assert told[5] == "| broken \\| here | bad | bad | good | 0.800 |"
    assert told[7] == "The surest of those that it fixed:"
    assert told[11:] == ["| fixed | bad | good | bad | 0.900 |"]


def test_every_row_of_the_source_is_accounted_for_in_words():
    data = json.loads((ROOT / "metrics/data.json").read_text())
    told = report.data_counts(data)
    assert "| negative | 1,512 | 252 | 504 |" in told
    assert "Of 10,605 rows, these were left out: in no class 37; duplicate 2;" in told
    assert "conflicting labels" not in told


@pytest.fixture
def copied(project, tmp_path) -> Project:
    """The tiny project with all outputs, to be changed at will."""
    return Project(shutil.copytree(project.folder, tmp_path / "project"))


def test_with_shuffled_training_labels_there_is_no_evidence_and_the_gate_fails(copied):
    labels, table = (copied.folder / path for path in ("data/encoded/train/labels.npy", "data/prepared/train.parquet"))
    shuffled = np.random.default_rng(0).permutation(np.load(labels))
    np.save(labels, shuffled)
    pd.read_parquet(table).assign(label=shuffled).to_parquet(table)
    for stage in ("baseline", "train", "evaluate"):
        copied.call(stage)
    done = copied.call("report", "--gate", check=False)
    assert done.returncode == 1
    assert "**No evidence of a gain**" in done.stdout
    assert "Gate: failed: expected a gain over the strongest rival of at least 0" in done.stdout
    assert not done.stderr


@pytest.fixture(scope="module")
def trained_less(project, tmp_path_factory) -> Project:
    """The tiny project after an experiment, `less`, that trains too little."""
    copied = Project(shutil.copytree(project.folder, tmp_path_factory.mktemp("less") / "project"))
    copied.run("dvc", "exp", "run", "--name", "less", "-S", "lora.r=1", "-S", "train.epochs=1", "-S", "train.lr=1e-05")
    return copied


def test_experiments_are_shown_by_the_parameter_that_tells_them_apart(trained_less):
    parameters = json.loads((trained_less.folder / "metrics/train.json").read_text())["trainable_parameters"]
    (row,) = trained_less.call("experiments", "le", "--by", "lora.r").stdout.splitlines()[2:]
    assert row.startswith("| 1 | 1 |")
    assert row.endswith(f"| {parameters:,} |")
    for arguments, expected in (
        (["more"], "whose names start with 'more', found none"),
        (["--by", "lora.rank"], "expected a parameter of params.yaml, found lora.rank"),
    ):
        done = trained_less.call("experiments", *arguments, check=False)
        assert done.returncode == 1
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_pull_requests_job_tells_what_changed_between_two_commits(trained_less):
    trained_less.commit("Train less")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, trained_less.folder)
    (trained_less.folder / ".venv").mkdir()
    (trained_less.folder / ".venv/installed").touch()
    done = trained_less.run("make", "report", "REV=HEAD~1", check=False)
    assert done.returncode == 2, done.stderr  # the gate fails
    told = re.sub(" +", " ", (trained_less.folder / "report.md").read_text())
    assert "**No evidence of a gain**" in told
    assert "### Params changed since HEAD~1" in told
    assert "| params.yaml | lora.r | 8 " in told
    assert "| metrics/evaluate.json | accuracy " in told
    assert "expected a drop in accuracy of at most 0.02" in told


def test_a_revision_without_metrics_gives_all_as_new_and_one_that_does_not_exist_an_error(copied):
    tree = copied.run("git", "mktree", input="").stdout.strip()
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    empty = copied.run("git", *identity, "commit-tree", "-m", "Start", tree).stdout.strip()
    assert "| metrics/evaluate.json | accuracy " in re.sub(" +", " ", copied.call("report", "--rev", empty).stdout)
    done = copied.call("report", "--rev", "nowhere", check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
