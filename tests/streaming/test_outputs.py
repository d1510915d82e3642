"""What `predict` writes: whole or not at all, and harmless where it is opened."""

import csv
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.errors import PipelineError
from stages.rows import formats
from stages.streaming import outputs
from stages.streaming.tables import Reject

TABLE = pd.DataFrame({"text": ["a", "=1+1"], "n": [1.5, -2]}, dtype=object)
TYPES = pa.schema({"text": pa.string(), "n": pa.float64()})
REJECT = Reject("a.csv", 7, "3 fields, 2 in the first line", "@a,\udce9,\u00e9")


def opened(path, home=None, **options):
    """An output of two columns."""
    return outputs.opened(path, home, TYPES if path and path.suffix == ".parquet" else None, **options)


@pytest.mark.parametrize("ending", outputs.ENDINGS)
def test_the_parts_of_a_file_make_one_as_one_part_does(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "PARTS_OF_GROUP", 2)
    path = tmp_path / f"answers{ending}"
    for start in range(0, 6, 2):
        with opened(path) as output:
            for number in range(start, 6):
                output.add(TABLE.assign(label=f"label {number}"))
        found = formats.read_all(path)
        assert found["label"].tolist() == [f"label {number}" for number in range(start, 6) for _ in range(2)]
        assert found["n"].astype(float).tolist() == [1.5, -2] * (6 - start)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_line_of_json_has_all_digits_and_null_for_what_is_missing():
    table = pd.DataFrame(
        {
            "n": [1e-12, float("nan")],
            "whole": pd.array([2**53 + 1, None], dtype="Int64"),
            "nested": [{"x": [0.1234567890123456, float("inf"), "\ud800"]}, np.array([1, 2])],
            "day": [pd.Timestamp("2026-01-02 03:04:05"), pd.NaT],
            "text": ["\u00e9\n", None],
        }
    )
    assert [json.loads(line) for line in outputs.as_jsonl(table).decode().splitlines()] == [
        {
            "n": 1e-12,
            "whole": 2**53 + 1,
            "nested": {"x": [0.1234567890123456, None, "\ufffd"]},
            "day": "2026-01-02T03:04:05",
            "text": "\u00e9\n",
        },
        {"n": None, "whole": None, "nested": [1, 2], "day": None, "text": None},
    ]


def test_a_parquet_file_has_the_types_that_it_was_given_whatever_a_part_holds(tmp_path):
    with opened(tmp_path / "answers.parquet") as output:
        output.add(pd.DataFrame({"text": [None], "n": [1], "probability": [0.5]}, dtype=object).infer_objects())
        output.add(pd.DataFrame({"text": ["a"], "n": [0.5], "probability": [1.0]}))
    assert pq.read_schema(tmp_path / "answers.parquet") == pa.schema([*TYPES, ("probability", pa.float64())])
    refused = pytest.raises(PipelineError, match=r"^answers.parquet: expected columns that such a file can hold")
    with refused, opened(tmp_path / "answers.parquet") as output:
        output.add(TABLE.assign(n=["a", "b"]))


def test_an_output_that_fails_leaves_what_was_there_and_its_parts(tmp_path):
    path, home = tmp_path / "answers.csv", tmp_path / "home"
    path.write_text("before")
    for expected in (False, True):
        with pytest.raises(KeyboardInterrupt), opened(path, home) as output:
            assert output.take_up() is expected
            if not expected:
                output.add(TABLE)
            raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["answers.csv", "home"]
    with opened(path, home) as output:
        assert output.take_up()
        assert not output.take_up()
        output.add(TABLE)
    assert path.read_text() == "text,n\na,1.5\n=1+1,-2\na,1.5\n=1+1,-2\n"


