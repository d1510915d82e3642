"""Texts in files: every format gives the same table, and what cannot be read says why."""

import bz2
import gzip
import lzma
import os
import tracemalloc
from datetime import date, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from stages.common.errors import PipelineError
from stages.problems.problem import label_text
from stages.rows import formats
from stages.streaming import outputs, tables
from stages.streaming.columns import text_columns
from stages.streaming.tables import Tables

WANTED = {"text": "review", "label": "stars"}
ROWS = {"review": ['A "fine", warm film', "Dull"], "stars": ["5", "1"]}


def written(table):
    """A Parquet file's bytes."""
    file = pa.BufferOutputStream()
    pq.write_table(table, file)
    return file.getvalue().to_pybytes()


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_classes(path, labels, names=("bad", "good")):
    features = Features({"review": Value("string"), "stars": ClassLabel(names=list(names))})
    rows = {"review": [f"text {number}" for number in range(len(labels))], "stars": labels}
    Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.tsv", 'stars\treview\n5\tA "fine", warm film\n1\tDull\n'),
        ("rows.txt", 'stars\treview\n5\tA "fine", warm film\n1\tDull\n'),
        ("ROWS.CSV", 'stars,review\n5,"A ""fine"", warm film"\n1,Dull\n'),
        ("rows.csv", '\ufeffstars,review\r\n5,"A ""fine"", warm film"\r\n1,Dull\r\n'),
        ("rows.jsonl", '{"review": "A \\"fine\\", warm film", "stars": "5"}\n\n{"stars": "1", "review": "Dull"}\n'),
        (
            "rows.jsonl",
            '\ufeff{"review": "A \\"fine\\", warm film", "stars": "5", "more": [1]}\n{"stars": "1", "review": "Dull"}',
        ),
    ],
)
def test_a_files_ending_tells_its_format(tmp_path, name, content):
    table = formats.read(write(tmp_path, name, content), wanted=WANTED)
    assert table.rename(columns=WANTED).to_dict("list") == ROWS


def test_parquet_is_read(tmp_path):
    pd.DataFrame(ROWS | {"more": [1, 2]}).to_parquet(tmp_path / "rows.parquet")
    table = formats.read(tmp_path / "rows.parquet", wanted=WANTED)
    assert table.rename(columns=WANTED).to_dict("list") == ROWS


def test_the_classes_that_datasets_names_in_a_parquet_file_arrive_by_name_and_no_class_as_none(tmp_path):
    table = formats.read(write_classes(tmp_path / "rows.parquet", [1, 0, -1]), wanted=WANTED)
    assert table["label"].tolist() == ["good", "bad", None]


def test_a_parquet_file_may_have_columns_of_types_that_datasets_does_not_know(tmp_path):
    tags = pa.array([[("lang", "en")], None], pa.map_(pa.string(), pa.string()))
    table = pa.table({"text": ["a", "b"], "tags": tags, "label": [1, 0]})
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = [["a", [("lang", "en")], "good"], ["b", None, "bad"]]
    assert formats.read_all(tmp_path / "rows.parquet").to_numpy().tolist() == rows
    given = Tables(tables=[tables.opened(tmp_path / "rows.parquet")], texts=["text"])
    assert [chunk.table.to_numpy().tolist() for chunk in given.chunks()] == [rows]
    types = given.types()
    assert types == pa.schema({"text": pa.string(), "tags": tags.type, "label": pa.string()})
    written = outputs.as_parquet(pd.DataFrame(rows, columns=types.names, dtype=object), types)
    assert pq.read_table(pa.BufferReader(written)).to_pydict()["tags"] == [[("lang", "en")], None]


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_where_it_is_wanted(tmp_path):
    columns = {"review": ["x"], "stars": ["1"], "id": [1]}
    for twice in ("stars", "id"):
        names = [*columns, twice]
        table = pa.table([pa.array(columns[name]) for name in names], names=names)
        pq.write_table(table, tmp_path / f"{twice}.parquet")
        message = rf"^{twice}\.parquet: expected parquet, found: several columns '{twice}'; rename all but one$"
        with pytest.raises(PipelineError, match=message):
            formats.read_all(tmp_path / f"{twice}.parquet")
        with pytest.raises(PipelineError, match=message):
            tables.sample(tables.opened(tmp_path / f"{twice}.parquet"))
    assert formats.read(tmp_path / "id.parquet", wanted=WANTED)["text"].tolist() == ["x"]
    with pytest.raises(PipelineError, match="several columns 'stars'"):
        formats.read(tmp_path / "stars.parquet", wanted=WANTED)


