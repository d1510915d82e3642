"""Scores of numbers: by their definitions."""

import numpy as np
import pytest
from scipy.stats import rankdata
from scoring import drawn

from stages import baseline
from stages.evidence import intervals, significance
from stages.scoring.kinds import SCORED
from stages.scoring.params import Baseline
from stages.scoring.scored import score

REGRESSION = SCORED["regression"]
MAE = REGRESSION.main_scores["mae"]


@pytest.mark.parametrize("seed", range(6))
def test_every_score_agrees_with_its_definition_on_random_cases(seed):
    true, found = drawn.of_numbers(seed)
    error = found - true.astype(float)

    def correlation(one, other):
        one, other = one - one.mean(), other - other.mean()
        return one @ other / np.sqrt((one @ one) * (other @ other))

    expected = {
        "mae": np.abs(error).mean(),
        "mse": (error**2).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "r2": 1 - (error**2).sum() / np.square(true - true.astype(float).mean()).sum(),
        "pearson": correlation(true.astype(float), found),
        "spearman": correlation(rankdata(true), rankdata(found)),
    }
    assert score(REGRESSION, true, found) == pytest.approx(expected, rel=1e-6)
    ends = intervals.intervals(REGRESSION, labels=true, predictions=found, resamples=200)
    assert ends.keys() == expected.keys()
    assert all(ends[name]["low"] < value < ends[name]["high"] for name, value in expected.items())


@pytest.mark.parametrize(("true", "found"), [([1, 2, 3], [5, 5, 5]), ([5, 5, 5], [1, 2, 3]), ([4], [4])])
def test_where_one_side_is_constant_the_correlations_are_0(true, found, recwarn):
    scores = REGRESSION.scores(np.array(true, dtype=np.float32), np.array(found, dtype=float))
    assert scores["pearson"] == scores["spearman"] == 0
    assert np.isfinite(list(scores.values())).all()
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(6))
def test_a_gain_is_the_rivals_error_minus_the_tuned_ones(seed):
    true, tuned = drawn.of_numbers(seed)
    rival = drawn.of_numbers(seed + 50)[1]
    values = significance.gain(MAE, labels=true, tuned=tuned, rival=rival)
    assert values["gain"] == pytest.approx(np.abs(rival - true).mean() - np.abs(tuned - true).mean())
    assert values["gain_low"] <= values["gain"] <= values["gain_high"]
    swapped = significance.gain(MAE, labels=true, tuned=rival, rival=tuned)
    assert swapped["gain"] == pytest.approx(-values["gain"])


def test_a_mean_that_a_few_rows_make_against_the_others_proves_nothing():
    true, rival = np.zeros(20), np.full(20, 1.0)
    tuned = np.full(20, 1.1)
    rival[0] = 50.0  # the mean gains by one row, the other nineteen lose
    values = significance.gain(MAE, labels=true, tuned=tuned, rival=rival)
    assert values["gain"] > 2
    assert values["p_value"] == 1


def test_of_numbers_of_which_a_few_are_very_large_a_rival_is_chosen_that_beats_the_median():
    generator = np.random.default_rng(0)
    inputs, labels = {}, {}
    for split, rows in (("train", 600), ("validation", 200), ("test", 400)):
        inputs[split] = generator.normal(size=(rows, 20))
        labels[split] = np.exp(inputs[split][:, 0] + 1.5 * generator.normal(size=rows))
    options = Baseline(batch_size=8, regularization=[0.01, 0.1], ngrams=[1])
    task = baseline.Task(problem=REGRESSION, names=[], main_score=MAE, labels=labels)
    outputs = baseline.best(task, baseline.linear_probes(task, inputs, options)).outputs
    ridge = REGRESSION.linear(0.01).fit(inputs["train"], labels["train"]).predict(inputs["test"])
    median = np.full(400, np.median(labels["train"]))
    chosen, squared, constant = (MAE.value(labels["test"], one) for one in (outputs["test"], ridge, median))
    assert chosen < constant < squared
