"""Archives are verified first, then read; nothing in them is trusted. Files of the user's own lie where DVC watches."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import build_tar, build_wheel

from stages.common.errors import PipelineError
from stages.rows import formats
from stages.sources import archive, fetched


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return content.getvalue()


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "into").mkdir()
    return tmp_path


def fetch(tmp_path, *, source="package:thing==1.0", revision=None, file=None, repo_type="dataset"):
    return fetched.fetch(source=source, revision=revision, file=file, into=tmp_path / "into", repo_type=repo_type)


def test_a_file_inside_an_archive_inside_a_package_arrives(index, tmp_path):
    inner = build_tar({"deep/rows.txt": b"one\n"})
    sha = build_wheel(index, "thing", {"thing/inner.tar.gz": inner}, license="Apache-2.0")
    fetched = fetch(tmp_path, revision=sha, file="thing/inner.tar.gz//deep/rows.txt")
    assert fetched.path.read_bytes() == b"one\n"
    assert fetched.license == "Apache-2.0"


def test_what_is_in_an_archive_inside_may_have_the_name_of_the_archive(tmp_path):
    large = bytes(range(256)) * 1_000
    innermost = zipped({"a.csv": b"a", "x": large})
    (tmp_path / "outer.zip").write_bytes(zipped({"x": zipped({"b.csv": b"b", "x": innermost})}))

    for file, expected in (
        ("x//x", {"x": innermost}),
        ("x//x//x", {"x": large}),
        ("x//*.csv", {"x/b.csv": b"b"}),
        ("x//x//**", {"x/a.csv": b"a", "x/x": large}),
    ):
        path = archive.extract(tmp_path / "outer.zip", file, Path(tempfile.mkdtemp(dir=tmp_path)))
        found = [one for one in (path, *path.rglob("*")) if one.is_file()]
        assert path.name == "x"
        assert {one.relative_to(path.parent).as_posix(): one.read_bytes() for one in found} == expected


def test_a_version_can_follow_an_at_sign(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/x": b"1"})
    assert fetch(tmp_path, source="package:thing@1.0", revision=sha, file="thing/x").path.read_bytes() == b"1"


def test_a_folder_of_a_package_arrives_whole(index, tmp_path):
    sha = build_wheel(index, "thing", {"thing/model/config.json": b"{}", "thing/model/a/b.txt": b"b", "thing/x": b""})
    path = fetch(tmp_path, revision=sha, file="thing/model").path
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == [
        "a/b.txt",
        "config.json",
    ]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda path: Path(path).symlink_to("/dev/zero"), "a device"),
        (lambda path: Path(path).symlink_to("absent"), "a symbolic link to nothing"),
        (lambda path: Path(path).symlink_to(Path(path).name), "a circular symbolic link"),
    ],
)
def test_what_is_no_file_is_refused_as_a_source_and_within_one(tmp_path, make, found):
    data = tmp_path / "data/raw"
    (data / "folder").mkdir(parents=True)
    (data / "folder/a.csv").write_text("text,label\na,b\n")
    make("data/raw/odd.csv")
    make("data/raw/folder/odd.csv")
    with pytest.raises(
        PipelineError, match=rf"path:data/raw/odd\.csv: expected a file or folder, found {found}; put a"
    ):
        fetch(tmp_path, source="path:data/raw/odd.csv")
    folder = fetch(tmp_path, source="path:data/raw/folder").path
    with pytest.raises(PipelineError, match=rf"^odd\.csv: expected a file, found {found}; name"):
        formats.read_all(folder)
    with pytest.raises(PipelineError, match=rf"^odd\.csv: expected a file, found {found}; name"):
        fetch(tmp_path, source="path:data/raw/folder/*.csv")
    assert fetch(tmp_path, source="path:data/raw/folder/a*.csv").path.name == "folder"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("README.md"), os.mkdir])
def test_a_card_that_is_no_file_states_no_licence(tmp_path, make):
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/a.csv").touch()
    make("data/raw/README.md")
    assert fetch(tmp_path, source="path:data/raw/a.csv").license == "not stated"


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
    with pytest.raises(PipelineError, match=r"expected a path inside, found"):
        fetch(tmp_path, revision=sha, file=file)
    assert not (tmp_path / "x").exists()


def test_members_that_climb_out_of_a_folder_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("model/../../escaped", b"out")
        zipped.writestr("model/config.json", b"{}")
    archive.extract(tmp_path / "a.zip", "model", tmp_path / "into")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()].count("escaped") == 0


def test_links_in_a_tar_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        link = tarfile.TarInfo("rows.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tarred.addfile(link)
        tarred.addfile(tarfile.TarInfo("other"), io.BytesIO())
    with pytest.raises(PipelineError, match=r"expected a member 'rows.txt', found none"):
        archive.extract(tmp_path / "a.tar", "rows.txt", tmp_path / "into")


def test_links_in_a_zip_are_left_out(tmp_path):
    link = zipfile.ZipInfo("rows/link.csv")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    (tmp_path / "a.zip").write_bytes(zipped({"rows/a.csv": b"a", link: b"a.csv"}))
    path = archive.extract(tmp_path / "a.zip", "rows", tmp_path / "into")
    assert [file.name for file in path.iterdir()] == ["a.csv"]


def test_an_archive_is_what_its_beginning_says_whatever_is_in_it(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        tarred.addfile(tarfile.TarInfo("rows.csv"), io.BytesIO())
        packed = zipped({"other.csv": b""})
        member = tarfile.TarInfo("last.zip")
        member.size = len(packed)
        tarred.addfile(member, io.BytesIO(packed))
    assert archive.extract(tmp_path / "a.tar", "rows.csv", tmp_path / "into").name == "rows.csv"
    (tmp_path / "cut.zip").write_bytes(packed[:-9])
    with pytest.raises(PipelineError, match=r"^cut.zip: expected an intact archive without a password, found: "):
        archive.extract(tmp_path / "cut.zip", "other.csv", tmp_path / "into")
    (tmp_path / "empty.zip").write_bytes(zipped({}))
    with pytest.raises(PipelineError, match=r"^empty.zip: expected a member 'x', found none; it holds: nothing$"):
        archive.extract(tmp_path / "empty.zip", "x", tmp_path / "into")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(PipelineError, match=r"notes.txt: expected a folder, or a zip, wheel or tar archive"):
        archive.extract(tmp_path / "notes.txt", "x", tmp_path / "into")


@pytest.mark.parametrize(
    ("pattern", "folder", "names"),
    [
        ("thing/*.csv", "thing", ["a.csv", "b.csv"]),
        ("thing/[b]*", "thing", ["b.csv"]),
        ("*.csv", "x.tar.gz", ["top.csv"]),
        ("*/*.csv", "x.tar.gz", ["thing/a.csv", "thing/b.csv"]),
        ("**/*.csv", "x.tar.gz", ["thing/a.csv", "thing/b.csv", "thing/old/a.csv", "top.csv"]),
        ("thing/**/a.csv", "thing", ["a.csv", "old/a.csv"]),
        ("thing/**", "thing", ["a.csv", "b.csv", "c.txt", "old/a.csv"]),
    ],
)
def test_a_glob_brings_the_files_that_match_and_nothing_else(tmp_path, pattern, folder, names):
    files = ("top.csv", "thing/a.csv", "thing/b.csv", "thing/c.txt", "thing/old/a.csv")
    (tmp_path / "x.tar.gz").write_bytes(build_tar(dict.fromkeys(files, b"")))
    path = archive.extract(tmp_path / "x.tar.gz", pattern, tmp_path / "into")
    assert path == tmp_path / "into" / folder
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == names


@pytest.mark.parametrize("pack", [build_tar, zipped], ids=["tar", "zip"])
@pytest.mark.parametrize("member", ["rows/a.csv", "rows", "rows/*.csv", "./rows/*.csv", "**/a.csv"])
def test_names_that_begin_with_a_dot_and_a_slash_are_found_without(tmp_path, pack, member):
    (tmp_path / "x").write_bytes(pack({"./rows/a.csv": b"a"}))
    path = archive.extract(tmp_path / "x", member, tmp_path / "into")
    assert [file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()] == [b"a"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, pa.Codec("zstd").compress])
def test_the_members_of_a_compressed_archive_are_read_in_any_order(tmp_path, compress):
    files = {f"{number}.csv": bytes([number]) * 100_000 for number in range(5)}
    (tmp_path / "x").write_bytes(compress(gzip.decompress(build_tar(files))))
    with archive.members(tmp_path / "x") as (sizes, read):
        assert list(sizes) == list(files)
        for name in ("3.csv", "0.csv", "4.csv", "0.csv"):
            assert read(name).read() == files[name]


@pytest.mark.parametrize("member", ["rows", "rows/*.csv", "*/*.csv", "**"])
def test_what_is_hidden_comes_only_by_its_name(tmp_path, member):
    hidden = ("rows/._a.csv", "rows/.checkpoints/a.csv", "__MACOSX/rows/._a.csv")
    (tmp_path / "x.tar").write_bytes(build_tar({name: b"" for name in ("rows/a.csv", *hidden)}))
    path = archive.extract(tmp_path / "x.tar", member, tmp_path / "into")
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["a.csv"]
    assert archive.extract(tmp_path / "x.tar", hidden[0], tmp_path / "into").name == "._a.csv"


@pytest.mark.parametrize(
    "content",
    [build_tar({"x": bytes(range(256)) * 99})[:-99], zipped({"x": b"text"}).replace(b"text", b"tixt")],
    ids=["cut", "changed"],
)
def test_a_damaged_archive_is_refused(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(PipelineError, match=r"archive: expected an intact archive without a password, found: "):
        archive.extract(tmp_path / "archive", "x", tmp_path / "into")


@pytest.fixture
def raw(scratch):
    (scratch / "data/raw/many").mkdir(parents=True)
    (scratch / "data/raw/link").symlink_to(scratch / "data/raw/many")
    (scratch / "data/raw/rows.csv").write_text("text,label\n")
    (scratch / "data/raw/many/a.csv").write_text("a")
    (scratch / "data/raw/many/b.csv").write_text("b")
    (scratch / "data/raw/many/README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    return scratch


@pytest.mark.parametrize("name", ["rows.csv", "linked.csv"])
def test_a_file_of_the_users_own_is_read_where_it_lies(raw, name):
    (raw / "data/raw/linked.csv").symlink_to(raw / "data/raw/rows.csv")
    fetched = fetch(raw, source=f"path:data/raw/{name}")
    assert fetched.path == Path(f"data/raw/{name}")
    assert fetched.license == "not stated"


def test_some_files_of_a_folder_of_the_users_own_arrive_apart_from_the_others(raw):
    fetched = fetch(raw, source="path:data/raw/many/*.csv")
    assert sorted(path.name for path in fetched.path.iterdir()) == ["a.csv", "b.csv"]
    assert fetched.license == "cc-by-4.0"


@pytest.mark.parametrize("separator", ["!", "//"])
def test_a_member_of_an_archive_of_the_users_own_arrives(raw, separator):
    (raw / "data/raw/x.tar.gz").write_bytes(build_tar({"deep/rows.txt": b"one\n"}))
    assert fetch(raw, source=f"path:data/raw/x.tar.gz{separator}deep/rows.txt").path.read_bytes() == b"one\n"


@pytest.mark.parametrize("name", ["wow!.csv", "wow!/rows.csv", "a[1].csv", "b*.csv", "a[1]/b!/x.csv"])
def test_a_name_with_separators_and_wildcards_is_that_of_the_file_if_there_is_one(raw, name):
    path = raw / "data/raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n")
    (raw / "data/raw/wow").write_text("another file")
    assert fetch(raw, source=f"path:data/raw/{name}").path == Path("data/raw", name)
    path.write_bytes(build_tar({f"in/{name}": b"one\n", "in/b.csv": b"", "in/wow": b""}))
    assert fetch(raw, source=f"path:data/raw/{name}!in/{name}").path.read_bytes() == b"one\n"


def test_the_wildcards_of_a_name_without_a_file_are_wildcards(raw):
    (raw / "data/raw/wow!1.csv").touch()
    path = fetch(raw, source="path:data/raw/wow!*.csv").path
    assert [file.name for file in path.iterdir()] == ["wow!1.csv"]


def test_a_ready_split_lies_within_the_path(raw):
    assert fetch(raw, source="path:data/raw/many", file="b.csv").path.read_text() == "b"


@pytest.mark.parametrize(
    ("name", "repo_type", "message"),
    [
        ("reviews.csv", "dataset", r"path:reviews.csv: expected a path below data/raw/, which DVC watches"),
        ("/etc/passwd", "dataset", r"expected a path below data/raw/"),
        ("data/raw/../x", "dataset", r"expected a path below data/raw/"),
        ("data/raw/rows.csv", "model", r"expected a path below models/raw/"),
        ("data/raw/link", "dataset", r"expected a folder, found a symbolic link, whose changes DVC does not see"),
        ("data/raw/link/a.csv", "dataset", r"expected a folder, found a symbolic link"),
        ("data/raw/absent.csv", "dataset", r"found none; put it there, .* track it: dvc add data/raw/absent.csv"),
    ],
)
def test_a_path_elsewhere_or_without_a_file_is_refused(raw, name, repo_type, message):
    with pytest.raises(PipelineError, match=message):
        fetch(raw, source=f"path:{name}", repo_type=repo_type)