@pytest.mark.parametrize("rows", ["x,1,a,1,,\n", "x,1,a,1,,\n" * 3])
def test_of_two_columns_of_one_name_in_a_table_of_text_none_is_taken(tmp_path, rows):
    for twice in ("stars", "id"):
        path = write(tmp_path, f"{twice}.csv", f"review,stars,id,{twice},,\n{rows}")
        with pytest.raises(PipelineError, match=rf"found: several columns '{twice}'; rename all but one$"):
            formats.read_all(path)
    assert formats.read(tmp_path / "id.csv", wanted=WANTED)["text"].iloc[0] == "x"
    for names in (None, ["a", "review", "stars"]):
        with pytest.raises(PipelineError, match="several columns 'stars'"):
            formats.read(tmp_path / "stars.csv", wanted=WANTED, names=names)
    unnamed = formats.read_all(write(tmp_path, "unnamed.csv", f"review ,stars,id,more,,\n{rows}"))
    assert list(unnamed) == ["review", "stars", "id", "more", "Unnamed: 4", "Unnamed: 5"]


def test_numbers_and_booleans_stay_what_they_are(tmp_path):
    path = write(
        tmp_path, "rows.jsonl", '{"review": 12, "stars": 1}\n{"review": null, "stars": true}\n{"stars": 0.5}\n'
    )
    table = formats.read(path, wanted=WANTED)
    assert table.to_dict("list") == {"text": [12, None, None], "label": [1, True, 0.5]}


def test_a_first_line_that_names_no_wanted_column_is_a_row(tmp_path):
    names = ["stars", "review"]
    headless = formats.read(write(tmp_path, "a.csv", "5,fine\n1,dull\n"), wanted=WANTED, names=names)
    with_header = formats.read(write(tmp_path, "b.csv", "review,stars\nfine,5\ndull,1\n"), wanted=WANTED, names=names)
    pd.testing.assert_frame_equal(headless, with_header)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_blank_lines_before_the_first_are_no_rows(tmp_path, ends, ending):
    def read(content, **options):
        content = content.replace("\n", ends).encode()
        path = write(tmp_path, f"rows.{ending}", gzip.compress(content) if ending == "csv.gz" else content)
        return formats.read(path, wanted=WANTED, **options).rename(columns=WANTED).to_dict("list")

    rows = "Fine,5\n\nDull,1\n"
    found = {"review": ["Fine", "", "Dull"], "stars": ["5", "", "1"]}
    assert read(f"\n \nreview,stars\n{rows}") == found
    assert read(f"\nreview;stars\n{rows.replace(',', ';')}") == found
    assert read(f"\n{rows}", names=["review", "stars"]) == found
    with pytest.raises(PipelineError, match="3 fields in row 3, 2 in the first line"):
        read(f"\nreview,stars\n{rows}".replace(",1", ",1,1"))
    with pytest.raises(PipelineError, match="1 fields in row 3, expected 2 or more"):
        read(f"\nreview,stars\n{rows}".replace(",1", ""))


def test_the_files_of_a_folder_make_one_table_in_sorted_order(tmp_path):
    for part in (2, 0, 1):
        write(tmp_path, f"parts/reviews-{part}.csv", f"review,stars\ntext {part},{part}\n")
    write(tmp_path, "parts/.gitignore", "*\n")
    assert formats.read(tmp_path / "parts", wanted=WANTED)["label"].tolist() == ["0", "1", "2"]


