"""Rows: labelled, cleaned, split and limited, and every dropped one counted."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, tiny_params

from stages import prepare
from stages.common.errors import PipelineError
from stages.params import Params
from stages.rows import near
from stages.rows import splits as rows


def options(**changes):
    return Params.model_validate(tiny_params(data=changes)).data


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def test_intervals_are_open_at_both_ends_and_the_rest_is_counted():
    dropped = Counter()
    kept = rows.classify(
        table(list("abcde"), ["-2", "0", "0.1", "3", "-0.0"]), {"bad": [None, 0], "good": [0, None]}, dropped
    )
    assert kept["label"].tolist() == ["bad", "good", "good"]
    assert dropped == {"in_no_class": 2}


@pytest.mark.parametrize("label", ["inf", "many"])
def test_a_label_that_is_no_finite_number_is_refused_where_others_are_in_intervals(label):
    with pytest.raises(PipelineError, match=rf"expected finite numbers as labels, found '{label}' in row 2"):
        rows.classify(table(["a", "b"], ["1", label]), {"bad": [None, 0], "good": [0, None]}, Counter())


def test_cleaning_drops_blanks_duplicates_and_contradictions_by_reason():
    dropped = Counter()
    kept = rows.clean_rows(
        table(["  a\n film ", "A FILM", " \t", "odd", "odd", "fine"], ["x", "x", "x", "x", "y", "y"]), dropped
    )
    assert kept["text"].tolist() == ["a film", "fine"]
    assert dropped == {"blank": 1, "conflicting_labels": 2, "duplicate": 1}


def test_every_prefix_of_the_order_holds_the_classes_in_proportion():
    labels = pd.Series(["x"] * 300 + ["y"] * 100)
    order = rows.stratified_order(labels, seed=3)
    assert sorted(order) == list(range(400))
    share = (labels.iloc[order] == "y").to_numpy().cumsum()
    assert np.abs(share - 0.25 * np.arange(1, 401)).max() <= 1
    assert (order != rows.stratified_order(labels, seed=4)).any()
    assert (order == rows.stratified_order(labels, seed=3)).all()


def prepared(count=200, **changes):
    texts, ratings = zip(*sentences(count), strict=True)
    dropped = Counter()
    tables = {"train": table(list(texts), [str(rating) for rating in ratings])}
    splits = prepare.prepare(tables, options(**changes), dropped)
    return splits, dropped


def test_splits_share_no_row_and_the_counts_add_up():
    splits, dropped = prepared()
    numbers = [set(split["row"]) for split in splits.values()]
    assert sum(map(len, numbers)) == len(set.union(*numbers))
    assert sum(map(len, numbers)) + sum(dropped.values()) == 200
    assert {name: len(split) for name, split in splits.items()} == {"train": 60, "validation": 12, "test": 24}


def test_a_smaller_train_limit_takes_a_subset_and_leaves_the_other_splits_alone():
    large, _ = prepared(limit={"train": 40, "validation": 12, "test": 24})
    small, _ = prepared(limit={"train": 10, "validation": 12, "test": 24})
    assert set(small["train"]["row"]) < set(large["train"]["row"])
    for name in ("validation", "test"):
        pd.testing.assert_frame_equal(small[name], large[name])


def test_near_duplicates_never_sit_in_two_splits():
    base = "This remarkable picture about a lighthouse keeper and his daughter moves slowly but surely to its end"
    splits = {
        "train": table(
            [base.upper() + "!!!", "Something else entirely, about trains and the people on them."], ["x", "y"]
        ),
        "validation": table([base.replace(" and ", ", and ")], ["x"]),
        "test": table([base], ["x"]),
    }
    for start, split in enumerate(splits.values()):
        split["row"] += 10 * start
    dropped = Counter()
    kept = rows.separate(splits, 0.8, dropped)
    assert {name: len(split) for name, split in kept.items()} == {"train": 1, "validation": 0, "test": 1}
    assert dropped["near_duplicate_across_splits"] == 2


def test_pairs_just_above_the_threshold_are_found():
    words = np.random.default_rng(0).integers(10**6, 10**7, size=(40, 40)).astype(str)
    train = [" ".join(row) for row in words]
    test = [" ".join([*row[:-3], "other", "words"]) for row in words]
    similar = [near.jaccard(near.shingles(one), near.shingles(other)) for one, other in zip(train, test, strict=True)]
    assert 0.8 <= min(similar) <= max(similar) < 0.9
    splits = {"train": table(train, "x"), "validation": table([], []), "test": table(test, "x")}
    splits["test"]["row"] += 100
    assert len(rows.separate(splits, 0.8, Counter())["train"]) == 0


def test_texts_of_emoji_alone_are_near_only_where_the_emoji_are_the_same():
    texts = np.array(["😀 😀", "😡", "😀 😀", "!?"], dtype=object)
    assert near.near_earlier(texts, np.array([0, 0, 1, 1]), 0.8).tolist() == [-1, -1, 0, -1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 9, r"expected at least two classes, found x"),
        ([], r"expected at least two classes, found no usable row"),
        (["x"] * 9 + ["y"] * 2, r"class 'y': expected at least 3 rows, one for each split, found 2"),
    ],
)
def test_too_few_classes_or_rows_are_refused(labels, message):
    with pytest.raises(PipelineError, match=message):
        rows.split({"train": table([f"text {number}" for number in range(len(labels))], labels)}, options())


def test_a_limit_that_leaves_a_class_out_is_refused():
    with pytest.raises(PipelineError, match=r"split 'validation': expected rows of every class, found none of"):
        prepared(limit={"train": 60, "validation": 1, "test": 24})


def test_rows_of_blanks_only_are_refused():
    with pytest.raises(PipelineError, match=r"expected at least two classes, found no usable row"):
        prepare.prepare({"train": table([" ", "\t"], ["1", "-1"])}, options(), Counter())
