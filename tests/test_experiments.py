"""Experiments: grouped, averaged and drawn."""

import sys

import pandas as pd
import pytest
from reporting.rendered import HOSTILE, TAGS, Rendered

from stages import experiments
from stages.common import paths
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.reporting.history import Experiment
from stages.reporting.wording import METRICS

ACCURACY, MAE = METRICS["accuracy"], METRICS["mae"]


def runs(**columns: list) -> pd.DataFrame:
    count = len(columns["value"])
    given = {"linear_probe": 0.8, "tuned": 0.85, "low": 0.65, "high": 0.75, "trainable": 9}
    return pd.DataFrame({name: [value] * count for name, value in given.items()} | columns)


def test_runs_of_one_value_are_averaged_and_their_spread_is_given():
    groups = runs(value=[100, 300, 300], tuned=[0.7, 0.8, 0.9], gain=[0.0, 0.1, 0.2]).groupby("value")
    assert experiments.comparison(groups, "data.limit.train", ACCURACY).splitlines() == [
        "| `data.limit.train` | runs | linear_probe | tuned | gain, points | trained parameters |",
        "|---|---:|---:|---:|---:|---:|",
        "| 100 | 1 | 80.0 % | 70.0 % (65.0 to 75.0) | +0.0 | 9 |",
        "| 300 | 2 | 80.0 % ± 0.0 | 85.0 % ± 7.1 | +15.0 ± 7.1 | 9 |",
    ]


def test_a_model_that_only_some_runs_have_is_averaged_over_those_and_one_that_none_has_is_a_dash():
    lacking = [0.5, float("nan"), float("nan")]
    groups = runs(value=[1, 1, 2], linear_probe=lacking, gain=[0.1, 0.2, 0.3]).groupby("value")
    lines = experiments.comparison(groups, "lora.r", ACCURACY).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["50.0 %", "—"]


def test_runs_of_one_value_that_train_different_numbers_of_parameters_have_them_all_in_their_range():
    groups = runs(value=[1, 1, 1, 2], trainable=[3000, 1000, 2000, 9], gain=[0.1] * 4).groupby("value")
    lines = experiments.comparison(groups, "data.seed", ACCURACY).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["1,000 to 3,000 |", "9 |"]


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.02, 0.03, 0.025], "exceeds twice its standard deviation (no test); 3 of 3"),
        ([0.04, -0.01], "does not exceed twice"),
    ],
)
def test_a_gain_is_held_against_the_spread_between_runs(gains, said):
    (line,) = experiments.spread_sentences(runs(value=["all"] * len(gains), gain=gains).groupby("value"), ACCURACY)
    assert said in line


def test_a_single_run_has_no_spread():
    assert not list(experiments.spread_sentences(runs(value=["all"], gain=[0.1]).groupby("value"), ACCURACY))


@pytest.mark.parametrize("values", [[100, 3000], ["lora", "$\\broken{$ \U0001f600"]])
def test_numbers_and_names_can_both_be_drawn(values):
    groups = runs(value=values, gain=[0.0, 0.1]).groupby("value")
    image = experiments.drawing(groups, "some.parameter", ACCURACY)
    assert image.startswith(b"\x89PNG")
    assert experiments.drawing(groups, "some.parameter", ACCURACY) == image


@pytest.mark.parametrize("name", HOSTILE[:5])
def test_what_an_experiment_or_a_value_is_called_is_no_markup(name):
    groups = runs(value=[name] * 2, gain=[0.0, 0.1]).groupby("value")
    sentences = experiments.spread_sentences(groups, ACCURACY)
    page = Rendered("\n\n".join([experiments.comparison(groups, name, ACCURACY), *sentences]))
    assert page.code == [name] * 3
    assert set(page.tags) <= TAGS


def test_experiments_are_compared_in_the_units_of_the_numbers():
    groups = pd.DataFrame(
        {"value": "all", "tuned": [2.5, 2.7], "gain": [0.5, 0.3], "low": 2.0, "high": 3.0, "trainable": 9}
    ).groupby("value")
    assert experiments.comparison(groups, None, MAE).splitlines() == [
        "| experiments | runs | tuned | gain | trained parameters |",
        "|---|---:|---:|---:|---:|",
        "| `all` | 2 | 2.6 ± 0.1414 | +0.4 ± 0.1414 | 9 |",
    ]
    (line,) = experiments.spread_sentences(groups, MAE)
    assert "the gain over the strongest rival, +0.4 ± 0.1414, exceeds twice its standard deviation (no test)" in line
    assert experiments.drawing(groups, "some.parameter", MAE).startswith(b"\x89PNG")


def experiment(
    name: str, *, problem: str = "single_label", rank: object = 8, main: str = "accuracy", evaluated: bool = True
) -> Experiment:
    """A finished experiment."""
    tuned = {main: 0.9, "interval": {main: {"low": 0.8, "high": 1.0}}, "gain": {"strongest_rival": 0.1}}
    metrics = {
        str(paths.BASELINE_METRICS): {"majority": {main: 0.5}, "linear_probe": {main: 0.8}},
        str(paths.TRAIN_METRICS): {"main": main, "trainable_parameters": 9},
        str(paths.EVALUATE_METRICS): tuned,
    }
    params = {"data": {"problem": problem}, "lora": {"r": rank}}
    return Experiment(name=name, params=params, metrics=metrics, evaluated=evaluated)