def test_what_is_no_table_beside_tables_is_left_out_and_named_unless_it_is_alone(tmp_path, capsys):
    for name in ("LICENSE", "README.md", "sub/b.csv.dvc"):
        write(tmp_path, f"rows/{name}", "other")
    with pytest.raises(PipelineError, match=r"^LICENSE: expected a file ending in .*, or data\.format to name it$"):
        formats.read(tmp_path / "rows", wanted=WANTED)
    write(tmp_path, "rows/a.csv", "stars,review\n5,Good\n")
    write(tmp_path, "rows/sub/b.CSV.gz", gzip.compress(b"stars,review\n1,Dull\n"))
    assert formats.read(tmp_path / "rows", wanted=WANTED)["text"].tolist() == ["Good", "Dull"]
    assert formats.read_all(tmp_path / "rows")["review"].tolist() == ["Good", "Dull"]
    assert capsys.readouterr().err.splitlines() == ["rows: left out 3 file(s) that are no tables: LICENSE …"]
    write(tmp_path, "rows/NOTES.txt", "These rows are ours.")
    assert formats.read_all(tmp_path / "rows")["review"].tolist() == ["Good", "Dull"]
    assert capsys.readouterr().err.splitlines() == ["rows: left out 4 file(s) that are no tables: LICENSE …"]
    with pytest.raises(PipelineError, match=r"^LICENSE: expected a column 'review'"):
        formats.read(tmp_path / "rows", wanted=WANTED, format="csv")


def test_files_of_classes_that_are_named_in_another_order_agree(tmp_path):
    write_classes(tmp_path / "a.parquet", [1, 0])
    write_classes(tmp_path / "b.parquet", [1, 0], names=("good", "bad"))
    assert formats.read(tmp_path, wanted=WANTED)["label"].tolist() == ["good", "bad", "bad", "good"]


def test_a_folder_of_text_files_with_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "good").mkdir()
    (tmp_path / "good/a.txt").write_text("a")
    os.mkfifo(tmp_path / "good/b.txt")
    with pytest.raises(PipelineError, match=r"^b\.txt: expected a file, found a named pipe; "):
        formats.read_all(tmp_path)


def test_in_folders_of_text_files_the_folder_names_the_class(tmp_path, capsys):
    write(tmp_path, "news/sport/002.txt", "Second.\n\nTwo lines.")
    write(tmp_path, "news/sport/001.txt", b"First, for \xa35.")
    write(tmp_path, "news/sport/003.txt.gz", gzip.compress("Caf\u00e9, ".encode() + b"\xe9."))
    write(tmp_path, "news/business/001.txt", "A bank.")
    write(tmp_path, "news/README.txt", "No class.")
    write(tmp_path, "news/sport/._001.txt", b"Mac OS X")
    write(tmp_path, "news/.ipynb_checkpoints/001-checkpoint.txt", "No class, either.")
    table = formats.read(tmp_path / "news", wanted=WANTED)
    assert table["text"].tolist() == ["A bank.", "First, for \u00a35.", "Second.\n\nTwo lines.", "Caf\u00e9, \ufffd."]
    assert table["label"].tolist() == ["business", "sport", "sport", "sport"]
    said = capsys.readouterr().err
    assert "news: 1 file(s) are not UTF-8, read as cp1252 (Western European); the first: sport/001.txt" in said
    assert "news: 1 file(s) hold bytes that are not UTF-8, replaced by \ufffd; the first: sport/003.txt.gz" in said
    assert "news: 1 file(s) other than CLASS/*.txt are left out; the first: README.txt\n" in said
    write(tmp_path, "news/sport/2026/004.txt", "Deeper.")
    assert len(formats.read_all(tmp_path / "news")) == 4
    assert "news: 2 file(s) other than CLASS/*.txt are left out; the first: README.txt\n" in capsys.readouterr().err


def test_decimals_dates_and_times_of_a_database_are_numbers_and_texts(tmp_path):
    columns = {
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None], pa.decimal128(9, 2)),
        "day": pa.array([date(2026, 1, 31), None, date(2025, 12, 1)]),
        "time": pa.array([datetime(2026, 1, 31, 9, 5), None, None], pa.timestamp("s")),
        "far": pa.array([10**7, 0, None], pa.date32()),  # Python has no date after the year 9999
    }
    path = write(tmp_path, "rows.parquet", written(pa.table(columns)))
    wanted = {"label": "price", "text": "day", "slices": ["time", "far"]}
    found = formats.read(path, wanted=wanted, lists=())
    assert [label_text(value) for value in found["label"]] == ["1.5", "2", ""]
    assert found["text"].tolist() == ["2026-01-31", None, "2025-12-01"]
    assert found["slices"][0] == {"time": "2026-01-31 09:05:00.000", "far": "29349-01-26"}
    with pytest.raises(PipelineError, match=r"^rows.parquet: expected parquet, found: .* out of range"):
        list(tables.opened(path).records())


