"""Files at URLs: what is there and may be read or written is known before any work, and nothing is lost or left."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import fsspec
import pytest
from conftest import ROOT
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from stages.common import paths
from stages.common.errors import PipelineError
from stages.streaming import remote


class Store(MemoryFileSystem):
    """Object storage in memory, with one bucket, which fails in what `failing` names."""

    protocol, store, pseudo_dirs, failing = "store", {}, [], {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("store://"))

    def ask(self, what):
        if what in self.failing:
            raise self.failing[what]

    def info(self, path, **options):
        self.ask("info")
        return super().info(path, **options)

    def _open(self, path, mode="rb", **options):
        self.ask(mode)
        if mode == "wb" and not path.startswith("/bucket/"):
            raise FileNotFoundError("The specified bucket does not exist")
        return super()._open(path, mode, **options)

    def get_file(self, path, to, **options):
        Path(to).write_bytes(b"half")
        self.ask("get")
        super().get_file(path, to, **options)

    def put_file(self, path, to, **options):
        self.ask("put")
        self.pipe_file(to, Path(path).read_bytes())


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The bucket, in an empty folder of this machine."""
    monkeypatch.chdir(tmp_path)
    fsspec.register_implementation("store", Store, clobber=True)
    for name, value in (("store", {}), ("pseudo_dirs", []), ("failing", {})):
        monkeypatch.setattr(Store, name, value)
    store = fsspec.filesystem("store")
    for name in ("in/b.csv", "in/a.csv", "in/.hidden.csv", "in/sub/c.tsv", "odd/d.bin"):
        store.pipe_file(f"bucket/{name}", name.encode())
    return store


def content(store):
    """The names of all files."""
    return sorted(store.find("bucket"))


def sent(path, url, home=None, rejects=""):
    """Write an output and send it."""
    with remote.sent(Path(path), remote.destination("--output", url, read=[]), home) as made:
        made.write_text("answers")
        if rejects:
            made.with_name(f"{made.stem}.rejects.csv").write_text(rejects)


def test_a_glob_is_its_files_in_order_and_copies_have_their_names_and_go(store):
    found = remote.inputs("store://bucket/in/*.csv")
    assert [str(one) for one in found] == ["store:///bucket/in/a.csv", "store:///bucket/in/b.csv"]
    store.pipe_file("bucket/other/a.csv", b"other")
    with remote.copied([*found, *remote.inputs("store://bucket/other/a.csv")]) as copies:
        assert [(copy.name, copy.read_bytes()) for copy in copies] == [
            ("a.csv", b"in/a.csv"),
            ("b.csv", b"in/b.csv"),
            ("a.csv", b"other"),
        ]
    assert list(paths.SCRATCH.iterdir()) == []


@pytest.mark.parametrize("name", ["[1].csv", ".hidden.csv"])
def test_a_file_may_have_any_name(name, store):
    store.pipe_file(f"bucket/in/{name}", b"")
    assert [one.name for one in remote.inputs(f"store://bucket/in/{name}")] == [name]


