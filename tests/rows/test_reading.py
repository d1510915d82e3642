"""Rows are numbered as in their source, and each has a label of its problem's kind."""

from collections import Counter

import pytest
from conftest import tiny_params

from stages.common.errors import PipelineError
from stages.params import Params
from stages.rows import reading

OWN = {"format": None, "label": "label", "classes": None}


def options(**changes):
    return Params.model_validate(tiny_params(data=OWN | changes, encode={"template": "{text}"})).data


def test_rows_are_numbered_from_1_and_labels_are_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"label": " good ", "text": " As  it is "}\n\n{"label": true, "text": 7}\n{"label": 0}')
    table = reading.read(path, options(), Counter())
    assert table.to_dict("list") == {
        "row": [1, 2, 3],
        "text": [" As  it is ", 7, None],
        "label": ["good", "true", "0"],
    }


def test_a_pair_has_both_of_its_texts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("two,label,text,more\nb,x,a,y\n")
    table = reading.read(path, options(text_pair="two"), Counter())
    assert table.to_dict("list") == {"row": [1], "text": ["a"], "text_pair": ["b"], "label": ["x"]}


@pytest.mark.parametrize(("problem", "label"), [("single_label", "queue"), ("regression", "hours")])
def test_columns_are_chosen_by_some_rows_of_a_long_file_which_may_be_sorted(tmp_path, monkeypatch, problem, label):
    path = tmp_path / "rows.csv"
    lines = [f"{row},the printer number {row} is broken,{'ab'[row // 200]},{row % 7 / 2}" for row in range(400)]
    path.write_text("\n".join(["id,body,queue,hours", *lines]))
    monkeypatch.setattr(reading, "SAMPLE", 40)
    data = reading.with_columns(path, options(text=None, label=None, problem=problem))
    assert (data.text, data.label) == ("body", label)


@pytest.mark.parametrize("missing", ["null", '""', '" "', "NaN"])
def test_rows_without_a_label_are_counted_and_the_first_is_named(tmp_path, missing):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join('{"text": "x", "label": ' + label + "}" for label in ("1", missing, "2", missing)))
    with pytest.raises(PipelineError) as caught:
        reading.read(path, options(), Counter())
    assert str(caught.value) == (
        "rows.jsonl: expected a label in every row, found 2 without one, the first in row 2 of column 'label'; label "
        "them or remove them"
    )


def test_a_list_is_no_label_where_a_row_has_one_class(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "label": ["a"]}')
    with pytest.raises(PipelineError, match=r"in column 'label' \(data.label\), found list in row 1"):
        reading.read(path, options(), Counter())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "text,label\na,x\n,\nb,y\n,\n\n\n"),
        ("rows.csv", "text;label;more\na;x;1\n;;\nb;y;2\n;;\n \n;;\n"),
        ("rows.tsv", "text\tlabel\na\tx\n\t\nb\ty\n\n\n \t \n"),
        ("rows.jsonl", '{"text": "a", "label": "x"}\n{}\n{"text": "b", "label": "y"}\n' + 3 * '{"text": " "}\n'),
        ("rows.jsonl", '{"text": "a", "label": "x"}\n{}\n{"text": "b", "label": "y"}\n' + 3 * '{"text": NaN}\n'),
    ],
)
def test_rows_without_text_and_label_are_left_out_and_counted_and_the_others_keep_their_numbers(
    tmp_path, name, content
):
    path, dropped = tmp_path / name, Counter()
    path.write_text(content)
    table = reading.read(path, options(), dropped)
    assert table.to_dict("list") == {"row": [1, 3], "text": ["a", "b"], "label": ["x", "y"]}
    assert dropped == {"blank": 4}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "text,label\na,NA\nb,null\nc,None\nd,nan\n"),
        ("rows.tsv", "text\tlabel\na\tNA\nb\tnull\nc\tNone\nd\tnan\n"),
        (
            "rows.jsonl",
            "".join(f'{{"text": "a {word}", "label": "{word}"}}\n' for word in ("NA", "null", "None", "nan")),
        ),
    ],
)
def test_words_that_look_like_missing_values_are_labels(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert reading.read(path, options(), Counter())["label"].tolist() == ["NA", "null", "None", "nan"]


def test_spellings_of_one_label_are_one_class_and_codes_stay_apart(tmp_path):
    path = tmp_path / "rows.jsonl"
    labels = [1, 1.0, '"1"', '"1.0"', '" 1 "', "true", '"True"', '"caf\u00e9"', '"cafe\u0301"', '"01"', '"1.5"', 1.5]
    labels += [0, -0.0, "-0", '"-0.0"', -10.0]
    path.write_text("".join(f'{{"text": "x", "label": {label}}}\n' for label in labels))
    found = reading.read(path, options(), Counter())["label"].tolist()
    assert found == ["1"] * 5 + ["true"] * 2 + ["café"] * 2 + ["01", "1.5", "1.5"] + ["0"] * 4 + ["-10"]
