"""Near-duplicates are found, and only they."""

import re
import tracemalloc
import unicodedata
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common import progress
from stages.rows import near, splits
from stages.rows.cleaning import plain


@cache
def shingles(text):
    """The substrings of five characters."""
    text = plain(text)
    return frozenset(text[start : start + 5] for start in range(max(1, len(text) - 4)))


def similarity(one, other):
    """The Jaccard similarity of the shingles of two texts."""
    shared = len(shingles(one) & shingles(other))
    return shared / (len(shingles(one)) + len(shingles(other)) - shared)


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def test_pairs_just_above_the_threshold_are_found():
    words = np.random.default_rng(0).integers(10**6, 10**7, size=(40, 40)).astype(str)
    train = [" ".join(row) for row in words]
    test = [" ".join([*row[:-3], "other", "words"]) for row in words]
    similar = [similarity(one, other) for one, other in zip(train, test, strict=True)]
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
    assert similarity(one, other) < 0.8
    assert plain(f"{one}, ({one})!") == f"{one} {one}"


def test_marks_that_follow_no_letter_are_no_words():
    assert plain("good \u2764\ufe0f, very \u0301good") == "good very good"


@settings(max_examples=300)
@given(st.text() | st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Z"]), max_size=20))
def test_texts_without_marks_are_split_into_runs_of_letters_and_digits(text):
    if not any(unicodedata.category(character).startswith("M") for character in text.casefold()):
        assert plain(text) == (" ".join(re.findall(r"\w+", text.casefold())) or text)


def made_up(count):
    """Texts of few words, of which many are alike, and some long ones, whose bitmaps say nothing."""
    generator = np.random.default_rng(5)
    words = generator.integers(100, 10**6, size=60).astype(str)
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(count)]
    texts += [" ".join(generator.choice(words, 400)) for _ in range(4)]
    changed = [f"{text}!" if number % 2 else f"{text[3:]} so" for number, text in enumerate(texts)]
    return np.array(texts + changed, dtype=object)


def as_few_at_once(monkeypatch):
    """Let every part of the work be small."""
    for name, size in {"CHUNK": 300, "PART": 900, "BLOCK": 2_000, "SHARED": 50}.items():
        monkeypatch.setattr(near, name, size)


@pytest.mark.parametrize("threshold", [0.2, 0.8, 1.0])
@pytest.mark.parametrize("memory", [1, near.KEY_BYTES])
def test_what_is_found_is_what_a_comparison_of_all_texts_that_share_a_key_finds(monkeypatch, threshold, memory):
    texts, groups = made_up(60), np.repeat([0, 1, 2], [40, 24, 64])
    expected = np.full(len(texts), -1)
    for *_, keys in near.Search(texts, groups, threshold).band_keys():
        for one in np.flatnonzero(expected < 0):
            for other in np.flatnonzero((keys == keys[one]) & (groups < groups[one])):
                if similarity(texts[one], texts[other]) >= threshold:
                    expected[one] = other
                    break
    monkeypatch.setattr(near, "KEY_BYTES", memory)
    monkeypatch.setattr(near, "EFFORT", 10**6)
    as_few_at_once(monkeypatch)
    assert near.near_duplicates_in_earlier_groups(texts, groups, threshold).tolist() == expected.tolist()
    assert (expected >= 0).sum() > 10


@pytest.mark.parametrize(
    "threshold", [0.2, 0.8, *(pytest.param(one, marks=pytest.mark.long) for one in (0.01, 0.7, 1.0))]
)
@pytest.mark.parametrize("buckets", [pytest.param(1, marks=pytest.mark.long), near.BUCKETS])
def test_of_texts_with_too_many_candidates_every_near_duplicate_is_found(monkeypatch, threshold, buckets):
    texts, groups = made_up(60), np.repeat([0, 1, 2], [40, 24, 64])
    similar = np.array([[similarity(one, other) for other in texts] for one in texts])
    expected = (similar >= threshold) & (groups < groups[:, None])
    monkeypatch.setattr(near, "EFFORT", 0)
    monkeypatch.setattr(near, "BUCKETS", buckets)
    as_few_at_once(monkeypatch)
    found = near.near_duplicates_in_earlier_groups(texts, groups, threshold)
    assert (found >= 0).tolist() == expected.any(axis=1).tolist()
    assert expected[found >= 0, found[found >= 0]].all()


