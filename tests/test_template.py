"""The prompt template lives in the tokenizer."""

import pytest
from conftest import CAUSAL, sentences
from transformers import AutoTokenizer

from stages.common import template
from stages.common.errors import PipelineError

TEMPLATES = ("Review: {text}\nSentiment:", "{text}\nSentiment:", "Review: {text}", "{text}")


@pytest.mark.parametrize("form", TEMPLATES)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_ids_equal_those_of_the_formatted_string_also_after_saving(family, form, saved_model, tmp_path):
    plain = AutoTokenizer.from_pretrained(saved_model(family))
    template.load_tokenizer(saved_model(family), template=form, max_length=100).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [text for text, _ in sentences(20)]
    assert loaded(texts)["input_ids"] == plain([form.format(text=text) for text in texts])["input_ids"]
    assert loaded.model_max_length == 100
    assert loaded.padding_side == "right"
    assert loaded.pad_token_id is not None


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_truncation_cuts_the_text_and_never_the_template(family, saved_model):
    form = "Review: {text}\nSentiment:"
    tokenizer = template.load_tokenizer(saved_model(family), template=form, max_length=40)
    short, long = tokenizer(["good", "good film " * 50], truncation=True)["input_ids"]
    tail = tokenizer("good")["input_ids"][-3:]
    assert len(long) == 40
    assert long[-3:] == tail == short[-3:]


@pytest.mark.parametrize("family", CAUSAL)
def test_a_tokenizer_without_a_pad_token_pads_with_the_end_token(family, saved_model):
    tokenizer = template.load_tokenizer(saved_model(family), template="{text}", max_length=64)
    assert tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("max_length", [3, 129])
def test_a_max_length_without_room_or_beyond_the_model_is_refused(max_length, saved_model):
    with pytest.raises(PipelineError, match=rf"encode.max_length: expected .* found {max_length}"):
        template.load_tokenizer(saved_model("llama"), template="Review: {text}\nSentiment:", max_length=max_length)


def test_a_template_that_would_change_the_texts_tokens_is_refused(saved_model):
    with pytest.raises(PipelineError, match=r"encode.template: .* cannot put '\{text\}s' around a text"):
        template.load_tokenizer(saved_model("bert"), template="{text}s", max_length=64)
