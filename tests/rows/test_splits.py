"""Rows: labelled, cleaned, split and limited, and every dropped one counted."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, tiny_params

from stages import prepare
from stages.common.errors import PipelineError
from stages.params import Params
from stages.rows import splits


def options(**changes):
    return Params.model_validate(tiny_params(data=changes)).data


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def test_every_prefix_of_the_order_holds_the_classes_in_proportion():
    labels = pd.Series(["x"] * 300 + ["y"] * 100)
    order = splits.stratified_order(labels, seed=3)
    assert sorted(order) == list(range(400))
    share = (labels.iloc[order] == "y").to_numpy().cumsum()
    assert np.abs(share - 0.25 * np.arange(1, 401)).max() <= 1
    assert (order != splits.stratified_order(labels, seed=4)).any()
    assert (order == splits.stratified_order(labels, seed=3)).all()


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
    prepared = {
        "train": table(
            [base.upper() + "!!!", "Something else entirely, about trains and the people on them."], ["x", "y"]
        ),
        "validation": table([base.replace(" and ", ", and ")], ["x"]),
        "test": table([base], ["x"]),
    }
    for start, split in enumerate(prepared.values()):
        split["row"] += 10 * start
    dropped = Counter()
    kept = splits.drop_near_duplicates(prepared, 0.8, dropped)
    assert {name: len(split) for name, split in kept.items()} == {"train": 1, "validation": 0, "test": 1}
    assert dropped["near_duplicate_across_splits"] == 2


@pytest.mark.parametrize(("shared", "told"), [(2, False), (5, True)])
def test_it_is_said_when_many_rows_are_left_out_as_their_texts_share_a_long_passage(shared, told, capsys):
    passage = "Kind regards from all of us at the office, where we can be reached on every day of the week but Sunday"
    one, other = (
        [f"{number} {kind} {passage if number < shared else number}" for number in range(20)] for kind in "ab"
    )
    prepared = {"train": table(one, ["x"] * 20), "test": table(other, ["x"] * 20)}
    kept = splits.drop_near_duplicates(prepared, 0.8, Counter())
    assert len(kept["train"]) == 20 - shared
    line = f"warning: {shared} of 20 rows of train are left out, too like one in another split (row 1 is like row 1 of "
    assert capsys.readouterr().err.startswith(f"{line}test)") == told


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 9, r"expected at least two classes, found x"),
        ([], r"expected at least two classes, found no usable row"),
        (["x"] * 9 + ["y"] * 2 + ["z"], r"at least 3 rows of every class, .* fewer of z \(1\), y \(2\); add rows"),
    ],
)
def test_too_few_classes_or_rows_are_refused(labels, message):
    with pytest.raises(PipelineError, match=message):
        splits.split({"train": table([f"text {number}" for number in range(len(labels))], labels)}, options())


def test_a_limit_that_leaves_a_class_out_is_refused():
    with pytest.raises(PipelineError, match=r"split 'validation': expected rows of every class, found none of"):
        prepared(limit={"train": 60, "validation": 1, "test": 24})


@pytest.mark.parametrize(
    ("labels", "changes", "remedy"),
    [
        ([3.0, 4.0], {}, "raise data.limit.test, or raise data.split, or add rows"),
        ([3.0, 4.0], {"file": {"train": "a.csv", "test": "b.csv"}}, "raise data.limit.test, or add rows"),
        ([3.0], {}, "raise data.split, or add rows"),
    ],
)
def test_test_rows_of_one_label_are_refused_with_what_helps(labels, changes, remedy):
    limits = {"train": 2, "validation": 1, "test": 1}
    given = options(problem="regression", classes=None, limit=limits, **changes)
    tables = {"train": table(["a", "b"], [1.0, 2.0]), "test": table(["c", "d"][: len(labels)], labels)}
    with pytest.raises(PipelineError, match=rf"different labels, .* found value 3\.0 alone; {remedy}$"):
        splits.limit(tables, given, Counter())


def test_rows_that_are_all_alike_are_refused_with_the_setting_that_left_them_out():
    texts = [f"the same long sentence in every row of a table, but for the number {number}" for number in range(40)]
    with pytest.raises(PipelineError, match=r"raise data.near_duplicate, by which \d+ rows were too like one"):
        prepare.prepare({"train": table(texts, ["1", "-1"] * 20)}, options(near_duplicate=0.5), Counter())


def test_rows_of_blanks_only_are_refused():
    with pytest.raises(PipelineError, match=r"expected at least two classes, found no usable row"):
        prepare.prepare({"train": table([" ", "\t"], ["1", "-1"])}, options(), Counter())


@pytest.mark.parametrize("count", [3, 4, 6, 8])
def test_a_class_of_few_rows_has_one_in_each_split_whatever_the_limits(count):
    texts, _ = zip(*sentences(300), strict=True)
    rows = table(list(texts), ["rare"] * count + ["a", "b"] * ((300 - count) // 2) + ["a"] * (count % 2))
    cut = splits.split({"train": rows}, options())
    kept = splits.limit(cut, options(limit={"train": 60, "validation": 12, "test": 24}), Counter())
    assert {name: len(split) for name, split in kept.items()} == {"train": 60, "validation": 12, "test": 24}
    assert all((split["label"] == "rare").any() for split in kept.values())
    assert not pd.concat(kept.values())["row"].duplicated().any()


def test_a_ready_test_split_may_lack_a_class_but_train_may_not(capsys):
    texts, _ = zip(*sentences(60), strict=True)
    ready = options(file={"train": "a.csv", "test": "b.csv"})
    train, test = table(list(texts[:40]), ["x", "y", "z", "x"] * 10), table(list(texts[40:]), ["x", "y"] * 10)
    splits.limit(splits.split({"train": train, "test": test}, ready), ready, Counter())
    assert "split 'test': no row of z; scored without" in capsys.readouterr().err
    with pytest.raises(PipelineError, match=r"split 'train': expected rows of every class, found none of z"):
        splits.limit(splits.split({"train": test, "test": train}, ready), ready, Counter())
