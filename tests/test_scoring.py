"""Metrics and curves."""

import numpy as np
import pytest
from sklearn.metrics import auc

from stages.common import scoring


def test_scores_match_a_case_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.6, 0.7, 0.2])
    scores = scoring.score(labels, np.column_stack([1 - positive, positive]))
    assert scores["accuracy"] == 3 / 5
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["mcc"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(2 * 2 * 3 * 3))
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.4, 0.7, 0.2]).mean())
    assert scores["roc_auc"] == pytest.approx(4 / 6)


def test_three_classes_are_scored():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    scores = scoring.score(np.array([0, 1, 2, 1]), probabilities)
    assert scores["accuracy"] == 0.75
    assert all(np.isfinite(score) for score in scores.values())


def test_a_class_that_is_never_answered_gives_no_warning_and_no_nan(recwarn):
    scores = scoring.score(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert scores["precision_macro"] == 0.25
    assert not recwarn.list


def test_softmax_is_stable_and_sums_to_one():
    probabilities = scoring.softmax(np.array([[1000.0, 0.0], [-3.0, -3.0]], dtype=np.float32))
    np.testing.assert_allclose(probabilities, [[1, 0], [0.5, 0.5]])
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15


@pytest.mark.parametrize("classes", [2, 3])
def test_thinned_curves_keep_their_ends_and_their_area(classes):
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=500)
    probabilities = scoring.softmax(generator.normal(size=(500, classes)) + 1.5 * np.eye(classes)[labels])
    whole = scoring.roc_points(labels, probabilities, most=10_000)
    thin = scoring.roc_points(labels, probabilities, most=50)
    assert len(thin) == 50 < len(whole)
    assert thin[0] == whole[0] == {"false_positive_rate": 0.0, "true_positive_rate": 0.0}
    assert thin[-1] == whole[-1] == {"false_positive_rate": 1.0, "true_positive_rate": 1.0}
    areas = [auc(*zip(*(point.values() for point in curve), strict=True)) for curve in (whole, thin)]
    assert areas[0] == pytest.approx(areas[1], abs=0.02)


def test_precision_recall_ends_at_full_precision():
    points = scoring.precision_recall_points(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), most=10)
    assert points[-1] == {"recall": 0.0, "precision": 1.0}
