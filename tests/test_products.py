"""Frozen products: the same numbers by either library, on every family, and the model left as it was."""

import copy

import pytest
import torch
from conftest import FAMILIES
from torch import nn
from transformers.pytorch_utils import Conv1D

from stages.common import classifier, parallel, products
from stages.common.device import device

LABELS = classifier.label_arguments(["bad", "good"], pad_token_id=0)
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}

pytestmark = pytest.mark.skipif(
    device().type != "cpu" or not torch.backends.mkldnn.is_available(), reason="needs a CPU alone, and oneDNN"
)


@pytest.fixture(autouse=True, params=[False, True], ids=["torch", "onednn"])
def faster(request, monkeypatch):
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", request.param)
    return request.param


@pytest.mark.parametrize("layer", [nn.Linear(7, 5), nn.Linear(7, 5, bias=False), Conv1D(5, 7)], ids=repr)
def test_a_frozen_product_is_the_layers_forward_and_backward(layer, faster):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, requires_grad=True)
    expected = layer(x)
    gradient, total = torch.randn(2, 3, 5), torch.randn(6, 7)
    expected.backward(gradient)
    before = total.clone()
    with torch.no_grad():
        frozen = products.Frozen.of(layer, torch.float32)
        found = frozen(x)
        frozen.add_gradient(total, gradient.flatten(0, 1))
    assert (frozen.packed is not None) is faster
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(total - before, x.grad.flatten(0, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_torchs_own(dtype):
    frozen = products.Frozen.of(nn.Linear(7, 5), dtype)
    assert frozen.packed is None
    assert frozen(torch.ones(1, 7, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("family", FAMILIES)
def test_inference_by_frozen_products_gives_the_models_logits(family, saved_model, faster):
    model = classifier.load_base(saved_model(family), labels=LABELS, seed=1).eval()
    with torch.no_grad():
        expected = model(**BATCH).logits
    frozen = []

    def compute(replica, _):
        frozen.append([part.forward for part in replica.modules() if "forward" in vars(part)])
        return replica(**BATCH).logits

    for found in parallel.each_batch(model, compute, [[0], [1]], progress="test"):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert bool(frozen[0]) is faster
    assert not any("forward" in vars(part) for part in model.modules())


def test_copies_of_a_model_share_what_was_packed(monkeypatch):
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", True)
    model = nn.Sequential(nn.Linear(7, 5))
    products.freeze(model)
    assert copy.deepcopy(model)[0].forward is model[0].forward


def test_under_autocast_layers_stay_as_they_are(saved_model):
    model = classifier.load_base(saved_model("llama"), labels=LABELS, seed=1)
    logits = parallel.each_batch(
        model, lambda replica, _: replica(**BATCH).logits, [[0]], progress="test", precision="bfloat16"
    )
    assert logits[0].dtype == torch.bfloat16
