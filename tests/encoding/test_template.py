"""The prompt template lives in the tokenizer."""

import shutil
from collections import Counter

import pytest
from conftest import CAUSAL, sentences
from families import MODELS
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from stages.common.errors import PipelineError
from stages.common.texts import clean
from stages.encoding import template

PAIRS = (
    "Premise: {text}\nHypothesis: {text_pair}\nEntailment:",
    "{text}\n{text_pair}\nSame:",
    "Compare: {text}\nwith: {text_pair}",
)
ODD = "\u1100\u1161\u11a8\uac00\u1e9b\u0323\u0301\u2126\u212b\ufb01\U0001d15e\u180e\u2000\u200b\u2028\u3000\ufeff"
"""Parts of Korean syllables, accents and what they compose, letters that are written as others, and kinds of space."""
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


@pytest.mark.parametrize("form", TEMPLATES)
@pytest.mark.parametrize("family", MODELS)
def test_a_text_as_it_comes_gets_the_tokens_of_the_cleaned_text_also_after_saving(family, form, saved_model, tmp_path):
    template.load_tokenizer(saved_model(family), template=form, max_length=100).save_pretrained(tmp_path)
    loaded, raw = AutoTokenizer.from_pretrained(tmp_path), " A\tgood \u00a0film,\r\n\n not\0 u\u0308bel.\x1f \u3000"
    assert clean(raw) == "A good film, not übel."
    assert loaded(raw)["input_ids"] == loaded(clean(raw))["input_ids"]
    assert loaded(raw)["input_ids"] != loaded("good")["input_ids"]


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x6FF) | st.sampled_from(ODD)))
def test_the_tokenizer_cleans_a_text_as_prepare_does(text):
    assert normalizers.Sequence([*template.CLEANING]).normalize_str(text) == clean(text)


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


@pytest.mark.parametrize("form", TEMPLATES)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_where_asked_the_tail_of_a_long_text_stays_also_after_saving(family, form, saved_model, tmp_path):
    template.load_tokenizer(saved_model(family), template=form, max_length=40, truncation="tail").save_pretrained(
        tmp_path
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    around, whole = tokenizer("")["input_ids"], tokenizer("bad story " * 50 + "good film " * 50)["input_ids"]
    before = next(place for place, token in enumerate([*around, None]) if token != whole[place])
    cut = tokenizer("bad story " * 50 + "good film " * 50, truncation=True)["input_ids"]
    assert cut == whole[:before] + whole[before - 40 :]
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize("form", PAIRS)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_template_of_pairs_surrounds_both_texts_also_after_saving(family, form, saved_model, tmp_path):
    plain = AutoTokenizer.from_pretrained(saved_model(family))
    template.load_tokenizer(saved_model(family), template=form, max_length=60, pairs=True).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [text for text, _ in sentences(20)]
    pairs = list(zip(texts, reversed(texts), strict=True))
    formatted = [form.format(text=text, text_pair=pair) for text, pair in pairs]
    assert loaded(pairs)["input_ids"] == plain(formatted)["input_ids"]
    assert set(loaded(pairs)) == {"input_ids", "attention_mask"}
    long = loaded([("good film " * 50, "bad story " * 50)], truncation=True)["input_ids"][0]
    assert len(long) == 60
    assert not Counter(loaded([("", "")])["input_ids"][0]) - Counter(long), "the template is whole"


def test_pairs_without_a_template_stand_as_the_tokenizer_puts_them(saved_model):
    tokenizer = template.load_tokenizer(saved_model("bert"), template="{text}", max_length=60, pairs=True)
    plain = AutoTokenizer.from_pretrained(saved_model("bert"))
    assert tokenizer([("good", "bad")])["input_ids"] == plain([("good", "bad")])["input_ids"]


@pytest.mark.parametrize("form", [None, "{text}"])
@pytest.mark.parametrize(("family", "typed"), [("bert", True), ("albert", True), ("distilbert", False)])
def test_a_model_that_tells_a_first_text_from_a_second_is_told_which_is_which_also_after_saving(
    family, form, typed, saved_model, tmp_path
):
    plain = AutoTokenizer.from_pretrained(saved_model(family), model_input_names=["input_ids", "token_type_ids"])
    template.load_tokenizer(saved_model(family), template=form, max_length=9, pairs=True).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    pairs = [("good film", "bad"), ("good film " * 9, "bad " * 9)]
    expected = plain(pairs, truncation=True, max_length=9)
    assert expected["token_type_ids"][1] == [0] * 5 + [1] * 4
    found = loaded(pairs, truncation=True)
    assert found["input_ids"] == expected["input_ids"]
    assert found.get("token_type_ids") == (expected["token_type_ids"] if typed else None)


def test_a_max_length_without_room_for_a_pair_is_refused(saved_model):
    options = {"template": PAIRS[0], "pairs": True}
    tokenizer = template.load_tokenizer(saved_model("llama"), max_length=60, **options)
    room = len(tokenizer([("", "")])["input_ids"][0])
    with pytest.raises(PipelineError, match=rf"encode.max_length: expected more than the {room} tokens"):
        template.load_tokenizer(saved_model("llama"), max_length=room, **options)


@pytest.mark.parametrize("form", ["{text}", "Review: {text}\nSentiment:"])
@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral", "bert", "albert"])
def test_special_tokens_written_out_in_a_text_are_plain_text_also_after_saving(family, form, saved_model, tmp_path):
    template.load_tokenizer(saved_model(family), template=form, max_length=100).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    around = Counter(loaded("")["input_ids"])
    for token in {*loaded.all_special_tokens} - {loaded.unk_token}:
        texts = [token, f"A {token} good film", f"good{token}{token}film", f"film {token}"]
        windows = loaded(texts, truncation=True, stride=2, return_overflowing_tokens=True)["input_ids"]
        for ids in (*loaded(texts)["input_ids"], *windows):
            inside = {*(Counter(ids) - around)}
            assert inside
            assert not inside & ({*loaded.all_special_ids} - {loaded.unk_token_id})


@pytest.mark.parametrize("family", ["mistral", "albert"])
def test_special_tokens_of_a_template_are_what_they_mean(family, saved_model):
    special = AutoTokenizer.from_pretrained(saved_model(family)).special_tokens_map
    token = special.get("eos_token", special.get("sep_token"))
    tokenizer = template.load_tokenizer(saved_model(family), template=token + "{text}" + token, max_length=64)
    ids = tokenizer(f"good {token}")["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids(token)) == tokenizer("")["input_ids"].count(
        tokenizer.convert_tokens_to_ids(token)
    )
    assert ids.count(tokenizer.convert_tokens_to_ids(token)) >= 2


def test_a_model_whose_pieces_are_whole_words_takes_no_word_for_a_special_token():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "good": 2, "[": 3, "MASK]": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template.split_special_pieces(tokenizer, ["[UNK]", "[MASK]"])
    assert tokenizer.encode("good [MASK] good").ids == [2, 3, 4, 2]


def test_token_types_are_left_out(saved_model, tmp_path):
    shutil.copytree(saved_model("bert"), tmp_path / "base")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    typed = AutoTokenizer.from_pretrained(tmp_path / "base", model_input_names=names)
    typed.save_pretrained(tmp_path / "base")
    assert set(AutoTokenizer.from_pretrained(tmp_path / "base")("good", "bad")) == set(names)
    template.load_tokenizer(tmp_path / "base", template="{text}", max_length=60).save_pretrained(tmp_path / "saved")
    assert set(AutoTokenizer.from_pretrained(tmp_path / "saved")("good", "bad")) == {"input_ids", "attention_mask"}
