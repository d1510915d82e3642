"""Temperature scaling: fitted to what is known, and carried by the head."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS, tiny_params
from scipy.special import softmax

from stages.common import adapters, calibration, classifier
from stages.common.params import Params

LABELS = classifier.label_arguments(["bad", "fine", "good"], pad_token_id=0)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scaled_head_divides_the_logits(family, saved_model):
    params = Params.model_validate(tiny_params(lora={"r": 3}))
    base = classifier.load_base(saved_model(family), labels=LABELS, seed=1)
    model = adapters.add(base, params, depth=LAYERS - 1, base=saved_model(family)).eval()
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
        calibration.scale_head(model, 1.7)
        torch.testing.assert_close(model(input_ids=IDS).logits, before / 1.7, rtol=1e-5, atol=1e-6)
