"""Scores of several labels per row: by their definitions."""

import numpy as np
import pytest
from scipy import stats
from scoring import drawn

from stages.evidence import significance
from stages.scoring.kinds import SCORED
from stages.scoring.scored import score

MULTI = SCORED["multi_label"]


def ratio(part, whole):
    return part / whole if whole else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_every_score_agrees_with_its_definition_on_random_cases(seed):
    has, p, chosen = drawn.of_labels(seed)
    true, given = has.astype(bool), p > np.array(chosen)
    by_row, by_label = [], []
    for one, other in zip(true, given, strict=True):
        by_row.append(2 * (one & other).sum() / (one.sum() + other.sum()) if (one | other).any() else 1.0)
    for one, other in zip(true.T, given.T, strict=True):
        by_label.append([ratio((one & other).sum(), other.sum()), ratio((one & other).sum(), one.sum())])
    f1s = [ratio(2 * precision * recall, precision + recall) for precision, recall in by_label]
    areas, averages = [], []
    for one, scores in zip(true.T[:-1], p.T[:-1], strict=True):
        pairs = scores[one][:, None] - scores[~one][None, :]
        areas.append(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
        ranked = one[np.argsort(-scores)]
        averages.append((np.cumsum(ranked) / np.arange(1, 51))[ranked].mean())
    y, q = true.ravel(), p.ravel()
    confidence, right = np.maximum(q, 1 - q), (q > 0.5) == y
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = {
        "f1_samples": np.mean(by_row),
        "accuracy": (true == given).all(axis=1).mean(),
        "f1_micro": 2 * (true & given).sum() / (true.sum() + given.sum()),
        "f1_macro": np.mean([f1 for f1, one in zip(f1s, true.T, strict=True) if one.any()]),
        "hamming_loss": (true != given).mean(),
        "log_loss": -np.log(np.where(y, q, 1 - q)).mean(),
        "brier": np.square(q - y).mean(),
        "calibration_error": sum(abs((right - confidence)[bins == one].sum()) for one in range(15)) / len(y),
        "roc_auc": np.mean(areas),
        "average_precision": np.mean(averages),
    }
    predictions = MULTI.decide(p, chosen)
    assert score(MULTI, has, predictions) == pytest.approx(expected)
    np.testing.assert_allclose(MULTI.row_errors(has, predictions), 1 - np.array(by_row), atol=1e-12)
    found = MULTI.class_scores(has, predictions, list("abcd"))
    for name, (precision, recall), value in zip("abcd", by_label, f1s, strict=True):
        assert found[name] == pytest.approx({"precision": precision, "recall": recall, "f1": value})


def test_scores_stay_finite_where_no_label_varies(recwarn):
    for has in (0, 1):
        labels = np.full((3, 2), has, dtype=np.float32)
        scores = MULTI.scores(labels, MULTI.decide(np.full((3, 2), 0.3), []))
        assert np.isfinite(list(scores.values())).all()
        assert not MULTI.complete(labels)
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(6))
def test_a_gain_is_the_mean_difference_and_is_tested_as_such(seed):
    has, p, chosen = drawn.of_labels(seed)
    tuned, rival = MULTI.decide(p, chosen), MULTI.decide(drawn.of_labels(seed + 50)[1], chosen)
    difference = MULTI.row_errors(has, rival) - MULTI.row_errors(has, tuned)
    values = significance.gain(MULTI.main_scores["f1_samples"], labels=has, tuned=tuned, rival=rival)
    assert values["gain"] == pytest.approx(difference.mean())
    assert values["gain_low"] <= values["gain"] <= values["gain_high"]
    found = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=9_999, rng=1)
    assert values["p_value"] == pytest.approx(found.pvalue, abs=0.02)