def test_columns_of_parquet_keep_their_names_where_a_struct_has_the_path_of_one(tmp_path):
    columns = {"meta.lang": ["en"], "text": ["Good"], "meta": [{"lang": "de"}]}
    path = write(tmp_path, "rows.parquet", written(pa.table(columns)))
    table = tables.opened(path)
    (record,) = table.records()
    assert dict(zip(table.columns, record.values, strict=True)) == {name: one for name, (one,) in columns.items()}


def test_line_breaks_and_spaces_in_a_columns_name_are_one_space(tmp_path):
    path = write(tmp_path, "rows.csv", '"Customer\nfeedback",stars\nFine,5\n')
    for name in ("Customer feedback", "Customer\nfeedback"):
        assert formats.read(path, wanted={"text": name, "label": "stars"})["text"].tolist() == ["Fine"]
    assert list(formats.read_all(path)) == ["Customer feedback", "stars"]


def test_a_folder_with_tables_and_texts_is_either_only_if_told(tmp_path):
    table = write(tmp_path, "mine/rows.csv", "review,stars\nFine,5\n")
    write(tmp_path, "mine/sport/001.txt", "A goal.")
    with pytest.raises(
        PipelineError, match=r"^mine: .* found both, rows.csv and sport/001.txt; name the table in data"
    ):
        formats.read(tmp_path / "mine", wanted=WANTED)
    assert formats.read(tmp_path / "mine", wanted=WANTED, format="folders")["text"].tolist() == ["A goal."]
    assert formats.read(table, wanted=WANTED)["text"].tolist() == ["Fine"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "", {}, r"a.csv: expected csv, found: No columns to parse from file"),
        ("a.csv", "review,stars\n", {}, r"a.csv: expected rows, found none"),
        ("a.jsonl", "\n", {}, r"a.jsonl: expected a column 'review' \(data.text\), found nothing"),
        (
            "a.tsv",
            "review\tstars\nété\t1\n".encode() + b"caf\xe9\t1\n",
            {},
            r"a.tsv: expected UTF-8 text, found byte 0xe9 at \d+; convert",
        ),
        (
            "a.jsonl",
            b'{"review": "\xcf\xf0\xe8\xe2\xe5\xf2"}',
            {},
            r"expected UTF-8 text, found byte 0xcf at 12; convert",
        ),
        ("a.csv", "a,b\n1,2\n", {}, r"a.csv: expected a column 'review' \(data.text\), found a, b"),
        ("a.csv", "review\nx\n", {}, r"a.csv: expected a column 'stars' \(data.label\), found review"),
        ("a.tsv", "review\tstars\nx\t1\tmore\n", {}, r"a.tsv: expected tsv, found: 3 fields in row 1, 2 in the first"),
        ("a.csv", "review,stars\nx,1\n\ny,2,3\n", {}, r"found: 3 fields in row 3, 2 in the first line; correct"),
        ("a.csv", "review,stars\nx,1\n\ny\n", {}, r"found: 1 fields in row 3, expected 2 or more; correct"),
        (
            "a.csv.gz",
            gzip.compress(b"review,stars\nx,1\n", mtime=0)[:-9],
            {},
            r"found: damaged compression \(.*\); copy",
        ),
        ("a.csv", b"PK\x03\x04", {}, r"found: a zip archive; name the file in it, like a.csv//NAME, or unpack it"),
        (
            "a.csv",
            "ID,Review,Stars\n1,x,2\n",
            {"names": ["id", "stars", "text"]},
            r"found: ID, Review, Stars in the first line and id, stars, text in data.columns, both without 'review'; "
            r"did you mean 'Review'\?",
        ),
        ("a.csv", 'review,stars\n"x,1\n', {}, r"a.csv: expected csv, found: .*EOF inside string"),
        (
            "a.csv",
            "text,sentiment\nx,1\n",
            {"names": ["id", "stars", "review"]},
            r"found: text, sentiment in the first line, which is neither a header with review and stars nor has the 3 "
            r"fields of data.columns \['id', 'stars', 'review'\]",
        ),
        ("a.jsonl", '{"review": "x"}\n{"review"\n', {}, r"a.jsonl: expected jsonl, found: .* of the text in line 2"),
        ("a.jsonl", "[1, 2]\n", {}, r"a.jsonl: expected jsonl, found: \[1, 2\] in line 1, which is not a JSON object"),
        ("a.jsonl", '{"review": "x", "stars": [0, 2]}\n', {}, r"in column 'stars' \(data.label\), found list in row 1"),
        (
            "a.jsonl",
            '{"review": {"en": "x"}, "stars": 1}\n',
            {},
            r"in column 'review' \(data.text\), found dict in row",
        ),
        ("a.parquet", "review, stars", {}, r"a.parquet: expected parquet, found: .*Parquet magic bytes not found"),
        ("a.xlsx", "x", {}, r"a.xlsx: expected a file ending in .tsv, .*, .parquet; save the sheet as .csv$"),
        *((f"a.{name}", "x", {}, f"a.{name}: .*, .parquet; unpack it") for name in ("zip", "tar", "tar.gz", "tgz")),
        ("a.csv", "x", {"format": "folders"}, r"a.csv: expected a folder of .txt files for each class, found none"),
        ("b/a.txt", "x", {"format": "folders"}, r"b: expected a folder of .txt files for each class, found none"),
        (
            "b/a/a.txt",
            "x",
            {"wanted": WANTED | {"text_pair": "more"}},
            r"b: expected data.text_pair: null with a folder",
        ),
        ("b/.hidden", "x", {}, r"b: expected a file or a folder of files, found an empty folder"),
        ("b/a.csv", "stars\n1\n", {}, r"a.csv: expected a column 'review'"),
    ],
)
def test_what_cannot_be_read_says_what_was_expected_and_found_and_names_the_file(
    tmp_path, name, content, options, message
):
    write(tmp_path, name, content)
    with pytest.raises(PipelineError, match=message):
        formats.read(tmp_path / name.split("/")[0], **{"wanted": WANTED} | options)