def from_template(count):
    """Texts that differ in a number alone, and whose similarities are mostly below 0.7."""
    numbers = np.random.default_rng(6).choice(10**8, count, replace=False)
    return np.array([f"Your order number {number:08} has been shipped and will arrive soon" for number in numbers])


def test_near_duplicates_among_texts_from_a_template_are_found():
    texts, groups = from_template(600).astype(object), np.repeat([0, 1], 300)
    texts[450] = texts[7].replace("soon", "now")
    found = near.near_duplicates_in_earlier_groups(texts, groups, 0.8)
    assert found[450] == 7
    for one in range(300, 600):
        assert (found[one] >= 0) == any(similarity(texts[one], other) >= 0.8 for other in texts[:300])


def test_work_grows_with_the_texts_from_a_template_not_with_their_pairs(monkeypatch):
    judge, judged = near.Search.could_be_near, []

    def counting(self, ones, others):
        judged.append(len(ones))
        return judge(self, ones, others)

    monkeypatch.setattr(near.Search, "could_be_near", counting)
    work = []
    for count in (1_000, 4_000):
        judged.clear()
        near.near_duplicates_in_earlier_groups(from_template(count).astype(object), np.repeat([0, 1], count // 2), 0.8)
        work.append(sum(judged))
    assert work[1] < 6 * work[0]


def test_memory_does_not_grow_with_long_texts_that_share_a_passage():
    letters = np.random.default_rng(7).integers(97, 123, size=(60, 20_000), dtype=np.uint8)
    letters[:, :12_000] = letters[0, :12_000]
    texts = np.array([row.tobytes().decode() for row in letters], dtype=object)
    peaks = []
    for count in (30, 60):
        tracemalloc.start()
        near.near_duplicates_in_earlier_groups(texts[:count], np.repeat([0, 1], count // 2), 0.8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_what_takes_long_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0)
    monkeypatch.setattr(near, "EFFORT", 0)
    as_few_at_once(monkeypatch)
    near.near_duplicates_in_earlier_groups(made_up(60), np.repeat([0, 1], 64), 0.8)
    assert re.search(
        r"near-duplicates: \d+ of 128 texts, 00:00 left\n.*near-duplicates: \d+ of 25 rounds, .* left\n.*"
        r"near-duplicates: \d+ of \d+ texts, .* left\n",
        capsys.readouterr().err,
        re.DOTALL,
    )


def test_bitmaps_never_rule_out_a_pair_at_the_threshold():
    texts = made_up(30)
    for threshold in (0.1, 0.5, 0.8):
        made = near.Search(texts, np.zeros(len(texts)), threshold)
        next(made.band_keys())
        for one in range(len(texts)):
            similar = np.array([similarity(texts[one], other) for other in texts]) >= threshold
            assert made.could_be_near(np.full(len(texts), one), np.arange(len(texts)))[similar].all()


def test_without_texts_none_is_found():
    assert near.near_duplicates_in_earlier_groups(np.array([], dtype=object), np.array([], dtype=int), 0.8).size == 0


def test_texts_that_share_a_key_are_tried_in_their_order_until_one_is_near():
    keys, groups = np.array([5, 7, 5, 5, 7, 5, 9], dtype=np.uint64), np.array([0, 0, 0, 1, 1, 2, 2])
    near_ones, effort, tried = np.full(7, -1), np.ones(7), []
    for ones, others in near.candidates(keys, groups, near_ones, effort):
        tried.append(list(zip(ones.tolist(), others.tolist(), strict=True)))
        near_ones[3] = 0
    assert tried == [[(3, 0), (5, 0), (4, 1)], [(5, 2)], [(5, 3)]]
