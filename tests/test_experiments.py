"""Experiments: grouped, averaged and drawn."""

import pandas as pd
import pytest

from stages import experiments


def runs(**columns: list) -> pd.DataFrame:
    count = len(columns["value"])
    given = {"linear_probe": 0.8, "tuned": 0.85, "low": 0.65, "high": 0.75, "trainable": 9}
    return pd.DataFrame({name: [value] * count for name, value in given.items()} | columns)


def test_runs_of_one_value_are_averaged_and_their_spread_is_given():
    groups = runs(value=[100, 300, 300], tuned=[0.7, 0.8, 0.9], gain=[0.0, 0.1, 0.2]).groupby("value")
    assert experiments.comparison(groups, "data.limit.train").splitlines() == [
        "| data.limit.train | runs | linear_probe | tuned | gain, points | trained parameters |",
        "|---|---:|---:|---:|---:|---:|",
        "| 100 | 1 | 80.0 % | 70.0 % (65.0 to 75.0) | +0.0 | 9 |",
        "| 300 | 2 | 80.0 % ± 0.0 | 85.0 % ± 7.1 | +15.0 ± 7.1 | 9 |",
    ]


@pytest.mark.parametrize(
    ("gains", "said"),
    [([0.02, 0.03, 0.025], "exceeds twice its standard deviation; 3 of 3"), ([0.04, -0.01], "does not exceed twice")],
)
def test_a_gain_is_held_against_the_spread_between_runs(gains, said):
    (told,) = experiments.spreads(runs(value=["all"] * len(gains), gain=gains).groupby("value"))
    assert said in told


def test_a_single_run_has_no_spread():
    assert not list(experiments.spreads(runs(value=["all"], gain=[0.1]).groupby("value")))


@pytest.mark.parametrize("values", [[100, 3000], ["lora", "ia3"]])
def test_numbers_and_names_can_both_be_drawn(values):
    image = experiments.drawing(runs(value=values, gain=[0.0, 0.1]).groupby("value"), "some.parameter")
    assert image.startswith(b"\x89PNG")
