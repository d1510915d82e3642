"""Scores by slice: what is planted is found, what is chance is not claimed."""

import numpy as np
import pytest

from stages.evidence import intervals, slices
from stages.scoring.kinds import SCORED

SINGLE, NUMBER = SCORED["single_label"], SCORED["regression"]


def drawn(rows, *, noisy=(), seed=0):
    """Labels and probabilities of a model that is usually right; in the noisy rows it guesses."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=rows)
    signal = np.full(rows, 2.0)
    signal[list(noisy)] = 0
    return labels, SINGLE.outputs(generator.normal(size=(rows, 2)) + signal[:, None] * np.eye(2)[labels])


def thirds(rows):
    """Slices of a column `lang`, in turn."""
    return {("lang", name): np.arange(rows) % 3 == number for number, name in enumerate(("de", "en", "fr"))}


def by_slice(key, labels, predictions, members):
    main, rivals = SINGLE.main_scores[key], {"weak": predictions[:, ::-1], "strong": predictions}
    return slices.by_slice(SINGLE, main, members, labels=labels, tuned=predictions, rivals=rivals)


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_a_slice_on_which_the_model_guesses_is_found_by_every_main_score(key):
    labels, predictions = drawn(300, noisy=range(0, 300, 3))
    main, found = SINGLE.main_scores[key], by_slice(key, labels, predictions, thirds(300))["lang"]
    inside, worst = np.arange(300) % 3 == 0, found["de"]
    assert worst["rows"] == 100
    assert worst["p_value"] < 0.01
    assert min(found, key=lambda name: main.sign * found[name][key]) == "de"
    assert main.sign * (worst["rest"] - worst[key]) > 0
    for score in SINGLE.main_scores.values():
        value, interval = score.value(labels[inside], predictions[inside]), worst["interval"][score.key]
        assert worst[score.key] == pytest.approx(value)
        assert interval["low"] < value < interval["high"]
    assert worst["strongest_rival"] == worst[key]
    assert worst["gain"] == 0


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_in_slices_by_chance_nothing_is_claimed(key):
    labels, predictions = drawn(300)
    assert all(values["p_value"] > 0.05 for values in by_slice(key, labels, predictions, thirds(300))["lang"].values())


def test_draws_that_do_not_define_the_score_speak_against_a_claim():
    """Of two positive rows one is in the slice, ranked highest, and one outside, ranked lowest."""
    labels, inside = np.zeros(60, dtype=int), np.arange(60) < 30
    labels[[0, 30]] = 1
    score = np.linspace(0.4, 0.6, 60)
    score[[0, 30]] = 0.9, 0.1
    predictions = np.stack([1 - score, score], axis=1)
    found = slices.p_value(SINGLE.main_scores["roc_auc"], inside, labels=labels, predictions=predictions)
    assert found > 0.9  # about half of all draws have both on one side, the others differ as much as this


def test_errors_of_numbers_have_slices_too():
    generator = np.random.default_rng(0)
    labels, inside, main = generator.normal(size=200), np.arange(200) < 50, NUMBER.main_scores["mae"]
    tuned = labels + generator.normal(size=200) * np.where(inside, 3, 1)
    members = {("year", "1999"): inside, ("year", "2000"): ~inside}
    found = slices.by_slice(NUMBER, main, members, labels=labels, tuned=tuned, rivals={"median": 0 * labels})["year"]
    assert found["1999"]["p_value"] == found["2000"]["p_value"] == pytest.approx(2 / 10_000)
    assert found["1999"]["mae"] == found["2000"]["rest"] > found["2000"]["mae"]
    assert found["2000"]["gain"] == pytest.approx(np.abs(labels[~inside]).mean() - found["2000"]["mae"])


def test_slices_that_say_too_little_are_left_out():
    labels, predictions = drawn(60)
    rows = np.arange(60)
    sizes = {
        ("a", "few"): rows < 19,
        ("a", "enough"): rows < 20,
        ("a", "nearly all"): rows < 41,
        ("b", "all"): rows < 60,
    }
    assert {column: list(found) for column, found in by_slice("accuracy", labels, predictions, sizes).items()} == {
        "a": ["enough"]
    }
    assert by_slice("accuracy", labels, predictions, {}) == {}


def test_a_slice_of_one_class_has_the_scores_that_need_one_class_only():
    labels, predictions = drawn(100)
    members = {("class", "0"): labels == 0}
    found = by_slice("accuracy", labels, predictions, members)["class"]["0"]
    assert found["interval"].keys() == {"accuracy", "log_loss"} == found.keys() & SINGLE.main_scores.keys()
    assert by_slice("roc_auc", labels, predictions, members) == {}


def test_p_values_are_corrected_as_by_hand():
    assert slices.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert slices.holm([0.5, 0.02]) == pytest.approx([0.5, 0.04])
    assert slices.holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(slices.holm([])) == 0


def test_the_p_value_of_right_and_wrong_rows_is_fishers():
    """The lady tasting tea (Fisher 1935, chapter II), with three of four cups right: 34 / 70."""
    right, inside = np.array([1, 1, 1, 0, 1, 0, 0, 0]), np.arange(8) < 4
    predictions = np.eye(2)[1 - right]
    found = slices.p_value(
        SINGLE.main_scores["accuracy"], inside, labels=np.zeros(8, dtype=int), predictions=predictions
    )
    assert found == pytest.approx(34 / 70)


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_intervals_at_a_higher_level_are_wider_and_stay_where_the_score_can_be(key):
    labels, predictions = drawn(40)
    main = SINGLE.main_scores[key]
    narrow, wide = (
        intervals.interval(main, labels=labels, predictions=predictions, level=level) for level in (0.95, 0.999)
    )
    assert wide["low"] < narrow["low"] < main.value(labels, predictions) < narrow["high"] < wide["high"]
    assert main.sign < 0 or -1 <= wide["low"] < wide["high"] <= 1
    perfect = intervals.interval(main, labels=labels, predictions=np.eye(2)[labels], level=0.95)
    assert np.isfinite([*perfect.values()]).all()
    assert main.sign < 0 or perfect["low"] < 0.95 < perfect["high"]
