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


def test_the_fewer_rows_are_all_right_the_less_they_prove():
    rows = [np.arange(count) % 2 for count in (2, 20, 200, 2000)]
    found = [calibration.temperature(4 * np.eye(2)[labels], labels) for labels in rows]
    assert 1 > found[0] > 0.9 > found[1] > 0.7 > found[2] > 0.5 > found[3]


@pytest.mark.parametrize("factor", [0.5, 4])
def test_one_temperature_undoes_an_exaggeration_of_all_labels(factor):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4000, 3))
    has = (generator.random(logits.shape) < expit(logits)).astype(np.float32)
    assert calibration.temperature(factor * logits, has) == pytest.approx(factor, rel=0.1)
