"""What reruns when a parameter changes, what stays, and what two commits show: DVC on a tiny pipeline."""

import json
import re

import pytest


def reran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_a_second_repro_runs_nothing(project):
    done = project.dvc("repro")
    assert reran(done.stdout) == []
    assert "Data and pipelines are up to date." in done.stdout


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        pytest.param("evaluate.curve_points=20", ["evaluate", "report"], marks=pytest.mark.long),
        pytest.param("evaluate.main=mcc", ["baseline", "audit", "train", "evaluate", "report"], marks=pytest.mark.long),
        ("gate.min_gain=0.1", ["report"]),
        # too few test rows for a slice, so the report stays
        pytest.param("data.slices=[rating]", ["prepare", "evaluate"], marks=pytest.mark.long),
        pytest.param("encode.max_gb=5", ["encode"], marks=pytest.mark.long),
        pytest.param(
            "precision=bfloat16", ["encode", "baseline", "audit", "train", "evaluate", "report"], marks=pytest.mark.long
        ),
        pytest.param(
            "lora.top_layers=1", ["encode", "baseline", "train", "evaluate", "report"], marks=pytest.mark.long
        ),
        pytest.param(
            "data.limit.train=40",
            ["prepare", "encode", "baseline", "audit", "train", "evaluate", "report"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_changed_parameter_reruns_what_it_affects_and_nothing_else(copied, change, stages):
    done = copied.dvc("exp", "run", "-S", change)
    assert sorted(reran(done.stdout)) == sorted(stages)


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("stages/params.py", []),
        pytest.param("stages/reporting/figure.py", ["report"], marks=pytest.mark.long),
        pytest.param("stages/reporting/params.py", ["report"], marks=pytest.mark.long),
        pytest.param("stages/evidence/intervals.py", ["baseline", "audit", "evaluate"], marks=pytest.mark.long),
        ("stages/training/trainer.py", ["train"]),
    ],
)
def test_a_changed_module_reruns_the_stages_that_reach_it_and_what_they_make_stays_equal(copied, file, stages):
    path = copied.folder / file
    path.write_text(path.read_text() + "\n# Changed.\n")
    assert reran(copied.dvc("repro").stdout) == stages


def test_a_changed_word_of_the_report_is_shown_and_reruns_the_report_alone(copied):
    path = copied.folder / "stages/reporting/verdict.py"
    words = path.read_text()
    assert words.count(" minus ") == 1
    path.write_text(words.replace(" minus ", " less "))
    assert reran(copied.dvc("repro").stdout) == ["report"]
    assert "tuned less the strongest rival" in (copied.folder / "metrics/report.md").read_text()


def test_a_smaller_test_split_encodes_its_rows_alone_and_does_not_retrain(copied):
    adapter = copied.files("models/adapter")
    done = copied.dvc("exp", "run", "-S", "data.limit.test=20")
    assert reran(done.stdout) == ["prepare", "encode", "baseline", "audit", "evaluate", "report"]
    computed = dict(re.findall(r"(\w+) (\d+) of \d+", done.stderr.split("rows computed")[1].splitlines()[0]))
    assert computed["train"] == computed["validation"] == "0"
    assert int(computed["test"]) < 20
    assert copied.files("models/adapter") == adapter
    assert len((copied.folder / "data/predictions/test.csv").read_text().splitlines()) == 21


def test_a_new_preset_reruns_prepare_alone(copied):
    preset = copied.folder / "presets/tickets.yaml"
    preset.write_text("data: {source: path:data/raw/tickets.csv}\n")
    assert reran(copied.dvc("repro").stdout) == ["prepare"]
    preset.unlink()


def test_a_changed_rank_reruns_train_and_evaluate_only_and_the_diff_of_two_commits_shows_it(copied):
    done = copied.dvc("exp", "run", "-S", "lora.r=1", "-S", "train.lr=1e-05")
    assert reran(done.stdout) == ["train", "evaluate", "report"]
    copied.commit("Lower the rank")
    assert reran(copied.dvc("repro").stdout) == []
    diff = json.loads(copied.run("dvc", "metrics", "diff", "HEAD~1", "--all", "--json").stdout)
    assert set(diff) == {"metrics/headline.json", "metrics/validation.json"}
    assert len(diff["metrics/headline.json"]) == 12
    tuned = diff["metrics/headline.json"]["tuned.accuracy"]
    assert tuned["new"] - tuned["old"] == pytest.approx(tuned["diff"])
    assert tuned["new"] < tuned["old"]
    assert {"new", "old"} <= set(diff["metrics/headline.json"]["before_tuning.accuracy"])
    copied.run("git", "reset", "--hard", "--quiet", "HEAD~1")


def test_after_a_failed_training_the_last_good_model_answers_and_a_command_brings_it_back_with_its_metrics(copied):
    before = {folder: copied.files(folder) for folder in ("models", "metrics")}
    answer = copied.call("predict", "Dull.").stdout
    failed = copied.dvc("exp", "run", "-S", "lora.target_modules=[query]", "-S", "data.limit.test=20", check=False)
    assert failed.returncode
    assert not (copied.folder / "models/adapter").exists()
    assert copied.call("predict", "Dull.").stdout == answer
    copied.run("git", "checkout", "params.yaml")
    ran = copied.dvc("repro").stdout
    assert "Running stage" not in ran
    assert {folder: copied.files(folder) for folder in before} == before
    assert not copied.run("git", "status", "--porcelain").stdout
