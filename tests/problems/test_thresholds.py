"""The thresholds of labels: the best on the rows that they are chosen on."""

import numpy as np
import pytest
from scoring import drawn

from stages.problems import thresholds
from stages.scoring.kinds import SCORED


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


def test_a_common_threshold_is_the_middle_of_the_best():
    values = [float(0.2 < at < 0.4) for at in thresholds.COMMON]
    assert thresholds.middle_of_best(values) == pytest.approx(0.3)


def test_by_row_f1_rare_labels_that_are_hard_to_tell_are_not_given_to_many_rows():
    generator = np.random.default_rng(0)
    base = np.log(np.geomspace(0.003, 0.3, 28))

    def rows(count):
        scores = base + 1.5 * generator.normal(size=(count, 28))
        has = generator.random((count, 28)) < 1 / (1 + np.exp(-scores))
        return has.astype(np.float32), 1 / (1 + np.exp(-scores))

    (known, seen), (true, given) = rows(300), rows(1000)
    problem = SCORED["multi_label"]
    by_row, macro = (problem.main_scores[key] for key in ("f1_samples", "f1_macro"))
    common, own = (problem.decide(given, problem.thresholds(known, seen, score)) for score in (by_row, macro))
    assert by_row.value(true, common) > by_row.value(true, own) + 0.02
    assert len({*problem.thresholds(known, seen, by_row)}) == 1
    assert problem.thresholds(known, seen, problem.main_scores["log_loss"]) == problem.thresholds(known, seen, by_row)


def f1(has, given):
    return 2 * (has & given).sum() / max(1, has.sum() + given.sum())
