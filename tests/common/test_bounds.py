"""What is fed to the pipeline is refused where a small file would unfold to more than its limits allow."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common import content, files
from stages.common.errors import PipelineError
from stages.common.section import read_yaml
from stages.rows import formats
from stages.sources.archive import extract

MB = 1 << 20
BOMB = b"a\n" * MB
"""Twice of what a file may unfold to here."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Limits that small files reach."""
    monkeypatch.setattr(content, "AT_ONCE", MB)
    monkeypatch.setattr(content, "LONGEST_LINE", 100_000)


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def zipped(*names: str) -> bytes:
    """A zip archive whose members are bombs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, BOMB)
    return packed.getvalue()


def tarred(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The beginning of a compressed tar archive whose member has so many zeros, by its header."""
    header = tarfile.TarInfo("rows.csv")
    header.size, header.type = size, kind
    return gzip.compress(header.tobuf() + BOMB)


READ = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.mark.parametrize("ending", READ)
def test_a_compressed_file_unfolds_to_so_many_times_its_size_and_no_more(tmp_path, ending):
    path = tmp_path / f"rows.csv.{ending}"
    path.write_bytes(READ[ending](BOMB))
    with pytest.raises(PipelineError, match=rf"^rows.csv.{ending}: expected csv, found: more than 100 bytes for each"):
        formats.read_all(path)
    path.write_bytes(READ[ending](BOMB[:MB]))
    assert content.unpacked(path) == BOMB[:MB]


def test_a_bomb_after_an_innocent_beginning_is_one(tmp_path):
    innocent = gzip.compress(b"".join(number.to_bytes(4, "big") for number in range(50_000)))
    (tmp_path / "rows.csv.gz").write_bytes(innocent + gzip.compress(BOMB))
    assert len(innocent) * content.RATIO > 2 * len(BOMB)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        content.unpacked(tmp_path / "rows.csv.gz")


@pytest.mark.parametrize(
    "packed",
    [zipped("rows.csv"), zipped("rows.csv", "other.csv"), tarred(10**12), tarred(10**12, tarfile.XHDTYPE)],
    ids=["zip", "two in a zip", "tar", "a header of a tar"],
)
def test_an_archive_is_refused_before_anything_is_unpacked(tmp_path, packed):
    (tmp_path / "archive").write_bytes(packed)
    with pytest.raises(PipelineError, match=r"^archive: .*found:? (more than|something else)"):
        extract(tmp_path / "archive", "rows.csv", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_parquet_file_is_refused_by_its_footer(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"text": pa.nulls(200_000, pa.string())})
    pq.write_table(table, path)
    with pytest.raises(PipelineError, match=r"^rows.parquet: expected parquet, found: more than 100 bytes for each"):
        formats.read_all(path)
    pq.write_table(table[:20_000], path)
    assert len(formats.read_all(path)) == 20_000


ALIASES = "a: &a [1, 1]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcd", "bcde", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "expected no alias, found *a in line 2; write the value itself"),
        ("a: " + "[" * 50_000, "expected at most 20 levels, found more in line 1"),
        ("a: " + "{a: " * 30, "expected at most 20 levels, found more in line 1"),
        ("a: " + "1" * 5_000, "Exceeds the limit"),
        ("#" * 300_000, "expected at most 200,000 characters, found 300,000"),
        ("a: [", "expected the node content"),
    ],
)
def test_settings_have_no_aliases_and_are_small(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_yaml(text)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.jsonl", '{"text": ' + "[" * 50_000, "values nested too deeply in line 1"),
        ("rows.jsonl", f'{{"label": {"1" * 5_000}}}', "Exceeds the limit"),
        ("rows.csv", "text\n" + "a" * 150_000, "a line of more than 100,000 bytes"),
        ("rows.jsonl", "a" * 150_000 + "\n", "a line of more than 100,000 bytes"),
    ],
    ids=["nested", "digits", "line", "first line"],
)
def test_rows_have_their_limits(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(PipelineError, match=f"^{name}: expected {name[5:]}, found: .*{re.escape(said)}"):
        formats.read_all(tmp_path / name)


def test_short_lines_pass_whatever_ends_them():
    parts = [b"a" * 60_000 + end + b"b" * 60_000 for end in (b"\n", b"\r\n", b"\r")]
    for part in parts:
        assert b"".join(content.short_lines([part[:70_000], part[70_000:]])) == part


def test_json_that_is_nested_too_deeply_is_damaged(tmp_path):
    (tmp_path / "about.json").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(PipelineError, match=r"about.json: expected what the pipeline wrote there, found it damaged"):
        files.read_json(tmp_path / "about.json")
