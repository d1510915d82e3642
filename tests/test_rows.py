"""Rows: read, labelled, cleaned, split and limited, and every dropped one counted."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, tiny_params

from stages import prepare
from stages.common import near, rows
from stages.common.errors import PipelineError
from stages.common.params import Params


def options(**changes):
    return Params.model_validate(tiny_params(data=changes)).data


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def write(tmp_path, content, name="rows.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tsv_takes_quotes_as_they_are(tmp_path):
    read = rows.read(write(tmp_path, '1\t2.0\tA "fine film\n2\t-1.0\tDull"\n'), options())
    assert read["text"].tolist() == ['A "fine film', 'Dull"']
    assert read["row"].tolist() == [1, 2]


def test_csv_takes_quotes_as_quotes_and_names_from_the_first_line(tmp_path):
    data = options(format="csv", columns=None, text="review", label="stars", bins=None)
    read = rows.read(write(tmp_path, 'stars,review\ngood,"one, two"\nbad,"a ""b"""\n'), data)
    assert read["text"].tolist() == ["one, two", 'a "b"']
    assert read["label"].tolist() == ["good", "bad"]


def test_jsonl_is_read(tmp_path):
    data = options(format="jsonl", columns=None, text="text", label="label", bins=None)
    read = rows.read(write(tmp_path, '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'), data)
    assert read["label"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("", {}, r"rows.txt: expected labelled rows, found an empty file"),
        (b"1\t2.0\tcaf\xe9\n", {}, r"expected UTF-8 text, found byte 0xe9 at \d+; convert the file to UTF-8"),
        ("a,b\n1,2\n", {"format": "csv", "columns": None}, r"expected a column 'text' \(data.text\), found a, b"),
        ("text\nx\n", {"format": "csv", "columns": None}, r"expected a column 'rating' \(data.label\), found text"),
        ("1\t2.0\tx\tcut off\n2\t1.0\ty\n", {}, r"expected tsv, found: Length of header or names does not match"),
        ("1\t2.0\tx\n2\t1.0\ty\tcut off\n", {}, r"expected tsv, found: .*"),
        ("1\tnan\tx\n2\t1.0\ty\n", {}, r"found 1 without one, the first in row 1 of column 'rating'"),
        ("1\t\tx\n", {}, r"expected a label in every row, found 1 without one"),
        ('{"text": 1\n', {"format": "jsonl", "columns": None}, r"expected jsonl, found: "),
    ],
)
def test_a_bad_file_says_what_was_expected_and_found(tmp_path, content, changes, message):
    with pytest.raises(PipelineError, match=message):
        rows.read(write(tmp_path, content), options(**changes))


def test_bins_are_open_at_both_ends_and_the_rest_is_counted():
    dropped = Counter()
    kept = rows.bin_labels(
        table(list("abcde"), ["-2", "0", "0.1", "3", "-0.0"]), {"bad": [None, 0], "good": [0, None]}, dropped
    )
    assert kept["label"].tolist() == ["bad", "good", "good"]
    assert dropped == {"outside_bins": 2}


@pytest.mark.parametrize("label", ["inf", "many"])
def test_a_label_that_is_no_finite_number_is_refused_where_bins_are_asked_for(label):
    with pytest.raises(PipelineError, match=rf"expected finite numbers as labels, found '{label}' in row 2"):
        rows.bin_labels(table(["a", "b"], ["1", label]), {"bad": [None, 0], "good": [0, None]}, Counter())


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
    splits = prepare.prepare(table(list(texts), [str(rating) for rating in ratings]), options(**changes), dropped)
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
        rows.split(table([f"text {number}" for number in range(len(labels))], labels), options())


def test_a_limit_that_leaves_a_class_out_is_refused():
    with pytest.raises(PipelineError, match=r"split 'validation': expected rows of every class, found none of"):
        prepared(limit={"train": 60, "validation": 1, "test": 24})


def test_rows_of_blanks_only_are_refused():
    with pytest.raises(PipelineError, match=r"expected at least two classes, found no usable row"):
        prepare.prepare(table([" ", "\t"], ["1", "-1"]), options(), Counter())