def test_a_quoted_tsv_may_hold_tabs_quotes_and_line_breaks_in_a_field(tmp_path):
    (tmp_path / "rows.tsv").write_text('review\trating\n"""Good.""\tVery\ngood."\tpositive\nBad.\tnegative\n')
    table = formats.read(tmp_path / "rows.tsv", wanted={"text": "review", "label": "rating"}, format="quoted_tsv")
    assert table["text"].tolist() == ['"Good."\tVery\ngood.', "Bad."]
    assert table["label"].tolist() == ["positive", "negative"]


def zst(content):
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zst)]
)
def test_compressed_files_are_read_in_every_format(tmp_path, ending, compress):
    plain = pd.DataFrame(ROWS)
    contents = {
        "csv": plain.to_csv(index=False).encode(),
        "tsv": b'review\tstars\nA "fine", warm film\t5\nDull\t1\n',
        "jsonl": plain.to_json(orient="records", lines=True).encode(),
        "parquet": plain.to_parquet(),
    }
    for name, content in contents.items():
        path = write(tmp_path, f"rows.{name}.{ending}", compress(content))
        for format in (None, name):
            table = formats.read(path, wanted=WANTED, format=format)
            assert table.rename(columns=WANTED).to_dict("list") == ROWS, (name, format)


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe"), (",", "comma")])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_another_delimiter_than_the_endings_is_found_and_named(tmp_path, capsys, name, delimiter, word):
    rows = {"review": ["Fine, warm; good", "Dull"], "stars": ["5", "1"], "more": ["1,2", "3"]}
    path = write(tmp_path, name, pd.DataFrame(rows).to_csv(index=False, sep=delimiter))
    table = formats.read(path, wanted=WANTED)
    assert table.to_dict("list") == {"text": rows["review"], "label": rows["stars"]}
    own = word == ("comma" if name.endswith("csv") else "tab")
    assert capsys.readouterr().err.count(f"fields are separated by the {word}") == (not own)


@pytest.mark.parametrize("lines", [4, 30, 98])
def test_the_delimiter_is_found_where_texts_have_many_lines(tmp_path, lines):
    texts = [lines * "one line\n" + str(number) for number in range(40)]
    content = "review;stars\n" + "".join(f'"{text}";{number}\n' for number, text in enumerate(texts))
    path = write(tmp_path, "rows.csv", f"\n{content}")
    assert formats.read(path, wanted=WANTED)["text"].tolist() == texts
    assert [one.values for one in tables.Delimited(path, "csv").records()] == [
        [text, str(number)] for number, text in enumerate(texts)
    ]


