"""The number of tokens that `encode.max_length: auto` stands for, and what other numbers would read."""

import math

import numpy as np
import pytest

from stages.encoding import template
from stages.encoding.length import Lengths


def lengths(train, *, others=(30,), around=5, window=math.inf):
    """Those of a split of training texts, and of two others."""
    rest = np.array(others)
    splits = {"train": np.array(train), "validation": rest, "test": rest}
    return Lengths(splits=splits, template=around, window=window, pairs=False)


@pytest.mark.parametrize(
    ("train", "budget", "expected"),
    [
        ([30, 60], math.inf, 256),
        ([30, 300], math.inf, 300),
        ([30, 5000], math.inf, 1024),
        ([30] * 10 + [300] * 9 + [400, 900], 3860, 400),
        ([30] * 10 + [400] * 10 + [900], 5260, 900),
        ([30] * 10 + [400] * 10 + [900], 4759, 384),
        ([30] * 10 + [400] * 10 + [900], 4583, 320),
        ([30] * 10 + [400] * 10 + [900], 10, 256),
        ([30, 60], 10, 256),
    ],
    ids=[
        "short texts get the usual length",
        "the longest text",
        "no more than memory allows",
        "the 95th percentile, where the longest is too long",
        "the longest, where it can be paid",
        "what the budget allows",
        "what a smaller budget allows",
        "the usual length in any case",
        "short texts are never cut",
    ],
)
def test_each_rule_has_its_turn(train, budget, expected):
    assert lengths(train).choose(budget) == expected


@pytest.mark.parametrize(("window", "expected"), [(128, 128), (512, 512), (8192, 700)])
def test_no_more_is_read_than_the_model_takes(window, expected):
    assert lengths([30, 700], window=window).choose(math.inf) == expected


def test_a_long_template_leaves_as_much_room_for_the_text():
    assert lengths([620, 640], around=600).choose(0) == 1200
    assert lengths([620, 640], around=600, window=512).choose(0) == 512


def test_only_training_texts_set_the_length_and_all_splits_the_cost():
    assert lengths([300], others=[900]).choose(math.inf) == 300
    assert lengths([300], others=[900]).choose(899) == 256
    assert lengths([300], others=[900]).choose(900) == 300


def test_tokens_read_and_cut_are_those_within_and_beyond_a_length():
    texts = lengths([30, 300], others=[10, 500])
    assert texts.read() == 30 + 300 + 2 * 510
    assert texts.read(200) == 30 + 200 + 2 * 210
    assert texts.cut("train", 200) == {"truncated_rows": 1, "truncated_tokens": 100}
    assert texts.cut("test", 500) == texts.cut("test", math.inf) == {"truncated_rows": 0, "truncated_tokens": 0}


def test_the_lengths_to_compare_are_the_usual_ones_up_to_the_longest_text_and_the_model():
    assert lengths([30, 300]).alternatives(256) == [128, 256, 300]
    assert lengths([30, 3000]).alternatives(1024) == [128, 256, 512, 1024, 3000]
    assert lengths([30, 3000], window=512).alternatives(384) == [128, 256, 384, 512]


@pytest.mark.parametrize(("limit", "stride"), [(32, 8), (32, 0), (48, 20)])
def test_the_tokens_of_windows_are_those_that_the_tokenizer_makes(saved_model, limit, stride):
    made = template.load_tokenizer(saved_model("llama"), template="Review: {text}\nSentiment:", max_length=limit)
    texts = [" ".join(["good"] * count) for count in (1, 5, 20, 21, 22, 23, 24, 25, 60, 100, 101)]
    whole = [len(tokens) for tokens in made(texts)["input_ids"]]
    found = template.token_rows(made, texts, stride)["tokens"]
    counted = lengths(whole, others=[], around=made.num_special_tokens_to_add()).in_windows(limit, stride)
    assert counted == sum(len(row) for rows in found for row in rows)
