"""The search: trials are experiments, scored on the validation rows."""

import io
import re
import shutil
import sys

import optuna
import pandas as pd
import pytest
from conftest import Project, tiny_params
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ruamel.yaml import YAML

from stages import search
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params
from stages.reporting.history import Experiment

PARAMS = Params.model_validate(tiny_params())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora.r=4,8", ("lora.r", CategoricalDistribution([4, 8]))),
        ("lora.r=2..32", ("lora.r", IntDistribution(2, 32, log=True))),
        ("train.lr=1e-4..3e-3", ("train.lr", FloatDistribution(1e-4, 3e-3, log=True))),
        ("train.scheduler=linear,cosine", ("train.scheduler", CategoricalDistribution(["linear", "cosine"]))),
        ("train.balance=null,weights", ("train.balance", CategoricalDistribution([None, "weights"]))),
    ],
)
def test_a_parameter_is_tried_at_values_or_over_a_range(text, expected):
    assert search.distribution(text, PARAMS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora.rank=4,8", "expected a parameter of params.yaml, found lora.rank; did you mean 'lora.r"),
        ("lr=1e-4..1e-2", "expected a parameter of params.yaml, found lr; did you mean 'train.lr'?"),
        ("lora=1,2", "expected a parameter of params.yaml, found the section lora; it has lora.top_layers, "),
        ("data.limit=1,2", "found the section data.limit; it has data.limit.train, "),
        ("=1,2", "expected a parameter of params.yaml, found nothing; its sections: seed, "),
        ("data.classes.good=1,2", "expected a parameter of params.yaml, found data.classes.good"),
        ("lora.r", "lora.r: expected lora.r=a,b,c or lora.r=low..high, found lora.r"),
        ("lora.r=", "lora.r: expected lora.r=a,b,c or lora.r=low..high, found lora.r="),
        ("lora.r=[4", "lora.r: expected lora.r=a,b,c or lora.r=low..high, found lora.r=[4"),
        ("lora.r=8..4", "lora.r: expected low..high with 0 < low < high, found 8..4"),
        ("train.scheduler=linear..cosine", "expected low..high with 0 < low < high, found linear..cosine"),
        ("train.lr=a..b", "train.lr: expected number or 'auto', found 'a'"),
        ("lora.r=4,0", "lora.r: expected greater than or equal to 1, found 0"),
        ("peft.method=lora,loar", "found 'loar'"),
        ("peft.options={bias: all}", "peft.options: expected numbers, texts or lists, found {'bias': 'all'}; set it"),
    ],
)
def test_a_wrong_space_is_one_clear_line(text, message):
    with pytest.raises(PipelineError, match=f".*{re.escape(message)}"):
        search.distribution(text, PARAMS)


def test_a_wrong_space_starts_no_experiment(tmp_path, monkeypatch):
    YAML().dump(tiny_params(), tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search.history, "finished", lambda name: pytest.fail("asked DVC"))
    for space, message in (
        (["train.lr=1e-4..1e-2", "lora"], "found the section lora"),
        (["lora.r=4,8", "lora.r=16"], "lora.r: expected it once"),
        (["lora.r=4,8", "--plot", "params.yaml"], "--plot: expected a file ending in .png, found params.yaml"),
    ):
        monkeypatch.setattr(sys, "argv", ["search", *space])
        with pytest.raises(PipelineError, match=message):
            search.main()


@pytest.mark.parametrize(
    ("select_by", "main", "title", "first"),
    [
        ("loss", "auto", "loss", "a"),
        ("loss", "auto", "log_loss", "a"),
        ("main", "auto", "accuracy", "b"),
        ("main", "f1_macro", "f1_macro", "b"),
        ("main", "log_loss", "log_loss", "a"),
    ],
)
def test_the_best_trial_comes_first(select_by, main, title, first):
    sections = {"train": {"select_by": select_by}, "evaluate": {"main": main}}
    params = Params.model_validate(tiny_params(**sections))
    study = optuna.create_study(direction=search.direction(params))
    for name, rank, value in (("a", 4, 0.3), ("b", 8, 0.5)):
        uncalibrated = {} if title == "loss" else {"loss": 1 - value}  # decides nothing
        scores = {title: value} | uncalibrated
        done = trained(name, {"lora": {"r": rank}} | sections, scores, main=title)
        search.add_earlier_trial(study, {"lora.r": CategoricalDistribution([4, 8])}, done, params)
    text = search.best(study)
    assert text.startswith(f"| experiment | validation {title} |")
    assert text.splitlines()[2].startswith(f"| `{first}` |")
    assert text.endswith(f"dvc exp apply {first} && dvc repro")
    with pytest.raises(PipelineError, match="found one from a different search space"):
        search.add_earlier_trial(study, {"lora.r": CategoricalDistribution([16])}, done, params)


def test_trials_that_are_scored_differently_are_not_compared():
    space, study = {"data.seed": CategoricalDistribution([1, 2])}, search.new_study("minimize")
    for name, seed, key in (("a", 1, "log_loss"), ("b", 2, "weighted_log_loss")):
        done = trained(name, {"data": {"seed": seed}}, {key: 0.1})
        if name == "a":
            search.add_earlier_trial(study, space, done, PARAMS)
    with pytest.raises(
        PipelineError, match=r"^b: expected .* scored by log_loss, as a is, found .* weighted_log_loss; s"
    ):
        search.add_earlier_trial(study, space, done, PARAMS)
    with pytest.raises(PipelineError, match=r"^evaluate\.main: expected one score for all trials"):
        search.search_space(["evaluate.main=accuracy,f1_macro"], PARAMS)


