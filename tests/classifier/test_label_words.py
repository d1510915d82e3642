"""The head that starts from the label words."""

import numpy as np
import pytest
import torch
from conftest import CAUSAL
from families import labels_of, save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.classifier.label_words import has_label_word_head, label_word_head, label_word_rows, label_words
from stages.classifier.model import load_base
from stages.common.errors import PipelineError

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
WORDS = {"bad": " negative", "good": " positive"}


@pytest.mark.parametrize("family", CAUSAL)
def test_a_head_from_label_words_scores_as_the_language_model_head_does(family, saved_model):
    base, words = saved_model(family), WORDS
    labels = labels_of(list(words))
    model = load_base(base, labels=labels, seed=1, head="label_words", words=words).eval()
    language_model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        scores = language_model(IDS).logits[:, -1]
        expected = [scores[:, tokenizer(word)["input_ids"]].mean(dim=1) for word in words.values()]
        torch.testing.assert_close(model(IDS).logits, torch.stack(expected, dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_the_weights_of_several_labels_are_centred(family, saved_model):
    base = saved_model(family)
    one, several = (
        load_base(base, labels=labels_of(list(WORDS), problem=problem), seed=1)
        for problem in ("single_label", "multi_label")
    )
    rows = label_word_rows(several, base, WORDS)
    assert torch.equal(label_word_head(one, base, WORDS), rows)
    centred = label_word_head(several, base, WORDS)
    torch.testing.assert_close(centred, rows - rows.mean(dim=0))
    assert centred.sum(dim=0).abs().max() < 1e-6 < rows.sum(dim=0).abs().max()


def test_a_head_apart_from_the_embeddings_gives_its_own_rows(tmp_path):
    base = save_model("gpt_neox (Pythia)", tmp_path)
    model = load_base(base, labels=labels_of(list(WORDS)), seed=1)
    assert not model.config.tie_word_embeddings
    whole, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    weights = whole.get_output_embeddings().weight.detach().numpy()
    expected = [weights[tokenizer(word)["input_ids"]].mean(axis=0) for word in WORDS.values()]
    np.testing.assert_allclose(label_word_rows(model, base, WORDS), np.stack(expected), rtol=1e-6, atol=1e-7)


def test_a_number_has_no_words(saved_model):
    labels = labels_of(["value"], problem="regression")
    assert not has_label_word_head(load_base(saved_model("llama"), labels=labels, seed=1))
    assert has_label_word_head(load_base(saved_model("llama"), labels=labels_of(["bad", "good"]), seed=1))


def test_a_word_follows_a_space_whether_it_is_given_or_the_name_of_the_class():
    assert label_words(["x", "y"], None) == label_words(["x", "y"], {"y": "y", "x": "x"}) == {"x": " x", "y": " y"}
    assert label_words(["x", "y"], {"x": " good", "y": "\nbad"}) == {"x": " good", "y": "\nbad"}
    assert label_words(["好", "ดี"], None) == {"好": "好", "ดี": "ดี"}


def test_label_words_are_in_the_order_of_the_classes_and_must_fit_them():
    assert list(label_words(["x", "y"], {"y": "1", "x": "2"})) == ["x", "y"]
    with pytest.raises(
        PipelineError, match=r"encode.label_words: expected words for \['x', 'y'\], found them for \['z'\]"
    ):
        label_words(["x", "y"], {"z": "1"})
