"""On a GPU: what the CPU computes. All other tests use a GPU too, where there is one."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS
from families import labels_of, unlabelled

from stages.backbone import parallel, precision
from stages.classifier import inference
from stages.classifier.model import load_base

LABELS = labels_of(["bad", "good"])

pytestmark = pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_features_on_a_gpu_are_the_cpus(family, saved_model, monkeypatch):
    draw = np.random.default_rng(0)
    rows = unlabelled([draw.integers(5, 50, length) for length in range(3, 15)], pad_token_id=0)
    model = load_base(saved_model(family), labels=LABELS, seed=1)
    on_gpu = inference.logits_and_features(model, rows, after=(LAYERS,), batch_size=4, progress="GPU")
    for module in (inference, parallel, precision):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))
    on_cpu = inference.logits_and_features(model, rows, after=(LAYERS,), batch_size=4, progress="CPU")
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
