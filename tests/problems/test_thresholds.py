"""The thresholds of labels: the best on the rows that they are chosen on."""

import numpy as np
import pytest
from scoring import drawn

from stages.problems import thresholds


@pytest.mark.parametrize("seed", range(6))
def test_a_threshold_is_the_best_of_all_and_of_equals_the_highest(seed):
    has, probabilities, _ = drawn.of_labels(seed)
    probabilities = probabilities.round(1)  # with ties
    for one, scores, found in zip(has.T, probabilities.T, thresholds.best(has, probabilities), strict=True):
        if not one.any():
            assert found == thresholds.UNSEEN
            continue
        tried = np.unique(scores) - 0.01
        values = [f1(one > 0, scores > at) for at in tried]
        highest = max(at for at, value in zip(tried, values, strict=True) if value == pytest.approx(max(values)))
        assert ((scores > found) == (scores > highest)).all()


def test_a_model_that_knows_nothing_gives_every_label():
    has = (np.arange(10) < 3).astype(float)[:, None]
    constant = np.full((10, 1), 0.3)
    assert (constant > thresholds.best(has, constant)).all()


def f1(has, given):
    return 2 * (has & given).sum() / max(1, has.sum() + given.sum())