def test_evaluated_experiments_on_the_problem_are_grouped_by_the_parameter(monkeypatch):
    found = [
        experiment("a", rank=4),
        experiment("b", rank=4),
        experiment("c", rank=16),
        experiment("other", problem="regression"),
        experiment("trained", evaluated=False),
    ]
    monkeypatch.setattr(experiments, "finished", lambda name: iter(found))
    by_rank, main = experiments.grouped("", "lora.r", PROBLEMS["single_label"])
    assert main == "accuracy"
    assert by_rank.size().to_dict() == {4: 2, 16: 1}
    assert by_rank.first().loc[4].to_dict() == {
        "linear_probe": 0.8,
        "tuned": 0.9,
        "low": 0.8,
        "high": 1.0,
        "gain": 0.1,
        "trainable": 9,
    }
    assert list(experiments.grouped("", "name", PROBLEMS["single_label"])[0].groups) == ["a", "b", "c"]
    assert experiments.grouped("", None, PROBLEMS["single_label"])[0].size().to_dict() == {"all": 3}
    with pytest.raises(PipelineError, match="whose names start with 'x', found none"):
        experiments.grouped("x", None, PROBLEMS["multi_label"])


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([100, None, 3000, None], {"100": 1, "3000": 1, "null": 2}),
        ([1e-5, 0.00001, 3e-4], {1e-5: 2, 3e-4: 1}),
        ([10, 9, True, False, True], {"9": 1, "10": 1, "false": 1, "true": 2}),
        ([True, False], {"false": 1, "true": 1}),
        ([["q", "k"], ["q"], ["q", "k"]], {'["q", "k"]': 2, '["q"]': 1}),
        ([{"a": 1}, None], {"null": 1, '{"a": 1}': 1}),
        (["null", None, "4", 4], {"4": 1, '"4"': 1, '"null"': 1, "null": 1}),
        ([None, None], {"null": 2}),
        (["linear", "1 a"], {"1 a": 1, "linear": 1}),
    ],
)
def test_every_run_is_in_the_group_of_its_value_whatever_that_is(monkeypatch, values, groups):
    found = [experiment(f"e{number}", rank=value) for number, value in enumerate(values)]
    monkeypatch.setattr(experiments, "finished", lambda name: iter(found))
    by_rank, main = experiments.grouped("", "lora.r", PROBLEMS["single_label"])
    assert by_rank.size().to_dict() == groups
    assert list(by_rank.size().index) == list(groups)
    assert len(experiments.comparison(by_rank, "lora.r", METRICS[main]).splitlines()) == 2 + len(groups)
    assert experiments.drawing(by_rank, "lora.r", METRICS[main]).startswith(b"\x89PNG")


def test_a_key_that_some_runs_lack_is_null_there_and_one_that_all_lack_is_refused(monkeypatch):
    found = [experiment("a", rank={"x": 1}), experiment("b", rank=None)]
    monkeypatch.setattr(experiments, "finished", lambda name: iter(found))
    assert experiments.grouped("", "lora.r.x", PROBLEMS["single_label"])[0].size().to_dict() == {"1": 1, "null": 1}
    with pytest.raises(PipelineError, match="expected a parameter that an experiment has, found"):
        experiments.grouped("", "lora.r.y", PROBLEMS["single_label"])


def test_runs_that_are_left_out_are_named(monkeypatch, capsys):
    found = [experiment("a"), experiment("b", evaluated=False), experiment("c", problem="regression")]
    monkeypatch.setattr(experiments, "finished", lambda name: iter(found))
    assert experiments.grouped("", None, PROBLEMS["single_label"])[0].size().to_dict() == {"all": 1}
    assert capsys.readouterr().err == "left out, not evaluated or of another data.problem than single_label: b, c\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "lora"], "found the section lora; it has lora.top_layers, "),
        (["--by", "lora.alhpa"], "found lora.alhpa; did you mean 'lora.alpha'"),
        (["--by", "lora.r", "--plot", "metrics/summary.png"], "where the pipeline has metrics/summary.png"),
    ],
)
def test_what_the_command_line_gets_wrong_is_said_before_dvc_is_asked(monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
    with pytest.raises(PipelineError, match=message):
        experiments.arguments()


def test_experiments_are_compared_by_the_main_score_that_they_share(monkeypatch):
    found = [experiment("f-1", main="f1_macro"), experiment("f-2", main="f1_macro"), experiment("a")]
    monkeypatch.setattr(experiments, "finished", lambda name: (one for one in found if one.name.startswith(name)))
    groups, main = experiments.grouped("f", None, PROBLEMS["single_label"])
    assert main == "f1_macro"
    assert (
        experiments.comparison(groups, None, METRICS[main]).splitlines()[2].startswith("| `all` | 2 | 80.0 % ± 0.0 |")
    )
    with pytest.raises(PipelineError, match="with the same main score, found f1_macro, accuracy; give NAME"):
        experiments.grouped("", None, PROBLEMS["single_label"])
