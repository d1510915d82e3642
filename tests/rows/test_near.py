"""Near-duplicates are found, and only they."""

from collections import Counter

import numpy as np
import pandas as pd

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
