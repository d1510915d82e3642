"""Fused LoRA: PEFT's numbers, forward and backward, on PEFT's own layers."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import FAMILIES, LAYERS, tiny_params
from families import adapted, labels_of
from peft.tuners.lora import Linear

from stages.backbone import frozen_linear, prefix
from stages.classifier.model import load_base
from stages.params import Params
from stages.training import fused

LABELS = labels_of(["bad", "good"])
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([0, 1]),
}


def tuned(base, **changes):
    """A classifier whose adapters are as if trained: lora_B starts at zero, which would hide errors."""
    model = load_base(base, labels=LABELS, seed=1)
    params = Params.model_validate(tiny_params(lora={"r": 4, **changes}))
    model = adapted(model, params, depth=LAYERS - 2, base=base)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def layers(model):
    return [part for part in model.modules() if isinstance(part, Linear)]


def results(model):
    """Logits and gradients of one pass."""
    model.zero_grad()
    output = model(**BATCH)
    output.loss.backward()
    gradients = {name: part.grad for name, part in model.named_parameters() if part.requires_grad}
    return {"logits": output.logits, **gradients}


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_layers_give_pefts_logits_and_gradients(family, saved_model):
    model = tuned(saved_model(family)).double()  # in float32, small gradients are mostly rounding
    expected = results(model)
    assert not fused.fuse(model, BATCH)
    assert all("forward" in vars(layer) for layer in layers(model))
    found = results(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 1e-6, "a value that is zero would prove nothing"
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-12)


def test_the_example_goes_to_the_device_that_the_model_is_on(saved_model, monkeypatch):
    model, devices = tuned(saved_model("gpt2")).to("meta"), []
    monkeypatch.setattr(model, "forward", lambda **given: devices.extend(part.device.type for part in given.values()))
    fused.fuse(model, BATCH)
    assert devices == ["meta"] * len(BATCH)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL")
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_layers_that_multiply_by_onednn_give_them_too(family, saved_model, monkeypatch):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", True)
    calls, multiply = [], frozen_linear.onednn
    monkeypatch.setattr(frozen_linear, "onednn", lambda *given: calls.append(given) or multiply(*given))
    model = tuned(saved_model(family))
    exact = results(copy.deepcopy(model).double())
    pefts = results(model)
    assert not fused.fuse(model, BATCH)
    for name, value in results(model).items():
        # float32 sums promise no more than this, least where large terms cancel, as in the gradients of BERT's keys
        rounding = max((pefts[name] - exact[name]).abs().max(), 1e-6 * exact[name].abs().max())
        torch.testing.assert_close(value.double(), exact[name], rtol=0, atol=8 * rounding.item())
    assert len(calls) > len(layers(model)), "once forward, and backward where a gradient goes on"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_what_a_fused_layer_returns_may_be_changed_in_place(family, saved_model):
    model = tuned(saved_model(family))
    wide = [layer for layer in layers(model) if layer.in_features == 32]
    fused.fuse(model, BATCH)
    x = torch.randn(2, 5, 32, requires_grad=True)
    for layer in wide:  # DeBERTa does so; autograd refuses it for a view
        expected = type(layer).forward(layer, x) / 3
        (wanted,) = torch.autograd.grad(expected.sum(), x)
        found = layer(x)
        found /= 3
        (gradient,) = torch.autograd.grad(found.sum(), x, retain_graph=True)  # one step computes all that share x
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient, wanted)
    assert len(wide) > 4


def test_projections_of_the_same_tensor_are_computed_together(saved_model, monkeypatch):
    model = tuned(saved_model("llama"))
    groups = []
    monkeypatch.setattr(fused, "LayersSharingInput", groups.append)
    fused.fuse(model, BATCH)
    names = {layer: name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, Linear)}
    together = [[names[layer] for layer in group] for group in groups]
    assert together == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2


def test_replicas_of_a_model_in_threads_of_their_own_do_not_take_each_others_results(saved_model, monkeypatch):
    model, computed = tuned(saved_model("llama")), []
    compute = fused.LayersSharingInput.compute
    monkeypatch.setattr(fused.LayersSharingInput, "compute", lambda self, x: computed.append(x) or compute(self, x))
    fused.fuse(model, BATCH)
    first, second = layers(model)[:2]
    one, other = torch.randn(2, 3, first.in_features, generator=torch.manual_seed(1))
    with torch.no_grad(), ThreadPoolExecutor(1) as thread:
        expected = [(first.forward(x), second.forward(x)) for x in (one, other)]
        computed.clear()
        found = first.forward(one), thread.submit(first.forward, other).result()  # then each wants the second
        found += second.forward(one), thread.submit(second.forward, other).result()
    for values, wanted in zip(found, (expected[0][0], expected[1][0], expected[0][1], expected[1][1]), strict=True):
        torch.testing.assert_close(values, wanted)
    assert len(computed) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"use_dora": True}, "a variant of LoRA"),
        ({"bias": "all"}, "a base layer that is trained or not linear"),
    ],
)
def test_what_is_not_covered_keeps_pefts_path_and_is_counted(saved_model, changes, reason):
    model = tuned(saved_model("gpt2"), **changes)
    expected = results(model)
    assert fused.fuse(model, BATCH) == {reason: len(layers(model))}
    for name, value in results(model).items():
        assert torch.equal(value, expected[name])


def test_a_disabled_or_merged_adapter_is_left_to_peft(saved_model):
    model = tuned(saved_model("llama"))
    expected = model(**BATCH).logits
    with model.disable_adapter():
        plain = model(**BATCH).logits
    fused.fuse(model, BATCH)
    with model.disable_adapter():
        assert torch.equal(model(**BATCH).logits, plain)
    model.merge_adapter()
    torch.testing.assert_close(model(**BATCH).logits, expected, rtol=0, atol=1e-5)


def test_under_autocast_the_products_are_autocasts(saved_model):
    model = tuned(saved_model("llama"))
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(model)
        fused.fuse(model, BATCH)
        found = results(model)
    assert found["logits"].dtype == expected["logits"].dtype
    torch.testing.assert_close(found["logits"], expected["logits"], rtol=0.05, atol=0.05)
    name = next(name for name in expected if "lora_A" in name)
    torch.testing.assert_close(found[name], expected[name], rtol=0.1, atol=0.02)


def test_frozen_weights_are_cast_for_autocast_once(saved_model, monkeypatch):
    model = tuned(saved_model("llama"))
    fused.fuse(model, BATCH)
    frozen = {layer.get_base_layer().weight for layer in layers(model)}
    casts, cast = [], torch.Tensor.to

    def note(tensor, *args, **kwargs):
        casts.extend([tensor] * (tensor in frozen))
        return cast(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", note)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(**BATCH)
        model(**BATCH)
    assert len(casts) == len(frozen)


def test_activation_checkpointing_gives_the_same_gradients(saved_model):
    model = tuned(saved_model("llama")).train()
    fused.fuse(model, BATCH)
    expected = results(model)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    for name, value in results(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_a_spliced_model_is_fused_too(saved_model):
    base, depth = saved_model("llama"), LAYERS - 2
    model = load_base(base, labels=LABELS, seed=1)
    prefix.splice(model, depth)
    params = Params.model_validate(tiny_params())
    model = adapted(model, params, depth=depth, base=base)
    batch = BATCH | {"states": torch.randn(2, 5, 32)}
    expected = model(**batch).logits
    assert not fused.fuse(model, batch)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)