def test_spaces_in_the_header_hide_no_short_row(tmp_path):
    for header in ("stars,review", "stars, review ", " stars,review"):
        path = write(tmp_path, "rows.csv", f"{header}\n5,Fine\nThe text begins on\n1,Dull\n")
        with pytest.raises(PipelineError, match="1 fields in row 2, expected 2 or more"):
            formats.read(path, wanted=WANTED)


def test_a_long_text_switches_no_check_off(tmp_path):
    text = "long " * 30_000
    begun = f"review,stars\n{text},5\n"
    path = write(tmp_path, "a.csv", f"{begun}Dull,1\n".replace(",", ";"))
    assert formats.read(path, wanted=WANTED).to_dict("list") == {"text": [text, "Dull"], "label": ["5", "1"]}
    for odd, said in (("neg\n", "1 fields in row 2, expected 2 or more"), ("a,1,1\n", "3 fields in row 2, 2 in the")):
        with pytest.raises(PipelineError, match=said):
            formats.read(write(tmp_path, "a.csv", begun + odd), wanted=WANTED)


def test_one_column_of_texts_with_commas_and_semicolons_stays_one_column(tmp_path, capsys):
    path = write(tmp_path, "rows.tsv", "review\nGood; fine, warm\nDull, slow\n")
    assert formats.read_all(path)["review"].tolist() == ["Good; fine, warm", "Dull, slow"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_other_encodings_are_read_and_named(tmp_path, capsys, name, encoding):
    content = {
        "rows.csv": "review,stars\ncafé für “alle”,1\n",
        "rows.jsonl": '{"review": "café für “alle”", "stars": "1"}\n',
    }
    table = formats.read(write(tmp_path, name, content[name].encode(encoding)), wanted=WANTED)
    assert table.to_dict("list") == {"text": ["café für “alle”"], "label": ["1"]}
    said = capsys.readouterr().err
    assert f"{name}: read as {encoding}" in said if encoding != "utf-8-sig" else not said


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_names_of_columns_are_compared_with_accents_composed(tmp_path, name):
    composed, apart = "na\u00efve", "nai\u0308ve"
    for written, wanted in ((composed, apart), (apart, composed), (apart, apart)):
        table = pd.DataFrame({"review": ["x"], written: ["1"]})
        content = {
            "a.csv": table.to_csv(index=False).encode(),
            "a.jsonl": table.to_json(orient="records", lines=True, force_ascii=False).encode(),
            "a.parquet": table.to_parquet(),
        }[name]
        path = write(tmp_path, name, content)
        assert formats.read(path, wanted={"text": "review", "label": wanted})["label"].tolist() == ["1"]
        assert list(formats.read_all(path)) == ["review", composed]
        chosen = text_columns(tables.sample(tables.opened(path)), {"text": "text"}, named=wanted, file=path)
        assert chosen == {"text": composed}


def test_names_of_columns_are_compared_without_spaces_at_their_ends(tmp_path):
    for name, content in (
        ("a.csv", "review, stars\nx,1\n"),
        ("b.tsv", "review \tstars\nx\t1\n"),
        ("c.jsonl", '{"review ": "x", " stars": "1"}\n'),
    ):
        assert formats.read(write(tmp_path, name, content), wanted=WANTED).to_dict("list") == {
            "text": ["x"],
            "label": ["1"],
        }
    pd.DataFrame({"review": ["x"], " stars": ["1"]}).to_parquet(tmp_path / "d.parquet")
    for wanted in (WANTED, WANTED | {"label": " stars"}):
        assert formats.read(tmp_path / "d.parquet", wanted=wanted)["label"].tolist() == ["1"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_carriage_return_within_a_line_ends_no_row(tmp_path, ends, delimiter):
    lines = ["review,stars", "A fine\rfilm,5", '"Dull,\rslow",1']
    path = write(tmp_path, "rows.csv", "".join(line.replace(",", delimiter) + ends for line in lines))
    texts = ["A fine\rfilm", f"Dull{delimiter}\rslow"]
    assert formats.read(path, wanted=WANTED).to_dict("list") == {"text": texts, "label": ["5", "1"]}


def test_carriage_returns_alone_end_rows_where_nothing_else_does(tmp_path):
    path = write(tmp_path, "rows.csv", "review,stars\rA fine film,5\rDull,1\r")
    assert formats.read(path, wanted=WANTED)["label"].tolist() == ["5", "1"]


def test_what_ends_a_line_within_a_quoted_text_stays_as_it_is(tmp_path):
    path = write(tmp_path, "rows.csv", 'review,stars\n"A\r\nfine\rfilm",5\nDull,1\n')
    assert formats.read(path, wanted=WANTED)["text"].tolist() == ["A\r\nfine\rfilm", "Dull"]


def many(count):
    """A table of so many rows, some of whose values are empty."""
    texts = [f"Text {number}, with\n{'a line break' * (number % 3)} \u00e9" for number in range(count)]
    return pd.DataFrame({"review": texts, "stars": [str(number % 3) if number % 4 else "" for number in range(count)]})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl", "rows.parquet"])
def test_the_rows_are_the_same_whatever_is_read_at_once(tmp_path, monkeypatch, name, encoding):
    contents = {
        "csv": many(20).to_csv(index=False).encode(encoding),
        "jsonl": many(20).to_json(orient="records", lines=True, force_ascii=False).encode(encoding),
        "parquet": many(20).to_parquet(),
    }
    content = contents[name.split(".")[1]]
    path = write(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)
    for rows in (1, 3, 20, 50):
        monkeypatch.setattr(formats, "AT_ONCE", rows)
        assert formats.read(path, wanted=WANTED).rename(columns=WANTED).to_dict("list") == many(20).to_dict("list")


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_of_many_rows_as_many_are_returned_as_are_wanted_from_all_of_the_file(tmp_path, monkeypatch, name, at_once):
    monkeypatch.setattr(formats, "AT_ONCE", at_once)
    table = pd.DataFrame({"review": map(str, range(100))})
    path = write(tmp_path, name, table.to_csv(index=False) if name == "rows.csv" else table.to_parquet())
    for most, step in ((100, 1), (99, 2), (50, 2), (49, 4), (13, 8), (12, 16)):
        assert formats.read_all(path, most=most)["review"].tolist() == [str(row) for row in range(0, 100, step)]


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "review,stars\na,1\nb,2\nc,3,4\nd,5\n", "found: 3 fields in row 3, 2 in the first line; correct"),
        ("a.csv", "review,stars\na,1\nb,2\nc\nd,5\n", "found: 1 fields in row 3, expected 2 or more; correct"),
        ("a.csv", "stars\na\nb\nc\nd\n", r"a.csv: expected a column 'review' \(data.text\), found stars"),
        ("a.jsonl", '{"review": "a"}\n{}\n{"review": "b"}\n[]\n', r"found: \[\] in line 4, which is not a JSON object"),
        ("a.jsonl", '{"review": "a", "stars": 1}\n{}\n{"review": {}}\n', r"\(data.text\), found dict in row 3"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n{"c": 1}\n', r"expected a column 'review' \(data.text\), found a, b, c"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_row_whatever_is_read_at_once(
    tmp_path, monkeypatch, rows, name, content, message
):
    monkeypatch.setattr(formats, "AT_ONCE", rows)
    with pytest.raises(PipelineError, match=message):
        formats.read(write(tmp_path, name, content), wanted=WANTED)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl", "rows.parquet"])
def test_a_file_takes_less_memory_than_its_text_beside_what_arrow_holds(tmp_path, monkeypatch, name):
    table = pd.DataFrame({"review": [f"{number} {'word ' * 400}" for number in range(1000)], "stars": "5"})
    written = {
        "csv": table.to_csv(index=False).encode(),
        "jsonl": table.to_json(orient="records", lines=True).encode(),
        "parquet": table.to_parquet(),
    }[name.split(".")[1]]
    path = write(tmp_path, name, gzip.compress(written) if name.endswith(".gz") else written)
    monkeypatch.setattr(formats, "AT_ONCE", 50)
    monkeypatch.setattr("stages.common.content.CHUNK", 1 << 14)
    tracemalloc.start()
    try:
        found = formats.read(path, wanted=WANTED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["text"].dtype == "str"
    assert peak < table["review"].str.len().sum()
