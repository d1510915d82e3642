"""Rows are numbered as in their source, and each has a label of its problem's kind."""

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
    table = reading.read(path, options())
    assert table.to_dict("list") == {
        "row": [1, 2, 3],
        "text": [" As  it is ", 7, None],
        "label": ["good", "true", "0"],
    }


def test_a_pair_has_both_of_its_texts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("two,label,text,more\nb,x,a,y\n")
    table = reading.read(path, options(text_pair="two"))
    assert table.to_dict("list") == {"row": [1], "text": ["a"], "text_pair": ["b"], "label": ["x"]}


@pytest.mark.parametrize("missing", ["null", '""', '" "', '"NaN"', '"Null"'])
def test_rows_without_a_label_are_counted_and_the_first_is_named(tmp_path, missing):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join('{"text": "x", "label": ' + label + "}" for label in ("1", missing, "2", missing)))
    with pytest.raises(PipelineError) as caught:
        reading.read(path, options())
    assert str(caught.value) == (
        "rows.jsonl: expected a label in every row, found 2 without one, the first in row 2 of column 'label'; label "
        "them or remove them"
    )


def test_a_list_is_no_label_where_a_row_has_one_class(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "label": ["a"]}')
    with pytest.raises(PipelineError, match=r"in column 'label' \(data.label\), found list in row 1"):
        reading.read(path, options())
