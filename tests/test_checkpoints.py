"""Checkpoints as hubs have them: in shards, in 16 bits, with tied heads, without some special tokens."""

import json
import shutil

import numpy as np
import pytest
import torch
from families import labels_of, save_model, sentences, unlabelled
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from stages import encode, fetch
from stages.backbone.base import load_config
from stages.classifier import inference
from stages.classifier.label_words import has_label_word_head, label_word_rows
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.encoding import template

WORDS = {"bad": " cold", "good": " warm"}
LABELS = labels_of(list(WORDS), pad_token_id=0)


@pytest.fixture
def fetched(tmp_path):
    """What `fetch` copies of a folder."""

    def copy(model):
        base = tmp_path / "base"
        base.mkdir()
        fetch.copy_model(model, base)
        fetch.check_tokens(base, "path:model")
        return base

    return copy


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("saved", [{"max_shard_size": "20KB"}, {"dtype": "bfloat16"}, {"dtype": "float16"}])
def test_weights_in_shards_or_16_bits_are_read_as_they_are(family, saved, tmp_path, fetched, monkeypatch):
    model = AutoModelForSequenceClassification.from_pretrained(save_model(family, tmp_path / "model"), **LABELS)
    dtype = getattr(torch, saved.get("dtype", "float32"))
    model.to(dtype).save_pretrained(tmp_path / "model", max_shard_size=saved.get("max_shard_size", "1GB"))
    if "dtype" not in saved:
        (tmp_path / "model/model.safetensors").unlink()  # what `save_model` left
    base = fetched(tmp_path / "model")
    assert (len(list(base.glob("model-*.safetensors"))) > 2) == ("dtype" not in saved)
    loaded, expected = load_base(base, labels=LABELS, seed=1), model.float().eval()
    assert {part.dtype for part in loaded.state_dict().values()} == {torch.float32}
    tokens = unlabelled([[5, 6, 7], [8, 9]], pad_token_id=0)
    found, plain = (inference.logits(one, tokens, batch_size=2, progress="test") for one in (loaded, expected))
    np.testing.assert_allclose(found, plain, atol=1e-5)
    monkeypatch.setattr(paths, "BASE_MODEL", base)
    lower, depth = encode.load_frozen_blocks(2)
    assert depth == 2
    assert {part.dtype for part in lower.parameters()} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_label_words_rows_are_those_of_the_language_models_head_tied_or_not(tied, dtype, tmp_path, fetched):
    save_model("llama", tmp_path / "model", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").to(getattr(torch, dtype))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    model.save_pretrained(tmp_path / "model")
    base = fetched(tmp_path / "model")
    classifier = load_base(base, labels=LABELS, seed=1)
    assert has_label_word_head(classifier)
    ids = AutoTokenizer.from_pretrained(base)(list(WORDS.values()))["input_ids"]
    expected = torch.stack([model.lm_head.weight.detach().float()[tokens].mean(dim=0) for tokens in ids])
    torch.testing.assert_close(label_word_rows(classifier, base, WORDS), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "xlm-roberta"])
@pytest.mark.parametrize("in_config", [True, False])
def test_a_checkpoint_that_does_not_name_its_special_tokens_gives_the_same_answers(
    family, in_config, saved_model, tmp_path, fetched
):
    labels = LABELS | {"pad_token_id": load_config(saved_model(family)).pad_token_id}
    model = AutoModelForSequenceClassification.from_pretrained(saved_model(family), **labels).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved_model(family))
    named = ("pad_token", "eos_token", "bos_token")
    for name in named:
        setattr(tokenizer, name, None)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    if not in_config:
        config = json.loads((tmp_path / "model/config.json").read_text())
        (tmp_path / "model/config.json").write_text(json.dumps(config | {f"{name}_id": None for name in named}))
    base = fetched(tmp_path / "model")
    read = template.load_tokenizer(base, template="{text}", max_length=64)
    assert read.pad_token_id in tokenizer.added_tokens_decoder
    tokens = read([text for text, _ in sentences(6)])["input_ids"]
    with torch.inference_mode():
        expected = np.concatenate([model(torch.tensor([row])).logits.numpy() for row in tokens])
    classifier = load_base(base, labels=labels | {"pad_token_id": read.pad_token_id}, seed=1)
    found = inference.logits(classifier, unlabelled(tokens, read.pad_token_id), batch_size=3, progress="test")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_models_own_pad_token_goes_before_the_tokenizers_as_positions_are_counted_from_it(saved_model, tmp_path):
    base = shutil.copytree(saved_model("xlm-roberta"), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    own, tokenizer.pad_token = tokenizer.pad_token, tokenizer.eos_token
    tokenizer.save_pretrained(base)
    assert template.load_tokenizer(base, template="{text}").pad_token == own


def test_a_tokenizer_without_any_special_token_is_refused(saved_model, tmp_path):
    load_config(saved_model("llama")).save_pretrained(tmp_path)
    tokenizer = Tokenizer(models.WordLevel({"good": 0, "bad": 1}, unk_token="bad"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=r"expected a tokenizer with a special token to pad with, found none; give"):
        template.load_tokenizer(tmp_path, template="{text}")
