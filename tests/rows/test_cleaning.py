"""Labels become classes, texts are cleaned, and every dropped row is counted by its reason."""

from collections import Counter

import pandas as pd
import pytest

from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.rows import cleaning

SINGLE = PROBLEMS["single_label"]


def table(texts, labels):
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": labels})


def test_intervals_are_open_at_both_ends_and_the_rest_is_counted():
    dropped = Counter()
    kept = cleaning.classify(
        table(list("abcde"), ["-2", "0", "0.1", "3", "-0.0"]), {"bad": [None, 0], "good": [0, None]}, dropped
    )
    assert kept["label"].tolist() == ["bad", "good", "good"]
    assert dropped == {"in_no_class": 2}


@pytest.mark.parametrize("label", ["inf", "many"])
def test_a_label_that_is_no_finite_number_is_refused_where_others_are_in_intervals(label):
    with pytest.raises(PipelineError, match=rf"expected finite numbers as labels, found '{label}' in row 2"):
        cleaning.classify(table(["a", "b"], ["1", label]), {"bad": [None, 0], "good": [0, None]}, Counter())


def test_cleaning_drops_blanks_duplicates_and_contradictions_by_reason():
    dropped = Counter()
    kept = cleaning.clean_rows(
        table(["  a\n film ", "A FILM", " \t", "odd", "odd", "fine"], ["x", "x", "x", "x", "y", "y"]), SINGLE, dropped
    )
    assert kept["text"].tolist() == ["a film", "fine"]
    assert dropped == {"blank": 1, "conflicting_labels": 2, "duplicate": 1}


@pytest.mark.parametrize(
    ("column", "labels", "named"),
    [
        ("text", ["x", "y", "z", "y"], "row 1 (x) and row 3 (z) and row 4 (y)"),
        ("text_pair", ["x", "x", "z", "y"], "row 1 (x) and row 3 (z) and row 4 (y)"),
        ("text", ['["a"]', "[]", '["b"]', '["a", "b"]'], 'row 1 (["a"]) and row 3 (["b"]) and row 4 (["a", "b"])'),
    ],
)
def test_contradictory_labels_are_told_with_the_numbers_of_their_rows(column, labels, named, capsys):
    rows = table(["same", "other", " SAME", "Same"], labels)
    rows = rows if column == "text" else rows.assign(text="one", text_pair=rows["text"])
    dropped = Counter()
    assert cleaning.clean_rows(rows, SINGLE, dropped, place=" of train")["row"].tolist() == [2]
    assert dropped["conflicting_labels"] == 3
    assert capsys.readouterr().err == (
        f"warning: texts of train whose rows have different labels are left out, 1 in all; correct them: {named}\n"
    )


@pytest.mark.parametrize(
    ("problem", "labels", "kept", "counts", "told"),
    [
        ("single_label", ["x", "y", "x", "y"], (1, "x"), (1, 1), "keep the one that more than half"),
        ("single_label", ["z", "y", "x", "x"], (3, "x"), (1, 1), "keep the one that more than half"),
        ("multi_label", ['["a"]', "[]", '["a"]', "[]"], (1, '["a"]'), (1, 1), "keep the one that more than half"),
        ("regression", [1.0, 2.0, 4.0, 1.5], (1, 1.5), (0, 2), "get the median"),
    ],
)
def test_a_text_with_several_labels_keeps_what_its_rows_agree_on(problem, labels, kept, counts, told, capsys):
    dropped = Counter()
    rows = table(["same", "other", " SAME", "Same"], labels)
    found = cleaning.clean_rows(rows, PROBLEMS[problem], dropped)
    assert sorted(zip(found["row"], found["label"], strict=True)) == sorted([kept, (2, labels[1])])
    assert (dropped["conflicting_labels"], dropped["duplicate"]) == counts
    assert found["row"].is_monotonic_increasing
    assert found["label"].dtype == rows["label"].dtype
    line = capsys.readouterr().err
    assert line.startswith(f"warning: texts whose rows have different labels {told}")
    assert line.endswith(
        f", 1 in all; correct them: row 1 ({labels[0]}) and row 3 ({labels[2]}) and row 4 ({labels[3]})\n"
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ((["x", "y"], ["y", "y"], ["x"]), "row 1 of train (x) and row 1 of test (y) and row 1 of validation (x)"),
        ((["x", "y"], ["x", "x"], ["x"]), None),
        (([1.0, 2.0], [1.5, 2.0], [1.5]), "row 1 of train (1.0) and row 1 of test (1.5) and row 1 of validation (1.5)"),
    ],
)
def test_contradictions_between_ready_splits_are_told_with_rows_and_splits(labels, told, capsys):
    train, test, validation = labels
    cleaning.warn_of_contradictions_between(
        {
            "train": table(["same", "one"], train),
            "test": table(["SAME", "other"], test),
            "validation": table(["same"], validation),
        }
    )
    line = "warning: texts with another label in another split stay in one of them, 1 in all; correct them: "
    assert capsys.readouterr().err == (f"{line}{told}\n" if told else "")


def test_a_long_list_of_contradictions_is_cut_and_without_one_nothing_is_said(capsys):
    repeated = [f"text {number // 2}" for number in range(400)]
    cleaning.clean_rows(table(repeated, ["x", "y"] * 200), SINGLE, Counter())
    line = capsys.readouterr().err
    assert "are left out, 200 in all; correct them: row 1 (x) and row 2 (y); row 3" in line
    assert line.endswith(" …\n")
    assert len(line) < 400
    cleaning.clean_rows(table(repeated, ["x"] * 400), SINGLE, Counter())
    assert capsys.readouterr().err == ""


def test_classes_that_no_label_has_are_named_with_the_labels_that_there_are(capsys):
    rows = table(list("abc"), ["1", "2", "2"])
    assert cleaning.classify(rows, {"one": 1.0, "ten": "10"}, Counter())["label"].tolist() == ["one"]
    assert "data.classes: expected labels with the value '10' (ten), found '2' (2 rows)" in capsys.readouterr().err
    with pytest.raises(PipelineError, match=r"'3' \(x\), 'true' \(y\), found '2' \(2 rows\), '1' \(1 rows\)"):
        cleaning.classify(rows, {"x": 3, "y": True}, Counter())
