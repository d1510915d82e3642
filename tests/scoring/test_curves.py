"""The points of the curves that `dvc plots` draws."""

import numpy as np
import pytest
from sklearn.metrics import auc

from stages.scoring import curves
from stages.scoring.kinds import SCORED

SINGLE = SCORED["single_label"]


def test_the_calibration_error_is_the_mean_distance_between_confidence_and_accuracy():
    positive = np.array([0.9, 0.9, 0.9, 0.9, 0.7, 0.7])
    labels = np.array([1, 1, 1, 0, 1, 0])
    probabilities = np.column_stack([1 - positive, positive])
    expected = 4 / 6 * abs(0.9 - 3 / 4) + 2 / 6 * abs(0.7 - 1 / 2)
    gaps = curves.calibration_gaps(labels, probabilities)
    assert curves.calibration_error(gaps, np.ones((1, 6))) == pytest.approx([expected])
    assert curves.calibration_error(curves.calibration_gaps(np.array([0, 1]), np.eye(2)), np.ones((1, 2))) == [0]


def test_the_reliability_diagram_shows_each_bins_means():
    positive = np.array([0.9, 0.92, 0.7, 0.72])
    points = curves.reliability_points(np.array([1, 0, 1, 1]), np.column_stack([1 - positive, positive]))
    assert points == [
        {"confidence": pytest.approx(0.71), "accuracy": 1, "rows": 2},
        {"confidence": pytest.approx(0.91), "accuracy": 0.5, "rows": 2},
    ]


@pytest.mark.parametrize("classes", [2, 3])
def test_thinned_curves_keep_their_ends_and_their_area(classes):
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=500)
    probabilities = SINGLE.outputs(generator.normal(size=(500, classes)) + 1.5 * np.eye(classes)[labels])
    whole = curves.roc_points(labels, probabilities, most=10_000)
    thin = curves.roc_points(labels, probabilities, most=50)
    assert len(thin) == 50 < len(whole)
    assert thin[0] == whole[0] == {"false_positive_rate": 0.0, "true_positive_rate": 0.0}
    assert thin[-1] == whole[-1] == {"false_positive_rate": 1.0, "true_positive_rate": 1.0}
    areas = [auc(*zip(*(point.values() for point in curve), strict=True)) for curve in (whole, thin)]
    assert areas[0] == pytest.approx(areas[1], abs=0.02)


def test_precision_recall_ends_at_full_precision():
    points = curves.precision_recall_points(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), most=10)
    assert points[-1] == {"recall": 0.0, "precision": 1.0}


def test_the_error_curve_counts_the_rows_within_each_error():
    assert curves.of_errors(np.array([2.0, 0.5, 1.0, 0.5]), most=10) == {
        "error_characteristic": [
            {"error": 0.5, "rows_within": 0.25},
            {"error": 0.5, "rows_within": 0.5},
            {"error": 1.0, "rows_within": 0.75},
            {"error": 2.0, "rows_within": 1.0},
        ]
    }


@pytest.mark.parametrize(("rows", "most", "kept"), [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (101, 3, [0, 50, 100])])
def test_a_thinned_curve_has_evenly_spaced_points_and_never_more_than_allowed(rows, most, kept):
    numbers = np.arange(rows)
    found = curves.thinned({"x": numbers, "y": -numbers}, most)
    assert found == [{"x": number, "y": -number} for number in kept]


def test_the_risk_is_the_share_of_wrong_answers_among_the_most_confident():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.55, 0.45]])
    points = curves.risk_coverage_points(np.array([0, 1, 0, 1]), probabilities, 10)
    assert [point["coverage"] for point in points] == [0.25, 0.5, 0.75, 1]
    assert [point["risk"] for point in points] == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
