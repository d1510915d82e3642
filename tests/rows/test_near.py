"""Near-duplicates are found, and only they."""

import re
import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.rows import near, splits


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def test_pairs_just_above_the_threshold_are_found():
    words = np.random.default_rng(0).integers(10**6, 10**7, size=(40, 40)).astype(str)
    train = [" ".join(row) for row in words]
    test = [" ".join([*row[:-3], "other", "words"]) for row in words]
    similar = [near.jaccard(near.shingles(one), near.shingles(other)) for one, other in zip(train, test, strict=True)]
    assert 0.8 <= min(similar) <= max(similar) < 0.9
    prepared = {"train": table(train, "x"), "validation": table([], []), "test": table(test, "x")}
    prepared["test"]["row"] += 100
    assert len(splits.drop_near_duplicates(prepared, 0.8, Counter())["train"]) == 0
    both = np.array(test + train, dtype=object)
    found = near.near_duplicates_in_earlier_groups(both, np.repeat([0, 1], 40), 0.8)
    assert found.tolist() == [-1] * 40 + list(range(40))


def test_texts_of_emoji_alone_are_near_only_where_the_emoji_are_the_same():
    texts = np.array(["😀 😀", "😡", "😀 😀", "!?"], dtype=object)
    assert near.near_duplicates_in_earlier_groups(texts, np.array([0, 0, 1, 1]), 0.8).tolist() == [-1, -1, 0, -1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("वह लड़का अच्छा था", "वह लड़की अच्छी थी"),
        ("มีคนดี", "มาคนดู"),
        ("1\ufe0f\u20e3 und so", "2\ufe0f\u20e3 und so"),
    ],
)
def test_words_that_differ_in_their_marks_differ(one, other):
    assert near.jaccard(near.shingles(one), near.shingles(other)) < 0.8
    assert near.plain(f"{one}, ({one})!") == f"{one} {one}"


def test_marks_that_follow_no_letter_are_no_words():
    assert near.plain("good \u2764\ufe0f, very \u0301good") == "good very good"


@settings(max_examples=300)
@given(st.text() | st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Z"]), max_size=20))
def test_texts_without_marks_are_split_into_runs_of_letters_and_digits(text):
    if not any(unicodedata.category(character).startswith("M") for character in text.casefold()):
        assert near.plain(text) == (" ".join(re.findall(r"\w+", text.casefold())) or text)


def made_up(count):
    """Texts of few words, of which many are alike, and some long ones, whose bitmaps say nothing."""
    generator = np.random.default_rng(5)
    words = generator.integers(100, 10**6, size=60).astype(str)
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(count)]
    texts += [" ".join(generator.choice(words, 400)) for _ in range(4)]
    changed = [f"{text}!" if number % 2 else f"{text[3:]} so" for number, text in enumerate(texts)]
    return np.array(texts + changed, dtype=object)


@pytest.mark.parametrize("threshold", [0.2, 0.8, 1.0])
@pytest.mark.parametrize("memory", [1, near.KEY_BYTES])
def test_what_is_found_is_what_a_comparison_of_all_texts_that_share_a_key_finds(monkeypatch, threshold, memory):
    texts, groups = made_up(60), np.repeat([0, 1, 2], [40, 24, 64])
    sets, expected = [near.shingles(text) for text in texts], np.full(len(texts), -1)
    for keys in near.Sketches(texts, threshold).band_keys():
        for one in np.flatnonzero(expected < 0):
            for other in np.flatnonzero((keys == keys[one]) & (groups < groups[one])):
                if near.jaccard(sets[one], sets[other]) >= threshold:
                    expected[one] = other
                    break
    monkeypatch.setattr(near, "KEY_BYTES", memory)
    monkeypatch.setattr(near, "CHUNK", 7)
    monkeypatch.setattr(near, "PART", 20)
    monkeypatch.setattr(near, "PAIRS", 3)
    assert near.near_duplicates_in_earlier_groups(texts, groups, threshold).tolist() == expected.tolist()
    assert (expected >= 0).sum() > 10


def test_bitmaps_never_rule_out_a_pair_at_the_threshold():
    texts = made_up(30)
    sets = [near.shingles(text) for text in texts]
    for threshold in (0.1, 0.5, 0.8):
        sketches = near.Sketches(texts, threshold)
        next(sketches.band_keys())
        for one in range(len(texts)):
            similar = np.array([near.jaccard(sets[one], other) for other in sets]) >= threshold
            assert sketches.could_be_near(np.full(len(texts), one), np.arange(len(texts)))[similar].all()


def test_without_texts_none_is_found():
    assert near.near_duplicates_in_earlier_groups(np.array([], dtype=object), np.array([], dtype=int), 0.8).size == 0


def test_texts_that_share_a_key_are_tried_in_their_order_until_one_is_near():
    keys, groups = np.array([5, 7, 5, 5, 7, 5, 9], dtype=np.uint64), np.array([0, 0, 0, 1, 1, 2, 2])
    near_ones, tried = np.full(7, -1), []
    for ones, others in near.candidates(keys, groups, near_ones):
        tried.append(list(zip(ones.tolist(), others.tolist(), strict=True)))
        near_ones[3] = 0
    assert tried == [[(3, 0), (5, 0), (4, 1)], [(5, 2)], [(5, 3)]]
