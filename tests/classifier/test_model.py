"""The classifier: its head, its adapters, saved and loaded with plain PEFT."""

import pytest
import torch
from conftest import CAUSAL, FAMILIES, LAYERS, tiny_params
from families import adapted, labels_of
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoConfig, AutoModel

from stages.backbone import prefix
from stages.classifier.model import is_causal, layers_in_use, load_base
from stages.common.errors import PipelineError
from stages.params import Params

LABELS = labels_of(["bad", "fine", "good"])
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def params(**lora):
    return Params.model_validate(tiny_params(lora=lora))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_trained_on_the_spliced_model_gives_the_same_logits_on_the_plain_one(family, saved_model, tmp_path):
    base, depth = saved_model(family), 2
    model = load_base(base, labels=LABELS, seed=1)
    trunk = AutoModel.from_pretrained(base).eval()
    prefix.capture(trunk, depth)
    prefix.splice(model, depth)
    model = adapted(model, params(), depth=depth, base=base)
    for name, parameter in model.named_parameters():  # as if trained: lora_B starts at zero, which would hide errors
        if parameter.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    with torch.inference_mode():
        expected = model(input_ids=IDS, states=trunk(input_ids=IDS)).logits
        model.save_pretrained(tmp_path)
        torch.manual_seed(99)
        loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path, **LABELS).eval()
        torch.testing.assert_close(loaded(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)
        with loaded.disable_adapter():
            assert (loaded(input_ids=IDS).logits - expected).abs().max() > 1e-3
    assert loaded.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_and_head_alone_are_trained_and_only_on_the_top_layers(family, saved_model):
    model = load_base(saved_model(family), labels=LABELS, seed=1)
    prefix.splice(model, LAYERS - 1)
    model = adapted(model, params(), depth=LAYERS - 1, base=saved_model(family))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert {name.split(".lora_")[0] for name in trained if "lora_" in name}
    assert all(f".{LAYERS - 1}." in name for name in trained if "lora_" in name)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_language_models_have_label_words(family, saved_model):
    assert is_causal(AutoConfig.from_pretrained(saved_model(family))) == (family in CAUSAL)


def test_a_model_without_a_language_model_head_starts_at_random(saved_model):
    one, same, other = (
        load_base(saved_model("bert"), labels=LABELS, seed=seed, head="label_words").classifier.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_target_modules_that_match_nothing_are_refused_with_the_names_that_exist(saved_model):
    model = load_base(saved_model("llama"), labels=LABELS, seed=1)
    with pytest.raises(PipelineError, match=r"lora.target_modules: .* found query; this model has self_attn.q_proj, "):
        adapted(model, params(target_modules=["q_proj", "query"]), depth=2, base=saved_model("llama"))


def test_short_names_select_projections(saved_model):
    model = load_base(saved_model("gpt2"), labels=LABELS, seed=1)
    model = adapted(model, params(target_modules=["c_attn"]), depth=3, base=saved_model("gpt2"))
    found = [name for name, parameter in model.named_parameters() if "lora_A" in name]
    assert found == ["base_model.model.transformer.h.3.attn.c_attn.lora_A.default.weight"]


@pytest.mark.parametrize(("family", "used"), [("gpt2", 3), ("llama", 3), ("bert", None), ("distilbert", None)])
def test_by_default_a_language_model_is_used_without_its_topmost_quarter_and_an_encoder_whole(
    family, used, saved_model, tmp_path, capsys
):
    assert layers_in_use(saved_model(family), "auto") == used
    assert ("the lowest 3 of the model's 4 layers" in capsys.readouterr().err) == (used is not None)
    assert layers_in_use(saved_model(family), 2) == 2
    assert layers_in_use(saved_model(family), None) is None
    load_base(saved_model(family), labels=LABELS, seed=0).save_pretrained(tmp_path)  # with a classification head
    assert layers_in_use(tmp_path, "auto") is None
