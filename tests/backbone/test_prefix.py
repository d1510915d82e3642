"""The split at a block: stored states must give what the full model gives."""

import pytest
import torch
from conftest import LAYERS, sentences
from families import SIZES, SPLIT
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from stages.backbone import prefix
from stages.common.errors import PipelineError


@pytest.fixture
def batch(request, saved_model):
    tokenizer = AutoTokenizer.from_pretrained(saved_model(request.getfixturevalue("family")))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = [text for text, _ in sentences(8)]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    assert encoded["attention_mask"].sum(dim=1).unique().numel() > 2, "the batch should hold unequal lengths"
    return tokenizer.pad_token_id, {key: encoded[key] for key in ("input_ids", "attention_mask")}


def classifier(folder, pad_token_id):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, pad_token_id=pad_token_id).eval()


@pytest.mark.parametrize("depth", [1, LAYERS - 1])
@pytest.mark.parametrize("family", SPLIT)
def test_logits_from_stored_states_equal_the_full_models(family, depth, batch, saved_model):
    pad_token_id, inputs = batch
    with torch.inference_mode():
        expected = classifier(saved_model(family), pad_token_id)(**inputs).logits
        trunk = AutoModel.from_pretrained(saved_model(family)).eval()
        prefix.capture(trunk, depth)
        inputs = inputs | {"states": trunk(**inputs)}
        spliced = classifier(saved_model(family), pad_token_id)
        prefix.splice(spliced, depth)
        logits = spliced(**inputs).logits
    assert expected.std() > 1e-3, "logits that are all alike would prove nothing"
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama"])
def test_splicing_removes_the_frozen_blocks_weights(family, saved_model):
    model = AutoModelForSequenceClassification.from_pretrained(saved_model(family))
    whole = model.num_parameters()
    block = sum(parameter.numel() for parameter in prefix.blocks(model)[0].parameters())
    prefix.splice(model, 3)
    assert whole - model.num_parameters() == 3 * block


def test_the_layers_below_the_top_ones_are_frozen():
    assert prefix.depth(30, 10) == 20
    assert [prefix.depth(30, top) for top in (30, 31, "all")] == [0, 0, 0]


def test_a_model_without_one_list_of_blocks_has_none_to_split(saved_model):
    model = AutoModel.from_pretrained(saved_model("llama"))
    assert len(prefix.blocks(model)) == LAYERS
    model.config.num_hidden_layers = 7
    assert not prefix.blocks(model)


def test_a_model_of_a_few_letters_can_be_split():
    config = BertConfig(vocab_size=9, **SIZES)  # those of DNA, and special tokens
    prefix.check_split(BertModel(config), 2)


def test_why_a_model_cannot_be_split_is_said_and_numbers_that_are_none_are_no_reason(saved_model, monkeypatch):
    model = AutoModel.from_pretrained(saved_model("llama"))

    def splice(model, depth):
        raise AttributeError("no\nattention")

    monkeypatch.setattr(prefix, "splice", splice)
    with pytest.raises(PipelineError, match=r"found llama, where the parts fail \(AttributeError: no attention\); set"):
        prefix.check_split(model, 2)
    model.layers[3].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(PipelineError, match=r"models/base: expected a model with finite output, found NaN or infinity"):
        prefix.check_split(model, 2)
