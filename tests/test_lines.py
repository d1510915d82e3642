"""A line in gives a line out, whatever characters it holds that some reader takes for a line's end."""

import csv
import gzip
import io
import json
import re
from argparse import Namespace

import pandas as pd
import pyarrow as pa
import pytest

from stages import predict
from stages.common import texts
from stages.common.errors import PipelineError
from stages.encoding import template
from stages.rows import formats
from stages.streaming import outputs, tables
from stages.streaming.tables import Tables

BREAKS = "\u2028\u2029\f\v\x85\x1c\x1d\x1e\r"
LINES = [*(f"A{character}film" for character in BREAKS), "", " ", "\u200b", "Last"]


def quoted(lines, end):
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([["text"], *([line] for line in lines)])
    return file.getvalue()


FILES = {
    "rows.txt": lambda lines, end: end.join(["text", *lines, ""]),
    "rows.tsv": lambda lines, end: end.join(["text", *lines, ""]),
    "rows.csv": lambda lines, end: end.join(["text", *lines, ""]),
    "quoted.csv": quoted,
    "rows.jsonl": lambda lines, end: end.join(json.dumps({"text": line}, ensure_ascii=False) for line in lines),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("name", FILES)
def test_every_row_of_a_file_stays_one_row(name, end, tmp_path):
    (tmp_path / name).write_bytes(FILES[name](LINES, end).encode())
    assert formats.read_all(tmp_path / name)["text"].tolist() == LINES
    (chunk,) = Tables(tables=[tables.opened(tmp_path / name)], texts=["text"]).chunks()
    assert chunk.table["text"].tolist() == LINES
    assert chunk.rejects == []


def test_every_line_of_standard_input_gets_an_answer_on_a_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join([*LINES, ""]).encode())))
    given, _ = predict.read_texts(Namespace(inputs=[], texts=[]), {"text": "text"}, {})
    (chunk,) = given.chunks()
    assert chunk.table["text"].tolist() == LINES
    written(chunk.table.assign(label="good"), None)
    out = capsys.readouterr().out
    assert out.splitlines() == out.removesuffix("\n").split("\n")
    assert len(out.splitlines()) == 1 + len(LINES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("compressed", [bytes, gzip.compress], ids=["plain", "gz"])
def test_every_line_of_a_text_file_gets_an_answer_beginning_with_the_first(compressed, encoding, tmp_path):
    lines = ["Good.", 'A "fine", warm\tfilm', "", "=1", "caf\u00e9"]
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(compressed("\r\n".join([*lines, ""]).encode(encoding)))
    given, roles = predict.read_texts(Namespace(inputs=[path], texts=[], text=None), {"text": "review"}, {})
    (chunk,) = given.chunks()
    assert chunk.table[roles["text"]].tolist() == lines
    assert chunk.lines == [1, 2, 3, 4, 5]
    assert given.size == chunk.position == path.stat().st_size


def test_text_files_may_hold_pairs_or_nothing_and_a_named_column_makes_them_tables(tmp_path):
    for name, text in {"a.txt": "one\ttwo\n", "b.txt": "", "c.txt": "three\n\tfour"}.items():
        (tmp_path / name).write_text(text)
    paths = sorted(tmp_path.glob("*.txt"))
    pairs = {"text": "premise", "text_pair": "hypothesis"}
    given, roles = predict.read_texts(Namespace(inputs=paths, texts=[], text=None), pairs, {})
    (chunk,) = given.chunks()
    assert chunk.table[list(roles.values())].to_numpy().tolist() == [["one", "two"], ["", "four"]]
    assert [(one.file, one.line) for one in chunk.rejects] == [(str(paths[2]), 1)]
    given, roles = predict.read_texts(Namespace(inputs=paths[:1], texts=[], text="one"), {"text": "text"}, {})
    assert (given.columns, roles) == (["one", "two"], {"text": "one"})
    with pytest.raises(PipelineError, match=r"^b.txt: expected rows, found none$"):
        list(predict.read_texts(Namespace(inputs=paths[1:2], texts=[], text=None), pairs, {})[0].chunks())


@pytest.mark.parametrize(("named", "first"), [(None, "Fine."), ("text", "Fine."), ("Fine.", None)])
def test_a_file_without_a_header_is_read_as_those_of_the_training_were(named, first, tmp_path, capsys):
    path = tmp_path / "rows.tsv"
    path.write_text(' \n1\tFine.\n2\t"Dull,\tso"\n')
    options, dialect = Namespace(inputs=[path], texts=[], text=named), {"names": ["id", "text"], "quoted": True}
    given, roles = predict.read_texts(options, {"text": "text"}, {}, **dialect)
    (chunk,) = given.chunks()
    assert chunk.table[roles["text"]].tolist() == ([first] if first else []) + ["Dull,\tso"]
    assert chunk.lines == ([2] if first else []) + [3]
    said = "rows.tsv: its first line is a row, as it names no column of the training\n"
    assert capsys.readouterr().err == (said if first else "")


@pytest.mark.parametrize("header", ["text\tnote", "id\tbody", "a\tb\tc"])
def test_a_header_stays_one_that_has_a_name_of_the_training_or_another_number_of_fields(header, tmp_path, capsys):
    path = tmp_path / "rows.tsv"
    path.write_text(f"{header}\n" + "\t".join("xyz"[: header.count("\t") + 1]) + "\n")
    assert tables.opened(path, names=["id", "text"]).columns == header.split("\t")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", [[*LINES, 'two\nlines, "or",\tmore'], ["two\nlines", "two\r\nlines"]])
@pytest.mark.parametrize("name", ["answers.csv", "answers.jsonl", "answers.parquet"])
def test_what_predict_writes_is_read_back_as_it_was(name, given, tmp_path):
    written(pd.DataFrame({"text": given, "label": "good"}, dtype=object), tmp_path / name)
    assert formats.read_all(tmp_path / name)["text"].tolist() == given


def test_texts_in_a_tsv_file_have_spaces_for_tabs_and_line_breaks_and_are_else_read_back_as_they_were(tmp_path, capsys):
    given = ['"Good" he said', '"', "a\tb", "two\r\nlines", "", *LINES]
    expected = ['"Good" he said', '"', "a b", "two lines", "", *(re.sub(f"[{BREAKS}]", " ", line) for line in LINES)]
    table = pd.DataFrame({"text": given, 'the\n"label"\t': "good"}, dtype=object)
    for path in (tmp_path / "answers.tsv", None):
        written(table, path)
    (tmp_path / "printed.tsv").write_text(capsys.readouterr().out)
    for name in ("answers.tsv", "printed.tsv"):
        back = formats.read_all(tmp_path / name)
        assert back["text"].tolist() == expected
        assert list(back) == ["text", 'the "label"']
        (chunk,) = Tables(tables=[tables.opened(tmp_path / name)], texts=["text"]).chunks()
        assert (chunk.table["text"].tolist(), chunk.rejects) == (expected, [])


def written(table, path):
    """Write a table as `predict` writes a chunk."""
    types = pa.Schema.from_pandas(table) if path and path.suffix == ".parquet" else None
    with outputs.opened(path, None, types) as output:
        output.add(table)


def test_other_readers_find_the_rows_of_what_predict_writes_too():
    content = outputs.as_csv(pd.DataFrame({"text": LINES, "label": "good"})).decode()
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert rows[1:] == [[one, "good"] for one in LINES]
    assert len(pd.read_csv(io.StringIO(content))) == len(LINES)


def test_rows_that_end_in_carriage_returns_alone_are_rows(tmp_path):
    (tmp_path / "mac.csv").write_bytes(b'text,label\rA film,good\r"Two\nlines",bad\r')
    assert formats.read_all(tmp_path / "mac.csv").to_numpy().tolist() == [["A film", "good"], ["Two\nlines", "bad"]]


def test_a_text_file_in_a_folder_is_one_text(tmp_path):
    for name, text in {"good": "\n".join(LINES), "bad": "\r".join(LINES)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes(text.encode())
    assert formats.read_folders(tmp_path)["text"].tolist() == ["\r".join(LINES), "\n".join(LINES)]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_they_are_spaces_to_the_saved_tokenizer_too_in_texts_and_as_a_space_in_the_template(family, saved_model):
    tokenizer = template.load_tokenizer(saved_model(family), template="Review:\n{text}\nIt is", max_length=64)
    for character in BREAKS:
        text = f"{character}A good{character}{character}film{character}"
        assert texts.clean(text) == "A good film"
        assert tokenizer(text)["input_ids"] == tokenizer("A good film")["input_ids"]
