"""Texts in files: every format gives the same table, and what cannot be read says why."""

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from stages.common.errors import PipelineError
from stages.rows import formats

WANTED = {"text": "review", "label": "stars"}
ROWS = {"review": ['A "fine", warm film', "Dull"], "stars": ["5", "1"]}


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


def test_the_files_of_a_folder_make_one_table_in_sorted_order(tmp_path):
    for part in (2, 0, 1):
        write(tmp_path, f"parts/reviews-{part}.csv", f"review,stars\ntext {part},{part}\n")
    write(tmp_path, "parts/.gitignore", "*\n")
    assert formats.read(tmp_path / "parts", wanted=WANTED)["label"].tolist() == ["0", "1", "2"]


def test_files_of_classes_that_are_named_in_another_order_agree(tmp_path):
    write_classes(tmp_path / "a.parquet", [1, 0])
    write_classes(tmp_path / "b.parquet", [1, 0], names=("good", "bad"))
    assert formats.read(tmp_path, wanted=WANTED)["label"].tolist() == ["good", "bad", "bad", "good"]


def test_in_folders_of_text_files_the_folder_names_the_class(tmp_path, capsys):
    write(tmp_path, "news/sport/002.txt", "Second.\n\nTwo lines.")
    write(tmp_path, "news/sport/001.txt", b"First, for \xa35.")
    write(tmp_path, "news/business/001.txt", "A bank.")
    write(tmp_path, "news/README.txt", "No class.")
    table = formats.read(tmp_path / "news", wanted=WANTED)
    assert table["text"].tolist() == ["A bank.", "First, for \ufffd5.", "Second.\n\nTwo lines."]
    assert table["label"].tolist() == ["business", "sport", "sport"]
    assert "news: 1 file(s) hold bytes that are not UTF-8, replaced by \ufffd; the first: sport/001.txt" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "", {}, r"a.csv: expected csv, found: No columns to parse from file"),
        ("a.csv", "review,stars\n", {}, r"a.csv: expected rows, found none"),
        ("a.jsonl", "\n", {}, r"a.jsonl: expected a column 'review' \(data.text\), found nothing"),
        ("a.tsv", b"review\tstars\ncaf\xe9\t1\n", {}, r"a.tsv: expected UTF-8 text, found byte 0xe9 at \d+; convert"),
        ("a.jsonl", b'{"review": "caf\xe9"}\n', {}, r"a.jsonl: expected UTF-8 text, found byte 0xe9 at 15; convert"),
        ("a.csv", "a,b\n1,2\n", {}, r"a.csv: expected a column 'review' \(data.text\), found a, b"),
        ("a.csv", "review\nx\n", {}, r"a.csv: expected a column 'stars' \(data.label\), found review"),
        ("a.tsv", "review\tstars\nx\t1\tmore\n", {}, r"a.tsv: expected tsv, found: .*"),
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
        ("a.xlsx", "x", {}, r"a.xlsx: expected a file ending in .tsv, .txt, .csv, .jsonl, .parquet, or data.format"),
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
