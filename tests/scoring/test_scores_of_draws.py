"""The scores of many draws of the rows at once: of each draw, those that scikit-learn gives to its rows."""

import numpy as np
import pytest
from scipy import stats
from scoring import drawn
from sklearn import metrics

from stages.evidence import intervals
from stages.scoring.kinds import SCORED


def of_classes(labels, probabilities):
    """scikit-learn's scores of one class per row."""
    answers, every = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    present = np.unique(labels)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, answers, labels=present, average="macro", zero_division=0
    )
    ranked = present if len(every) > 2 else [1]
    return {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": recall,
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "mcc": metrics.matthews_corrcoef(labels, answers),
        "log_loss": metrics.log_loss(labels, probabilities, labels=every),
        "brier": metrics.brier_score_loss(labels, probabilities, labels=every),
        "roc_auc": np.mean([metrics.roc_auc_score(labels == name, probabilities[:, name]) for name in ranked]),
    }


def of_labels(has, predictions):
    """scikit-learn's scores of several labels per row."""
    p, given = predictions.probabilities, predictions.given
    present = has.any(axis=0)
    mixed = [column for column in range(has.shape[1]) if 0 < has[:, column].sum() < len(has)]
    return {
        "f1_samples": metrics.f1_score(has, given, average="samples", zero_division=1),
        "accuracy": metrics.accuracy_score(has, given),
        "f1_micro": metrics.f1_score(has, given, average="micro", zero_division=0),
        "f1_macro": metrics.f1_score(has[:, present], given[:, present], average="macro", zero_division=0),
        "hamming_loss": metrics.hamming_loss(has, given),
        "log_loss": metrics.log_loss(has.ravel(), p.ravel(), labels=[0, 1]),
        "brier": np.square(p - has).mean(),
        "roc_auc": metrics.roc_auc_score(has[:, mixed], p[:, mixed]),
        "average_precision": metrics.average_precision_score(has[:, mixed], p[:, mixed]),
    }


def of_numbers(numbers, found):
    """The scores of numbers that scikit-learn and SciPy give."""
    return {
        "mae": metrics.mean_absolute_error(numbers, found),
        "mse": metrics.mean_squared_error(numbers, found),
        "rmse": metrics.root_mean_squared_error(numbers, found),
        "r2": metrics.r2_score(numbers, found),
        "pearson": stats.pearsonr(numbers, found).statistic,
        "spearman": stats.spearmanr(numbers, found).statistic,
    }


def classes(number):
    """Labels and predictions with ties; a resample can lack one of the classes."""
    labels, probabilities = drawn.of_classes(number, 0)
    return labels, SCORED["single_label"].outputs(np.log(probabilities).round())


def several():
    """The same for several labels per row."""
    has, probabilities, chosen = drawn.of_labels(3)
    return has, SCORED["multi_label"].decide(probabilities.round(1), chosen)


CASES = {
    "two classes": ("single_label", lambda: classes(2), of_classes),
    "three classes": ("single_label", lambda: classes(3), of_classes),
    "fifty classes": ("single_label", lambda: classes(50), of_classes),
    "several labels": ("multi_label", several, of_labels),
    "numbers": ("regression", lambda: drawn.of_numbers(1), of_numbers),
}


@pytest.mark.parametrize("case", CASES)
def test_the_scores_of_every_draw_are_scikit_learns_scores_of_its_rows(case):
    kind, rows, expected = CASES[case]
    labels, predictions = rows()
    (counts,) = intervals.resampled(len(labels), 12)
    found = SCORED[kind].scores_of_draws(labels, predictions, counts)
    generator = np.random.default_rng(0)
    for number in range(len(counts)):
        picked = generator.integers(len(labels), size=len(labels))
        of_draw = {name: values[number] for name, values in found.items() if name != "calibration_error"}
        assert of_draw == pytest.approx(expected(labels[picked], predictions[picked]), rel=1e-6)
    assert found.keys() == SCORED[kind].scores(labels, predictions).keys()


def test_resamples_are_the_same_in_every_run_in_blocks_that_fit_the_memory(monkeypatch):
    (whole,) = intervals.resampled(30, 7)
    monkeypatch.setattr(intervals.permutation, "AT_ONCE", 90)
    blocks = list(intervals.resampled(30, 7))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert (whole.sum(axis=1) == 30).all()
