"""Frozen products: the same numbers by either library, on every family, and the model left as it was."""

import threading

import pytest
import torch
from conftest import FAMILIES
from families import labels_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from stages.backbone import frozen_linear, parallel
from stages.backbone.device import device
from stages.classifier.model import load_base

LABELS = labels_of(["bad", "good"])
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}

pytestmark = pytest.mark.skipif(
    device().type != "cpu" or not torch.backends.mkl.is_available(), reason="needs a CPU alone, and MKL"
)


@pytest.mark.parametrize("name", ["_reorder_linear_weight", "_linear_pointwise"])
def test_torch_has_the_private_operators(name):
    assert hasattr(torch.ops.mkldnn, name), (
        f"torch {torch.__version__} has no operator mkldnn.{name}, by which "
        "stages/backbone/frozen_linear.py multiplies: "
        "look in torch/_inductor/mkldnn_lowerings.py for what took its place, or set ONEDNN_IS_FASTER = False"
    )


@pytest.fixture(params=[False, True], ids=["torch", "onednn"])
def faster(request, monkeypatch):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", request.param)
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
        frozen = frozen_linear.Frozen.of(layer, torch.float32)
        found = frozen(x)
        frozen.add_gradient(total, gradient.flatten(0, 1))
    assert (frozen.packed is not None) is faster
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(total - before, x.grad.flatten(0, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_torchs_own(dtype, faster):
    layer, x = nn.Linear(7, 5), torch.ones(1, 7, dtype=dtype)
    frozen = frozen_linear.Frozen.of(layer, dtype)
    assert frozen.packed is None
    assert torch.equal(frozen(x), layer.to(dtype)(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_inference_by_frozen_products_gives_the_models_logits(family, saved_model, faster, two_threads):
    model = load_base(saved_model(family), labels=LABELS, seed=1).eval()
    layers = sum(isinstance(part, nn.Linear | Conv1D) for part in model.modules())
    with torch.no_grad():
        expected = model(**BATCH).logits
    frozen, together = {}, threading.Barrier(2)

    def compute(replica, _):
        together.wait()
        frozen[id(replica)] = [part.forward for part in replica.modules() if "forward" in vars(part)]
        return replica(**BATCH).logits

    for found in parallel.each_batch(model, compute, [[0], [1], [2], [3]], progress="test"):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    first, second = frozen.values()
    assert len(first) == layers * faster
    assert first == second, "replicas share what was packed"
    assert not any("forward" in vars(part) for part in model.modules())


def test_a_single_batch_is_not_worth_packing_for(monkeypatch):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", True)
    model = nn.Sequential(nn.Linear(7, 5))
    (frozen,) = parallel.each_batch(model, lambda replica, _: "forward" in vars(replica[0]), [[0]], progress="test")
    assert not frozen


def test_under_autocast_layers_stay_as_they_are(saved_model, faster):
    model = load_base(saved_model("llama"), labels=LABELS, seed=1)
    for logits in parallel.each_batch(
        model, lambda replica, _: replica(**BATCH).logits, [[0], [1]], progress="test", precision="bfloat16"
    ):
        assert logits.dtype == torch.bfloat16
