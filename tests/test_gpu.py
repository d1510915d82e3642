"""On a GPU: what the CPU computes. All other tests use a GPU too, where there is one."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS
from families import labels_of, unlabelled

from stages.backbone import device, parallel, precision
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
    for module in (device, parallel, precision):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))
    on_cpu = inference.logits_and_features(model, rows, after=(LAYERS,), batch_size=4, progress="CPU")
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_is_the_same_after_the_way_to_the_gpu_and_back(dtype):
    there = torch.randn(1000, 999).to(dtype)
    on_gpu = device.to_device(there)
    assert on_gpu.device.type == device.device().type
    assert torch.equal(device.to_cpu(on_gpu), there)


def test_results_of_two_workers_are_those_of_their_own_batches():
    model = torch.nn.Linear(512, 512).to(device.device())
    batches = [torch.full((256, 512), float(number)) for number in range(50)]
    with torch.inference_mode():
        expected = [model(device.to_device(batch)).cpu() for batch in batches]
    found = parallel.each_batch(
        model, lambda replica, batch: device.to_cpu(replica(device.to_device(batch))), batches, progress="GPU"
    )
    assert all(map(torch.equal, found, expected))
