"""Scores of classes: by hand, and by their definitions."""

import numpy as np
import pytest
from scoring import drawn

from stages.scoring.kinds import SCORED
from stages.scoring.scored import score

SINGLE = SCORED["single_label"]


def test_scores_match_a_case_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.6, 0.7, 0.2])
    scores = score(SINGLE, labels, np.column_stack([1 - positive, positive]))
    assert scores["accuracy"] == 3 / 5
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["mcc"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(2 * 2 * 3 * 3))
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.4, 0.7, 0.2]).mean())
    assert scores["roc_auc"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["brier"] == pytest.approx(np.mean(np.square([0.1, 0.4, 0.6, 0.3, 0.8])))


def test_each_class_has_its_own_precision_recall_and_f1():
    probabilities = np.eye(3)[[0, 0, 1, 1, 1]]
    scores = SINGLE.class_scores(np.array([0, 1, 1, 1, 2]), probabilities, ["bad", "fine", "good"])
    assert scores["bad"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1": 2 / 3})
    assert scores["fine"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert scores["good"] == {"precision": 0, "recall": 0, "f1": 0}


def test_three_classes_are_scored():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    scores = score(SINGLE, np.array([0, 1, 2, 1]), probabilities)
    assert scores["accuracy"] == 0.75
    assert all(np.isfinite(score) for score in scores.values())


def test_a_class_that_is_never_answered_gives_no_warning_and_no_nan(recwarn):
    scores = score(SINGLE, np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert scores["precision_macro"] == 0.25
    assert not recwarn.list


def test_softmax_is_stable_and_sums_to_one():
    probabilities = SINGLE.outputs(np.array([[1000.0, 0.0], [-3.0, -3.0]], dtype=np.float32))
    np.testing.assert_allclose(probabilities, [[1, 0], [0.5, 0.5]])
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15


def area(scores, positive):
    """The ROC AUC as what it means: how often a positive row outranks a negative one (Mann & Whitney 1947)."""
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_score_agrees_with_its_definition_on_random_cases(classes, seed):
    labels, probabilities = drawn.of_classes(classes, seed)
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
    assert score(SINGLE, labels, probabilities) == pytest.approx(expected)
    names = [str(index) for index in range(classes)]
    found = SINGLE.class_scores(labels, probabilities, names)
    for index, name in enumerate(names):
        assert found[name] == pytest.approx({"precision": precision[index], "recall": recall[index], "f1": f1[index]})


def test_a_class_without_rows_to_learn_from_gets_probability_zero():
    inputs = np.arange(12.0)[:, None]
    model = SINGLE.linear(1.0).fit(inputs, np.array([0, 2] * 6))
    outputs = SINGLE.fitted(model, inputs, ["a", "b", "c", "d"])
    assert outputs.shape == (12, 4)
    np.testing.assert_array_equal(outputs[:, [1, 3]], 0)
    np.testing.assert_array_equal(outputs[:, [0, 2]], model.predict_proba(inputs))
    assert SINGLE.loss(np.array([0, 2] * 6), outputs) < 1
