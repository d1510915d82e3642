"""The paired permutation test: by its definition, and as SciPy has it."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from stages.evidence import intervals, permutation, significance
from stages.problems.kinds import PROBLEMS

SINGLE, MULTI = PROBLEMS["single_label"], PROBLEMS["multi_label"]
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]) / 8
"""Inches by which crossed plants of Zea mays grew taller than the self-fertilized ones beside them (Darwin 1876)."""


def models(rows, classes, seed, skill=(1.5, 1.0)):
    """Labels, and the probabilities of two models."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(classes, size=rows - classes)])
    truth = np.eye(classes)[labels]
    return labels, *(softmax(generator.normal(size=truth.shape) + much * truth, axis=1) for much in skill)


def ranked(predictions):
    """The ranks of each column."""
    return stats.rankdata(predictions, axis=0)


def test_the_test_of_a_mean_is_fishers_on_darwins_plants():
    """Fisher 1935, The Design of Experiments, section 21: 1,726 of the 32,768 sums are as far from 0."""
    mae = PROBLEMS["regression"].main_scores["mae"]
    found = permutation.p_value(mae, labels=np.zeros(15), one=20 + DARWIN, other=np.full(15, 20.0))
    assert found == pytest.approx(1726 / 32768, abs=0.005)


@pytest.mark.parametrize("key", SINGLE.main_scores)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_difference_after_swaps_is_that_of_the_swapped_predictions(key, classes):
    main = SINGLE.main_scores[key]
    labels, one, other = models(12, classes, seed=1)
    if key == "roc_auc":
        one, other = ranked(one), ranked(other)
    differences, rows = permutation.after_swaps(main, labels, one, other)
    moved = np.array([differences(swap[None])[0] for swap in np.eye(rows, dtype=np.float32)])
    expected = []
    for row in range(12):
        first, second = one.copy(), other.copy()
        first[row], second[row] = other[row], one[row]
        expected.append(main.value(labels, first) - main.value(labels, second))
    still = main.value(labels, one) - main.value(labels, other)
    assert differences(np.zeros((1, rows), dtype=np.float32)) == pytest.approx(still)
    changed = [value for value in expected if abs(value - still) > 1e-9]
    assert sorted(value for value in moved if abs(value - still) > 1e-9) == pytest.approx(sorted(changed))


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_the_p_value_is_that_of_all_swaps(key):
    main = SINGLE.main_scores[key]
    labels, one, other = models(11, 2, seed=3, skill=(3.0, 0.0))
    found = permutation.p_value(main, labels=labels, one=one, other=other)
    if key == "roc_auc":
        one, other = ranked(one), ranked(other)
    every = []
    for swaps in itertools.product([False, True], repeat=11):
        swap = np.array(swaps)[:, None]
        first, second = np.where(swap, other, one), np.where(swap, one, other)
        every.append(abs(main.value(labels, first) - main.value(labels, second)))
    expected = np.mean(np.array(every) >= every[0] - 1e-12)
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("key", "classes"), [("f1_macro", 3), ("mcc", 2), ("log_loss", 3)])
def test_the_p_value_is_scipys(key, classes):
    main = SINGLE.main_scores[key]
    labels, one, other = models(40, classes, seed=6, skill=(1.6, 1.0))

    def statistic(first, second):  # the rows' indices, those of the other model after them
        both = np.concatenate([one, other])
        return main.value(labels, both[first.astype(int)]) - main.value(labels, both[second.astype(int)])

    options = {"permutation_type": "samples", "vectorized": False, "n_resamples": 2000, "random_state": 0}
    scipys = stats.permutation_test((np.arange(40), np.arange(40) + 40), statistic, **options)
    found = permutation.p_value(main, labels=labels, one=one, other=other)
    assert 0.01 < found < 0.9
    assert found == pytest.approx(scipys.pvalue, abs=0.04)


@pytest.mark.parametrize("key", ["f1_macro", "roc_auc", "log_loss"])
def test_several_labels_are_swapped_together(key):
    main, generator = MULTI.main_scores[key], np.random.default_rng(0)
    has = (generator.random((10, 3)) < 0.5).astype(np.float32)
    one, other = (MULTI.decide(generator.random(has.shape), []) for _ in range(2))
    differences, rows = permutation.after_swaps(main, has, one, other)
    still = main.value(has, one) - main.value(has, other)
    assert differences(np.zeros((1, rows), dtype=np.float32)) == pytest.approx(still)
    assert differences(np.ones((1, rows), dtype=np.float32)) == pytest.approx(-still)


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_equal_models_prove_nothing_and_a_clear_gain_has_the_lowest_p_value(key):
    main = SINGLE.main_scores[key]
    labels, one, other = models(300, 3, seed=0, skill=(4.0, 0.0))
    assert permutation.p_value(main, labels=labels, one=one, other=one) == 1
    assert permutation.p_value(main, labels=labels, one=one, other=other) == 1e-4


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_without_a_difference_few_p_values_are_low(key, monkeypatch):
    monkeypatch.setattr(permutation, "PERMUTATIONS", 199)
    main = SINGLE.main_scores[key]
    cases = (models(60, 2, seed, skill=(1.0, 1.0)) for seed in range(200))
    low = [permutation.p_value(main, labels=labels, one=one, other=other) < 0.05 for labels, one, other in cases]
    assert sum(low) < 20  # 10 are expected; 20 or more of 200 have a probability of 0.003


def test_the_test_of_a_ranking_does_not_depend_on_the_scale_of_the_probabilities():
    main, (labels, one, other) = SINGLE.main_scores["roc_auc"], models(80, 2, seed=2)
    flat = 0.5 + (other - 0.5) / 1000
    found = [permutation.p_value(main, labels=labels, one=one, other=values) for values in (other, flat)]
    assert found[0] == found[1] < 1


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_a_gain_is_tested_as_its_score_is_composed(key, monkeypatch):
    main = SINGLE.main_scores[key]
    labels, tuned, rival = models(80, 3, seed=4)
    called = []
    monkeypatch.setattr(permutation, "p_value", lambda main, **given: called.append(main.key) or 0.25)
    values = significance.gain(main, labels=labels, tuned=tuned, rival=rival)
    assert called == ([] if key == "accuracy" else [key])
    assert values["gain"] == pytest.approx(main.sign * (main.value(labels, tuned) - main.value(labels, rival)))
    assert values["gain_low"] < values["gain"] < values["gain_high"]
    interval = intervals.interval(main, labels=labels, predictions=tuned)
    assert interval["low"] < main.value(labels, tuned) < interval["high"]


@pytest.mark.parametrize("unit", [1e-15, 1e9])
def test_the_p_value_of_errors_does_not_depend_on_their_unit(unit):
    labels, (one, other) = np.zeros(12), np.random.default_rng(0).normal((0.0, 0.7), size=(12, 2)).round(1).T
    main = PROBLEMS["regression"].main_scores["mae"]
    expected = permutation.p_value(main, labels=labels, one=one, other=other)
    assert 0.001 < expected < 1
    assert permutation.p_value(main, labels=labels, one=unit * one, other=unit * other) == expected
