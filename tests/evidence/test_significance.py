"""Intervals and tests: those of published cases, and by their formulas."""

import math

import numpy as np
import pytest
from scoring import drawn

from stages.evidence import intervals, significance
from stages.scoring.kinds import SCORED
from stages.scoring.scored import score

SINGLE = SCORED["single_label"]
ACCURACY = SINGLE.main_scores["accuracy"]


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]
)
def test_the_accuracys_interval_is_that_of_published_cases(right, rows, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    answers = np.eye(2)[(np.arange(rows) >= right).astype(int)]
    interval = intervals.interval(ACCURACY, labels=np.zeros(rows, dtype=int), predictions=answers)
    assert interval == pytest.approx({"low": low, "high": high}, abs=5e-5)


def test_bootstrap_intervals_are_as_wide_as_theory_says_and_hold_the_value():
    generator = np.random.default_rng(1)
    labels = generator.integers(2, size=400)
    probabilities = SINGLE.outputs(generator.normal(size=(400, 2)) + 1.5 * np.eye(2)[labels])
    scores = score(SINGLE, labels, probabilities)
    found = intervals.intervals(SINGLE, labels=labels, predictions=probabilities, resamples=1000)
    assert found.keys() == scores.keys() - {"calibration_error"}
    assert all(ends["low"] < scores[name] < ends["high"] for name, ends in found.items())
    losses = -np.log(probabilities[np.arange(400), labels])
    width = found["log_loss"]["high"] - found["log_loss"]["low"]
    assert width == pytest.approx(2 * 1.96 * losses.std() / 20, rel=0.1)
    assert intervals.intervals(SINGLE, labels=labels, predictions=probabilities, resamples=100) == intervals.intervals(
        SINGLE, labels=labels, predictions=probabilities, resamples=100
    )


def test_a_gain_comes_with_the_exact_mcnemar_test_and_a_paired_interval():
    labels = np.zeros(100, dtype=int)
    tuned, rival = np.tile([1.0, 0.0], (100, 1)), np.tile([1.0, 0.0], (100, 1))
    rival[:8] = tuned[8:10] = [0.0, 1.0]  # tuning fixed eight rows and broke two
    values = significance.gain(ACCURACY, labels=labels, tuned=tuned, rival=rival)
    assert values["gain"] == pytest.approx(0.06)
    assert values["p_value"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    middle, error = 6 / 102, np.sqrt(11 / 102 - (6 / 102) ** 2) / np.sqrt(102)
    assert values["gain_low"] == pytest.approx(middle - 1.959964 * error)
    assert values["gain_high"] == pytest.approx(middle + 1.959964 * error)


def test_the_interval_of_a_gain_holds_it_in_19_of_20_samples_though_few_rows_differ():
    generator, held = np.random.default_rng(0), []
    for rows, better, worse in ((30, 0.03, 0.0), (100, 0.03, 0.0), (500, 0.02, 0.01)):
        drawn_rows = generator.choice([1, -1, 0], size=(1000, rows), p=[better, worse, 1 - better - worse])
        ends = np.array([significance.agresti_min(difference) for difference in drawn_rows])
        held.append(((ends[:, 0] <= better - worse) & (better - worse <= ends[:, 1])).mean())
    assert min(held) > 0.93


def test_models_that_answer_alike_may_differ_by_the_more_the_fewer_the_rows():
    same = [significance.agresti_min(np.zeros(rows)) for rows in (2, 20, 2_000)]
    assert all(low == -high for low, high in same)
    assert 0.4 < same[0][1] < 0.5 and 0.05 < same[1][1] < 0.1 and same[2][1] < 0.001
    assert significance.agresti_min(np.ones(2))[1] == 1


def test_a_mean_gain_of_0_is_rarely_significant_though_most_rows_are_better():
    mae, generator, low = SCORED["regression"].main_scores["mae"], np.random.default_rng(3), []
    for _ in range(100):
        labels, rival = np.zeros(300), np.ones(300)
        tuned = rival - np.where(generator.random(300) < 0.8, 0.1, -0.4)
        low.append(significance.gain(mae, labels=labels, tuned=tuned, rival=rival)["p_value"] < 0.05)
    assert sum(low) < 13  # 5 are expected; 13 or more of 100 have a probability of 0.002


@pytest.mark.parametrize("key", ["f1_macro", "mcc", "roc_auc", "accuracy", "log_loss"])
def test_the_interval_of_a_gain_has_0_where_the_test_finds_nothing_and_ends_where_scores_do(key):
    main, generator = SINGLE.main_scores[key], np.random.default_rng(4)
    for rows, rare in ((14, 4), (51, 1), (60, 2), (200, 4)):
        labels = (np.arange(rows) < rare).astype(int)
        tuned, rival = np.eye(2)[labels], np.tile([0.9, 0.1], (rows, 1))
        for answers in (tuned, SINGLE.outputs(generator.normal(size=(rows, 2)) + tuned)):
            for one, other in ((answers, rival), (rival, answers)):
                found = significance.gain(main, labels=labels, tuned=one, rival=other)
                assert found["gain_low"] <= 0 <= found["gain_high"] or found["p_value"] < 0.05
                assert max(-found["gain_low"], found["gain_high"]) <= {"mcc": 2, "log_loss": np.inf}.get(key, 1)


def test_a_loss_that_the_number_of_rivals_makes_insignificant_has_0_in_its_interval():
    rival = {"gain": -0.8, "gain_low": -0.9, "gain_high": -0.7, "p_value": 0.02}
    found = significance.of_strongest(ACCURACY, dict.fromkeys("abc", rival))
    assert (found["p_value"], found["gain_low"], found["gain_high"]) == (0.06, pytest.approx(-0.922, abs=0.001), 0)
    found = significance.of_strongest(ACCURACY, dict.fromkeys("ab", rival | {"gain_low": -0.99}))
    assert (found["p_value"], found["gain_low"]) == (0.04, -1)


def test_a_loss_against_the_strongest_rival_is_corrected_for_their_number_and_a_gain_is_tested_against_each():
    bag = {"gain": 0.03, "gain_low": -0.02, "gain_high": 0.08, "p_value": 0.3}
    lost = {"probe": {"gain": -0.02, "gain_low": -0.03, "gain_high": -0.01, "p_value": 0.02}, "bag": bag}
    wider = 2.241403 / 1.959964  # normal quantiles at 98.75 % and 97.5 %
    assert significance.of_strongest(ACCURACY, lost) == pytest.approx(
        {"gain": -0.02, "gain_low": -0.02 - 0.01 * wider, "gain_high": -0.02 + 0.01 * wider, "p_value": 0.04}
    )
    lost["noise"] = {"gain": 0.05, "gain_low": -0.09, "gain_high": 0.19, "p_value": 0.5}
    assert significance.of_strongest(ACCURACY, lost)["p_value"] == 0.06
    won = {"probe": {"gain": 0.02, "gain_low": 0.01, "gain_high": 0.03, "p_value": 0.02}, "bag": bag}
    assert significance.of_strongest(ACCURACY, won) == {
        "gain": 0.02,
        "gain_low": -0.02,
        "gain_high": 0.03,
        "p_value": 0.3,
    }


def test_a_gain_is_rarely_claimed_where_another_rival_than_the_apparently_strongest_is_as_good():
    """The probe makes nearly the same errors as the tuned model, and is worse; the bag is as good, by other errors."""
    generator, labels, claims = np.random.default_rng(1), np.zeros(500, dtype=int), 0
    for _ in range(300):
        right = generator.random((2, 500)) < 0.85
        probe = right[0] & (generator.random(500) > 0.012)
        answers = {name: np.eye(2)[(~one).astype(int)] for name, one in (("bag", right[1]), ("probe", probe))}
        tuned = np.eye(2)[(~right[0]).astype(int)]
        gains = {
            name: significance.gain(ACCURACY, labels=labels, tuned=tuned, rival=rival)
            for name, rival in answers.items()
        }
        found = significance.of_strongest(ACCURACY, gains)
        claims += found["gain"] > 0 and found["p_value"] < 0.05
    assert claims <= 14  # 2.5 % are 7.5; 15 or more have a probability of 0.01


def test_an_area_that_three_positive_rows_define_has_an_interval_and_a_gain():
    area, labels = SINGLE.main_scores["roc_auc"], np.arange(200) < 3
    perfect = np.column_stack([~labels, labels]).astype(float)
    guessed = np.full((200, 2), 0.5)
    interval = intervals.interval(area, labels=labels.astype(int), predictions=perfect)
    assert 0.9 < interval["low"] < interval["high"] == pytest.approx(1)
    found = significance.gain(area, labels=labels.astype(int), tuned=perfect, rival=guessed)
    assert found["gain_low"] == found["gain_high"] == 0.5


@pytest.mark.parametrize("seed", range(6))
def test_intervals_and_tests_agree_with_their_formulas_on_random_cases(seed):
    labels, probabilities = drawn.of_classes(2, seed)
    rival = drawn.of_classes(2, seed + 100)[1]
    right, other = (values.argmax(axis=1) == labels for values in (probabilities, rival))
    share, rows, z = right.mean(), len(labels), 1.959963984540054
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    expected = {"low": middle - half, "high": middle + half}
    assert intervals.interval(ACCURACY, labels=labels, predictions=probabilities) == pytest.approx(expected)
    fixed, broken = (right & ~other).sum(), (other & ~right).sum()
    tail = sum(math.comb(fixed + broken, count) for count in range(min(fixed, broken) + 1)) / 2.0 ** (fixed + broken)
    assert significance.gain(ACCURACY, labels=labels, tuned=probabilities, rival=rival)["p_value"] == pytest.approx(
        min(1, 2 * tail)
    )


def test_intervals_rest_on_every_resample_though_rare_classes_are_missing_from_some(recwarn):
    labels, probabilities = np.arange(40) % 20, np.full((40, 20), 0.01)
    probabilities[np.arange(40), (labels + (np.arange(40) < 10)) % 20] = 0.81
    (counts,) = intervals.resampled(40, 200)
    assert all(SINGLE.complete(labels[times > 0]) for times in counts)
    found = intervals.intervals(SINGLE, labels=labels, predictions=probabilities, resamples=200)
    scores = score(SINGLE, labels, probabilities)
    assert found.keys() == scores.keys() - {"calibration_error"}
    assert all(values["low"] <= scores[name] <= values["high"] for name, values in found.items())
    assert not recwarn.list


def test_intervals_of_macro_f1_hold_its_value_in_19_of_20_samples_though_classes_are_rare():
    generator, macro_f1 = np.random.default_rng(0), SINGLE.main_scores["f1_macro"]
    shares = np.array([0.19] * 5 + [0.005] * 10)
    every = generator.choice(15, size=40_000, p=shares)
    tuned, rival = (
        SINGLE.outputs(generator.normal(size=(len(every), 15)) + skill * np.eye(15)[every] + np.log(shares) / 2)
        for skill in (3, 2.4)
    )
    value, rival_value = (macro_f1.value(every, predictions) for predictions in (tuned, rival))
    held, gain_held = [], []
    for _ in range(100):
        rows = generator.integers(len(every), size=400)
        interval = intervals.interval(macro_f1, labels=every[rows], predictions=tuned[rows])
        held.append(interval["low"] < value < interval["high"])
        found = significance.gain(macro_f1, labels=every[rows], tuned=tuned[rows], rival=rival[rows])
        gain_held.append(found["gain_low"] < value - rival_value < found["gain_high"])
    assert sum(held) >= 90
    assert sum(gain_held) >= 90
