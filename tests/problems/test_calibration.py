"""Temperature scaling: fitted to what is known."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from stages.problems import calibration


def drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they stand for."""
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(rows, 3))
    return logits, np.array([generator.choice(3, p=row) for row in softmax(logits, axis=1)])


@pytest.mark.parametrize("factor", [0.5, 1, 4])
def test_the_temperature_undoes_an_exaggeration(factor):
    logits, labels = drawn(4000)
    assert calibration.temperature(factor * logits, labels) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("count", [2, 20])
def test_rows_that_are_all_right_prove_as_much_as_laplaces_rule_of_succession_says(count):
    labels = np.arange(count) % 2
    found = calibration.temperature(4 * np.eye(2)[labels], labels)
    assert expit(4 / found) == pytest.approx((count + 1) / (count + 2), abs=1e-4)


def test_the_more_rows_are_all_right_the_surer_the_model_may_become():
    rows = [np.arange(count) % 2 for count in (20, 200, 2000)]
    found = [calibration.temperature(4 * np.eye(2)[labels], labels) for labels in rows]
    assert found[0] > 1 > found[1] > 4 / np.log(201) > found[2] > 4 / np.log(2001)


def test_few_rows_make_a_model_less_sure_at_once_but_hardly_surer():
    labels = np.arange(10) % 2
    margins = np.where(np.arange(10) < 8, 1, -1)  # 8 of 10 are right
    found = [calibration.temperature(scale * margins[:, None] * np.eye(2)[labels], labels) for scale in (20, 0.2)]
    assert found[0] > 10
    assert found[1] > 0.8


def test_a_few_labels_that_are_all_right_prove_as_little():
    has = np.arange(20).reshape(10, 2) % 2
    found = calibration.temperature(8 * has - 4, has)
    assert expit(4 / found) == pytest.approx(11 / 12, abs=1e-4)


def test_the_wrong_classes_share_what_is_not_sure():
    labels = np.arange(15) % 3
    found = calibration.temperature(4 * np.eye(3)[labels], labels)
    assert softmax(np.array([4, 0, 0]) / found) == pytest.approx([16 / 17, 1 / 34, 1 / 34], abs=1e-4)


@pytest.mark.parametrize("factor", [0.5, 4])
def test_one_temperature_undoes_an_exaggeration_of_all_labels(factor):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4000, 3))
    has = (generator.random(logits.shape) < expit(logits)).astype(np.float32)
    assert calibration.temperature(factor * logits, has) == pytest.approx(factor, rel=0.1)