@pytest.mark.parametrize("rejects", [[], [REJECT]])
def test_an_output_whose_parts_cannot_become_one_leaves_the_rejects_of_the_one_before(rejects, tmp_path):
    path = tmp_path / "answers.csv"
    before = {"answers.csv": "before", "answers.rejects.csv": "rejects of before"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(PipelineError, match="expected all its parts"), opened(path) as output:
        output.add(TABLE)
        output.reject(rejects)
        output.part(0).unlink()
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == before


@pytest.mark.parametrize("defuse", [False, True])
def test_what_has_no_answer_is_listed_beside_the_output_and_counted(defuse, tmp_path, capsys):
    path = tmp_path / "answers.csv"
    with opened(path, defuse=defuse) as output:
        output.reject([REJECT])
        output.reject([])
        output.add(TABLE)
        output.reject([REJECT._replace(line=9)])
    with (tmp_path / "answers.rejects.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["file", "line", "reason", "content"]
    assert first == ["a.csv", "7", REJECT.reason, "'" * defuse + "@a,\ufffd,\u00e9"]
    assert second[1] == "9"
    assert capsys.readouterr().err == (
        "predict: 2 row(s) could not be read and have no answer; the first: a.csv, line 7: "
        "3 fields, 2 in the first line; all are in answers.rejects.csv\n"
    )
    with opened(path) as output:
        output.add(TABLE)
    assert not (tmp_path / "answers.rejects.csv").exists()


def test_without_an_answer_or_if_it_is_strict_a_row_that_cannot_be_read_ends_the_run(tmp_path):
    found = "a.csv: expected readable rows, found in line 7: 3 fields, 2 in the first line"
    for strict, more in ((True, "correct it, or leave out --strict"), (False, "so all 1 rows; correct them")):
        refused = pytest.raises(PipelineError, match=f"^{found}; {more}$")
        with refused, opened(tmp_path / "a.csv", strict=strict) as output:
            output.reject([REJECT])
    assert list(tmp_path.iterdir()) == []


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "-", "=", "-a"]
HARMLESS = ["a", "", "1=1", "-1", "+1.5e-3", "-.5", " =1", None, -1, 0.5, True, ["=1"]]


def test_what_a_spreadsheet_takes_for_a_formula_begins_with_an_apostrophe():
    given = pd.DataFrame({"=text": [*FORMULAS, *HARMLESS], "label": "-none"}, dtype=object)
    found = outputs.defused(given)
    assert list(found) == ["'=text", "label"]
    assert found["'=text"].tolist() == [*(f"'{text}" for text in FORMULAS), *HARMLESS]
    assert set(found["label"]) == {"'-none"}


@pytest.mark.parametrize("ending", [".csv", ".tsv", None])
def test_formulas_are_defused_on_request_alone(ending, tmp_path, capsys):
    path = ending and tmp_path / f"answers{ending}"
    for defuse in (False, True):
        with opened(path, defuse=defuse) as output:
            output.add(TABLE)
        written = path.read_text() if path else capsys.readouterr().out
        assert ("'=1+1" in written, "'-2" in written) == (defuse, False)


@pytest.mark.parametrize("defuse", [False, True])
@pytest.mark.parametrize("ending", [".csv", ".tsv", None])
def test_the_rows_own_values_are_written_as_they_are_beside_missing_ones_too(ending, defuse, tmp_path, capsys):
    own = {"id": [2**53 + 1, None, 7], "price": [0.00001, 2.5, None], "sold": [True, None, False]}
    table = pd.DataFrame(own, dtype=object).assign(label=["a", "=b", "c"], probability=[0.123456, 0.5, 1.0])
    path = ending and tmp_path / f"answers{ending}"
    with opened(path, defuse=defuse) as output:
        output.add(table)
    written = path.read_text() if path else capsys.readouterr().out
    rows = [line.split("," if ending == ".csv" else "\t") for line in written.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["9007199254740993", "1e-05", "True"], ["", "2.5", ""], ["7", "", "False"]]
    assert [row[3:] for row in rows[1:3]] == [
        ["a", "0.123456" if ending else "0.1235"],
        ["'=b" if defuse else "=b", "0.5" if ending else "0.5000"],
    ]


@pytest.mark.parametrize("ending", [*outputs.ENDINGS, None])
def test_columns_of_one_name_or_none_have_it_where_a_header_names_them(ending, tmp_path, capsys):
    path = ending and tmp_path / f"answers{ending}"
    with opened(path, header={"Unnamed: 0": "", "n.1": "n"}) as output:
        output.add(pd.DataFrame({"text": ["a"], "n": [1.0], "Unnamed: 0": ["b"], "n.1": ["c"]}))
    if ending in outputs.SPREADSHEETS or not ending:
        written = path.read_text() if path else capsys.readouterr().out
        assert written.replace("\t", ",").splitlines()[0] == "text,n,,n"
    else:
        assert list(formats.read_all(path)) == ["text", "n", "Unnamed: 0", "n.1"]


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_what_was_given(monkeypatch, capsys):
    for terminal, shown in ((True, "text\n\\x1b[31mred \nb\n"), (False, "text\n\x1b[31mred \nb\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        with outputs.opened(None, None, None) as output:
            for text in ("\x1b[31mred\r", "b"):
                output.add(pd.DataFrame({"text": [text]}))
        assert capsys.readouterr().out == shown
