"""Metrics and curves."""

import math

import numpy as np
import pytest
from sklearn.metrics import auc

from stages.scoring import significance as scoring
from stages.scoring import single_label


def test_scores_match_a_case_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.6, 0.7, 0.2])
    scores = scoring.score(single_label, labels, np.column_stack([1 - positive, positive]))
    assert scores["accuracy"] == 3 / 5
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["mcc"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(2 * 2 * 3 * 3))
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.4, 0.7, 0.2]).mean())
    assert scores["roc_auc"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["brier"] == pytest.approx(np.mean(np.square([0.1, 0.4, 0.6, 0.3, 0.8])))


def test_the_calibration_error_is_the_mean_distance_between_confidence_and_accuracy():
    positive = np.array([0.9, 0.9, 0.9, 0.9, 0.7, 0.7])
    labels = np.array([1, 1, 1, 0, 1, 0])
    probabilities = np.column_stack([1 - positive, positive])
    expected = 4 / 6 * abs(0.9 - 3 / 4) + 2 / 6 * abs(0.7 - 1 / 2)
    assert single_label.calibration_error(labels, probabilities) == pytest.approx(expected)
    assert single_label.calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_the_reliability_diagram_shows_each_bins_means():
    positive = np.array([0.9, 0.92, 0.7, 0.72])
    points = single_label.reliability_points(np.array([1, 0, 1, 1]), np.column_stack([1 - positive, positive]))
    assert points == [
        {"confidence": pytest.approx(0.71), "accuracy": 1, "rows": 2},
        {"confidence": pytest.approx(0.91), "accuracy": 0.5, "rows": 2},
    ]


def test_each_class_has_its_own_precision_recall_and_f1():
    probabilities = np.eye(3)[[0, 0, 1, 1, 1]]
    scores = single_label.class_scores(np.array([0, 1, 1, 1, 2]), probabilities, ["bad", "fine", "good"])
    assert scores["bad"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1": 2 / 3})
    assert scores["fine"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert scores["good"] == {"precision": 0, "recall": 0, "f1": 0}


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]
)
def test_the_accuracys_interval_is_that_of_published_cases(right, rows, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    answers = np.eye(2)[(np.arange(rows) >= right).astype(int)]
    interval = scoring.main_interval(single_label, np.zeros(rows, dtype=int), answers)
    assert interval == pytest.approx({"low": low, "high": high}, abs=5e-5)


def test_bootstrap_intervals_are_as_wide_as_theory_says_and_hold_the_value():
    generator = np.random.default_rng(1)
    labels = generator.integers(2, size=400)
    probabilities = single_label.predictions(generator.normal(size=(400, 2)) + 1.5 * np.eye(2)[labels])
    scores, intervals = (
        scoring.score(single_label, labels, probabilities),
        scoring.intervals(single_label, labels, probabilities, 1000),
    )
    assert intervals.keys() == scores.keys()
    assert all(intervals[name]["low"] < value < intervals[name]["high"] for name, value in scores.items())
    losses = -np.log(probabilities[np.arange(400), labels])
    width = intervals["log_loss"]["high"] - intervals["log_loss"]["low"]
    assert width == pytest.approx(2 * 1.96 * losses.std() / 20, rel=0.1)
    assert scoring.intervals(single_label, labels, probabilities, 100) == scoring.intervals(
        single_label, labels, probabilities, 100
    )


def test_a_gain_comes_with_the_exact_mcnemar_test_and_a_paired_interval():
    labels = np.zeros(100, dtype=int)
    tuned, rival = np.tile([1.0, 0.0], (100, 1)), np.tile([1.0, 0.0], (100, 1))
    rival[:8] = tuned[8:10] = [0.0, 1.0]  # tuning fixed eight rows and broke two
    values = scoring.gain(single_label, labels, tuned, rival, 2000)
    assert values["gain"] == pytest.approx(0.06)
    assert values["p_value"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    error = np.sqrt(0.1 - 0.06**2) / 10
    assert values["gain_low"] == pytest.approx(0.06 - 1.96 * error, abs=0.01)
    assert values["gain_high"] == pytest.approx(0.06 + 1.96 * error, abs=0.01)
    assert scoring.gain(single_label, labels, tuned, tuned, 100) == {
        "gain": 0,
        "gain_low": 0,
        "gain_high": 0,
        "p_value": 1,
    }


def test_three_classes_are_scored():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    scores = scoring.score(single_label, np.array([0, 1, 2, 1]), probabilities)
    assert scores["accuracy"] == 0.75
    assert all(np.isfinite(score) for score in scores.values())


def test_a_class_that_is_never_answered_gives_no_warning_and_no_nan(recwarn):
    scores = scoring.score(single_label, np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert scores["precision_macro"] == 0.25
    assert not recwarn.list


def test_softmax_is_stable_and_sums_to_one():
    probabilities = single_label.predictions(np.array([[1000.0, 0.0], [-3.0, -3.0]], dtype=np.float32))
    np.testing.assert_allclose(probabilities, [[1, 0], [0.5, 0.5]])
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15


@pytest.mark.parametrize("classes", [2, 3])
def test_thinned_curves_keep_their_ends_and_their_area(classes):
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=500)
    probabilities = single_label.predictions(generator.normal(size=(500, classes)) + 1.5 * np.eye(classes)[labels])
    whole = single_label.roc_points(labels, probabilities, most=10_000)
    thin = single_label.roc_points(labels, probabilities, most=50)
    assert len(thin) == 50 < len(whole)
    assert thin[0] == whole[0] == {"false_positive_rate": 0.0, "true_positive_rate": 0.0}
    assert thin[-1] == whole[-1] == {"false_positive_rate": 1.0, "true_positive_rate": 1.0}
    areas = [auc(*zip(*(point.values() for point in curve), strict=True)) for curve in (whole, thin)]
    assert areas[0] == pytest.approx(areas[1], abs=0.02)


def test_precision_recall_ends_at_full_precision():
    points = single_label.precision_recall_points(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), most=10)
    assert points[-1] == {"recall": 0.0, "precision": 1.0}


def drawn(classes, seed):
    """Labels and probabilities of rows on which a model is right more often than not; each class has some rows."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(classes, size=60)])
    logits = generator.normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    logits[:, -1] -= generator.integers(4)  # in some cases the last class is hardly ever the answer
    return labels, single_label.predictions(2 * logits)


def area(scores, positive):
    """The ROC AUC as what it means: how often a positive row outranks a negative one (Mann & Whitney 1947)."""
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_score_agrees_with_its_definition_on_random_cases(classes, seed):
    labels, probabilities = drawn(classes, seed)
    answers, truth, rows = probabilities.argmax(axis=1), np.eye(classes)[labels], len(labels)
    confusion = truth.T @ np.eye(classes)[answers]
    hits, true, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall, precision = hits / true, np.divide(hits, answered, out=np.zeros(classes), where=answered > 0)
    f1 = 2 * hits / (true + answered)
    covariance = hits.sum() * rows - true @ answered
    spread = np.sqrt((rows**2 - answered @ answered) * (rows**2 - true @ true))
    binary = classes == 2
    confidence = probabilities.max(axis=1)
    error = 0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15 + (low == 14 / 15))
        error += abs((confidence - (answers == labels))[inside].sum()) / rows
    areas = [area(probabilities[:, index], labels == index) for index in range(classes)]
    expected = {
        "accuracy": hits.sum() / rows,
        "balanced_accuracy": recall.mean(),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "f1_macro": f1.mean(),
        "mcc": covariance / spread if spread else 0,  # Gorodkin 2004
        "log_loss": -np.log(probabilities[np.arange(rows), labels]).mean(),
        "brier": np.square(probabilities - truth).sum(axis=1).mean() / (2 if binary else 1),
        "calibration_error": error,
        "roc_auc": np.mean(areas),
    }
    assert scoring.score(single_label, labels, probabilities) == pytest.approx(expected)
    names = [str(index) for index in range(classes)]
    found = single_label.class_scores(labels, probabilities, names)
    for index, name in enumerate(names):
        assert found[name] == pytest.approx({"precision": precision[index], "recall": recall[index], "f1": f1[index]})


@pytest.mark.parametrize("seed", range(6))
def test_intervals_and_tests_agree_with_their_formulas_on_random_cases(seed):
    labels, probabilities = drawn(2, seed)
    rival = drawn(2, seed + 100)[1]
    right, other = (values.argmax(axis=1) == labels for values in (probabilities, rival))
    share, rows, z = right.mean(), len(labels), 1.959963984540054
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    expected = {"low": middle - half, "high": middle + half}
    assert scoring.main_interval(single_label, labels, probabilities) == pytest.approx(expected)
    fixed, broken = (right & ~other).sum(), (other & ~right).sum()
    tail = sum(math.comb(fixed + broken, count) for count in range(min(fixed, broken) + 1)) / 2.0 ** (fixed + broken)
    assert scoring.gain(single_label, labels, probabilities, rival, 100)["p_value"] == pytest.approx(min(1, 2 * tail))


def test_intervals_rest_on_every_resample_though_rare_classes_are_missing_from_some(recwarn):
    labels, probabilities = np.arange(40) % 20, np.full((40, 20), 0.01)
    probabilities[np.arange(40), (labels + (np.arange(40) < 10)) % 20] = 0.81
    assert all(single_label.complete(labels[rows], probabilities) for rows in scoring.resampled(40, 200))
    found = scoring.intervals(single_label, labels, probabilities, 200)
    scores = scoring.score(single_label, labels, probabilities)
    assert found.keys() == scores.keys()
    assert all(values["low"] <= scores[name] <= values["high"] for name, values in found.items())
    assert not recwarn.list