@pytest.fixture
def server():
    """The address of a server that has one file, a.csv, whatever the query is, and tells no headers without it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = urlsplit(self.path).path == "/in/a.csv"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(5 * found))
            self.end_headers()
            self.wfile.write(b"text\n" * found)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("query", ["download=true", "X-Amz-Credential=a/b/s3&X-Amz-Signature=c.d"])
def test_a_link_with_a_query_has_the_name_before_it(query, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = remote.inputs(f"{server}/in/a.csv?{query}")
    assert (found.name, str(found)) == ("a.csv", f"{server}/in/a.csv?{query}")
    with remote.copied([found]) as copies:
        assert [(copy.name, copy.read_bytes()) for copy in copies] == [("a.csv", b"text\n")]
    with pytest.raises(PipelineError, match="found nothing of that name"):
        remote.inputs(f"{server}/in/b.csv?{query}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "store://bucket/odd/d.bin",
            "store:///bucket/odd/d.bin: expected a file ending in .tsv, .txt, .csv, .jsonl, .parquet, compressed",
        ),
        ("store://bucket/in/x.csv", "found nothing of that name"),
        ("store://bucket/in", "store:///bucket/in: expected a file, found a folder; name its files, as with"),
        ("store://bucket/in/*", "store:///bucket/in/sub: expected a file, found a folder"),
        (
            "store://bucket/in/*.tsv",
            "--input: expected files that match store://bucket/in/*.tsv, found none; check the",
        ),
        ("nowhere://a.csv", "--input: expected a path or a URL, found nowhere://a.csv: Protocol not known: nowhere"),
        (
            "file:///a/b.csv",
            "--input: expected a path for a file on this machine, found file:///a/b.csv; name /a/b.csv",
        ),
    ],
)
def test_an_input_that_is_none_is_said(url, said, store):
    with pytest.raises(PipelineError) as refused:
        remote.inputs(url)
    assert said in str(refused.value)


def test_a_package_that_is_missing_is_named(store, monkeypatch):
    missing = {"class": "absent_package.FileSystem", "err": "Install absent to access it"}
    monkeypatch.setitem(known_implementations, "absent", missing)
    with pytest.raises(PipelineError, match=r"found none: Install absent to access it; s3fs and gcsfs take the"):
        remote.inputs("absent://bucket/a.csv")


def test_the_docs_name_s3fs_in_the_version_of_fsspec():
    assert f"pip install s3fs=={fsspec.__version__}\n" in (ROOT / "docs/predict.md").read_text()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("store://bucket/out.txt", "--output: expected a file ending in .csv, .tsv, .jsonl, .parquet, found"),
        ("store://bucket/", "--output: expected a file ending in"),
        ("https://host/out.csv", "found a kind of URL without such places; check the name, the credentials and the"),
        ("store://bucket/in/a.csv", "found store://bucket/in/a.csv, which is the input"),
        ("store://bucket/in/a.jsonl", None),
        ("store://other/out.csv", "found nothing of that name (The specified bucket does not exist); check the name,"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_and_nothing_is_left_by_trying(url, said, store):
    before = content(store)
    if said is None:
        assert str(remote.destination("--output", url, read=remote.inputs("store://bucket/in/a.csv"))) == (
            "store:///bucket/in/a.jsonl"
        )
    else:
        with pytest.raises(PipelineError) as refused:
            remote.destination("--output", url, read=remote.inputs("store://bucket/in/a.csv"))
        assert said in str(refused.value)
    assert content(store) == before


def test_the_table_of_rejects_is_no_input_either(store):
    store.pipe_file("bucket/in/x.rejects.csv", b"")
    with pytest.raises(PipelineError, match="which is the input"):
        remote.destination("--output", "store://bucket/in/x.csv", read=remote.inputs("store://bucket/in/*.csv"))


def test_nothing_is_left_where_what_is_written_is_there_at_once(store, monkeypatch):
    monkeypatch.setattr(Store, "_intrans", property(lambda self: False, lambda self, value: None), raising=False)
    before = content(store)
    remote.destination("--output", "store://bucket/out.csv", read=[])
    assert content(store) == before


def test_a_copy_that_fails_leaves_nothing(store):
    found = remote.inputs("store://bucket/in/*.csv")
    Store.failing = {"get": ConnectionResetError("the connection was\nreset")}
    refused = (
        r"^store:///bucket/in/a.csv: expected a file that can be read, found ConnectionResetError \(the connection "
    )
    with (
        pytest.raises(PipelineError, match=refused + r"was reset\); check the name, the credentials and"),
        remote.copied(found),
    ):
        pytest.fail("copied")
    assert list(paths.SCRATCH.iterdir()) == []


def test_copies_that_the_disk_cannot_hold_are_not_begun(store):
    (found,) = remote.inputs("store://bucket/in/a.csv")
    found.info["size"] = 10**18
    refused = pytest.raises(PipelineError, match=r"scratch/.*: expected 1e\+09 GB of free space, found \d")
    with refused, remote.copied([found]):
        pytest.fail("copied")


def test_an_output_is_sent_with_its_rejects_which_a_later_one_without_any_removes(store):
    url = "store://bucket/out/answers.csv"
    sent("answers.csv", url, rejects="rejects")
    assert store.cat("bucket/out/answers.csv") == b"answers"
    assert store.cat("bucket/out/answers.rejects.csv") == b"rejects"
    sent("answers.csv", url)
    assert store.find("bucket/out") == ["/bucket/out/answers.csv"]
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_an_output_that_cannot_be_sent_is_kept(store, tmp_path):
    Store.failing = {"put": PermissionError("Forbidden")}
    with pytest.raises(
        PipelineError, match=r"found no permission \(Forbidden\).*; all answers are kept in (\S+)$"
    ) as said:
        sent("answers.csv", "store://bucket/answers.csv", rejects="rejects")
    kept = Path(str(said.value).rpartition(" ")[2])
    assert {one.name: one.read_text() for one in kept.iterdir()} == {
        "answers.csv": "answers",
        "answers.rejects.csv": "rejects",
    }
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(PipelineError, match=r"all answers are kept, and the same command sends them$"):
        sent("answers.csv", "store://bucket/answers.csv", home)
    assert [one.name for one in home.rglob("*.*")] == ["answers.csv"]


@pytest.mark.parametrize("denied", ["info", "wb"])
def test_what_is_not_permitted_is_said_before_any_work(denied, store):
    Store.failing = {denied: PermissionError("Access Denied")}
    with pytest.raises(PipelineError, match=r"found no permission \(Access Denied\)"):
        if denied == "info":
            remote.inputs("store://bucket/in/a.csv")
        else:
            remote.destination("--output", "store://bucket/out.csv", read=[])