def test_numbers_are_compared_by_their_error_whose_unit_is_that_of_no_run():
    done = trained("a", {}, {"mae": 0.7, "loss": 0.2}, main="mae")
    assert (search.score_key(done, "loss"), search.score(done, "loss")) == ("mae", 0.7)


def trained(name: str, params: dict, validation: dict[str, float], main: str = "accuracy") -> Experiment:
    """An experiment that ran up to `train`; params: sections of params.yaml, on top of the tiny run's."""
    metrics = {str(paths.TRAIN_METRICS): {"main": main, "validation": validation}}
    return Experiment(name=name, params=tiny_params(**params), metrics=metrics, evaluated=False)


def test_a_trial_with_other_parameters_is_not_one_of_the_search():
    space, study = {"lora.r": CategoricalDistribution([4, 8])}, search.new_study("minimize")
    same = trained("a", {"lora": {"r": 4}, "compute": {"processes": 2}}, {"loss": 0.1})
    search.add_earlier_trial(study, space, same, PARAMS)
    assert len(study.trials) == 1
    limit = {"train": 9, "validation": 12, "test": 24}
    other = trained("b", {"lora": {"r": 4}, "data": {"limit": limit}}, {"loss": 0.1})
    with pytest.raises(PipelineError, match=r"^b: expected .* found one with data\.limit\.train 9 instead of 60; set"):
        search.add_earlier_trial(study, space, other, PARAMS)
    ready = trained("c", {"lora": {"r": 4}, "data": {"file": {"train": "a.csv", "test": "b.csv"}}}, {"loss": 0.1})
    with pytest.raises(PipelineError, match=r"^c: expected .* found one with data\.file None instead of "):
        search.add_earlier_trial(study, space, ready, PARAMS)


def test_another_commit_that_is_checked_out_during_a_trial_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(search.history, "run_experiment", lambda name, changes, target: True)
    monkeypatch.setattr(search.history, "finished", lambda name: iter(()))
    study = search.new_study("minimize")
    with pytest.raises(PipelineError, match=r"^a: expected the search's commit to stay checked out, found another"):
        search.run_trial(study, study.ask({"train.lr": FloatDistribution(1e-4, 1e-2)}), "a", "loss")


def test_a_second_call_tries_other_values_than_the_first(tmp_path, monkeypatch):
    YAML().dump(tiny_params(), tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    done = []

    def run_experiment(name, changes, target):
        lr = changes["train.lr"]
        done.append(trained(name, {"train": {"lr": lr}}, {"loss": lr}))
        return True

    def finished(name):
        return iter([experiment for experiment in done if experiment.name.startswith(name)])

    monkeypatch.setattr(search.history, "run_experiment", run_experiment)
    monkeypatch.setattr(search.history, "finished", finished)
    for trials in ("4", "8"):
        monkeypatch.setattr(sys, "argv", ["search", "--trials", trials, "train.lr=1e-4..1e-2"])
        search.main()
    assert [experiment.name for experiment in done] == [f"search-{number}" for number in range(8)]
    assert len({experiment.params["train"]["lr"] for experiment in done}) == 8


def test_trials_that_fail_are_left_out_and_if_all_do_the_search_says_so(tmp_path, monkeypatch):
    YAML().dump(tiny_params(), tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search.history, "run_experiment", lambda name, changes, target: False)
    monkeypatch.setattr(search.history, "finished", lambda name: iter(()))
    monkeypatch.setattr(sys, "argv", ["search", "--trials", "2", "train.lr=1e-4..1e-2"])
    with pytest.raises(PipelineError, match="expected at least one successful trial, found 2 that failed"):
        search.main()


def test_trials_are_experiments_that_a_second_call_takes_up_and_that_leave_the_test_rows_alone(project, tmp_path):
    copied = Project(shutil.copytree(project.folder, tmp_path / "project"))
    before = copied.files("metrics"), copied.run("git", "status", "--short").stdout
    arguments = ("search", "--trials", "1", "lora.r=2,4", "train.lr=1e-3..1e-2", "train.balance=null")
    done = copied.stage(*arguments)
    assert "Running stage 'train'" in done.stderr
    assert "Running stage 'evaluate'" not in done.stderr
    assert (copied.files("metrics"), copied.run("git", "status", "--short").stdout) == before
    again = copied.call(*arguments, "--plot", "trials.png").stdout
    assert "Running stage" not in again
    assert again.splitlines()[2].startswith("| `search-0` |")
    assert (copied.folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "found none" in copied.call("experiments", "search", check=False).stderr


@pytest.mark.long
def test_a_grid_stops_at_train_and_is_ranked_by_the_validation_loss(project, tmp_path):
    copied = Project(shutil.copytree(project.folder, tmp_path / "project"))
    before = copied.files("metrics")
    grid = ("-S", "lora.r=2,4", "-S", "train.lr=1e-3,1e-2")
    copied.run("dvc", "exp", "run", "--queue", "--name", "grid", *grid, "train")
    copied.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
    assert copied.files("metrics") == before
    loss = "metrics/validation.json:validation.loss"
    table = pd.read_csv(io.StringIO(copied.run("dvc", "exp", "show", "--csv", "--sort-by", loss).stdout))
    trials = table[table["Experiment"].astype(str).str.startswith("grid")]
    assert len(trials) == 4
    assert trials["validation.loss"].is_monotonic_increasing
    runs = copied.run("dvc", "queue", "logs", "grid-1").stdout
    assert "Running stage 'train'" in runs
    assert "Running stage 'evaluate'" not in runs
