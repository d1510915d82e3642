"""Archives come from the index that pip is configured for; nothing in them runs, and no password is shown."""

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from conftest import build_tar, build_wheel

from stages.common.errors import PipelineError
from stages.sources import fetched

PASSWORD = "s3cr3t-pass"


@dataclass
class Index:
    """Pages of PEP 503 and the files of one package, `thing`, as a server on this machine."""

    files: dict[str, bytes] = field(default_factory=dict)
    states_hashes: bool = True
    failures: list[str] = field(default_factory=list)
    """How the next requests for a file fail: a status, `close` without an answer, or `cut` in the middle."""
    links: list[str] = field(default_factory=list)
    """Addresses that the page of `thing` names besides the files."""
    password: str | None = None
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/simple"

    def url_with(self, password: str) -> str:
        return self.url.replace("http://", f"http://user:{password}@")

    def add(self, name: str, content: bytes) -> str:
        """Serve a file; returns its sha256."""
        self.files[name] = content
        return hashlib.sha256(content).hexdigest()


class Protocol(BaseHTTPRequestHandler):
    index: Index

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.index.requests.append(self.path)
        expected = f"user:{self.index.password}".encode()
        if self.index.password and self.headers.get("Authorization") != f"Basic {base64.b64encode(expected).decode()}":
            return self.answer(401)
        path = urlsplit(self.path).path  # a proxy gets the whole address
        folder, _, name = path.rpartition("/")
        if path == "/simple/thing/":
            return self.answer(200, self.page())
        if folder != "/files" or name not in self.index.files:
            return self.answer(404)
        match self.index.failures.pop(0) if self.index.failures else None:
            case "close":
                return None
            case "cut":
                return self.answer(200, self.index.files[name], cut=True)
            case None:
                return self.answer(200, self.index.files[name])
            case status:
                return self.answer(int(status))

    def page(self) -> bytes:
        links = [f'<a href="{link}">{link}</a>' for link in self.index.links]
        for name, content in self.index.files.items():
            stated = f"#sha256={hashlib.sha256(content).hexdigest()}" if self.index.states_hashes else ""
            links.append(f'<a href="/files/{name}{stated}">{name}</a>')
        return "\n".join(links).encode()

    def answer(self, status: int, content: bytes = b"", *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)


@pytest.fixture
def server(monkeypatch):
    """An empty index that pip is configured for, alone; nothing waits between attempts."""
    served = Index()
    served.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Protocol,), {"index": served}))
    threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "into").mkdir()


def fetch(tmp_path, sha256, *, version="1.0", file="thing-1.0/rows.csv"):
    source = f"package:thing=={version}"
    return fetched.fetch(source=source, revision=sha256, file=file, into=tmp_path / "into", repo_type="dataset")


def sdist(**files: bytes) -> bytes:
    return build_tar({"thing-1.0/rows.csv": b"a,b\n", "thing-1.0/PKG-INFO": b"License: MIT\n", **files})


@pytest.mark.parametrize("states_hashes", [True, False])
def test_a_poisoned_source_archive_gives_its_data_and_runs_nothing(server, tmp_path, states_hashes):
    trace = tmp_path / "trace"
    poison = f"import pathlib\npathlib.Path({str(trace)!r}).write_text('ran')\n".encode()
    backend = b'[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    names = ("setup.py", "evil.py", "__init__.py", "conftest.py", "sitecustomize.py")
    files = {f"thing-1.0/{name}": poison for name in names} | {"thing-1.0/pyproject.toml": backend}
    server.states_hashes = states_hashes
    sha256 = server.add("thing-1.0.tar.gz", sdist(**files))
    found = fetch(tmp_path, sha256)
    assert (found.path.read_bytes(), found.license) == (b"a,b\n", "MIT")
    assert not trace.exists()


def test_of_several_files_the_one_with_the_sha256_arrives_whatever_its_platform(server, tmp_path):
    build_wheel(tmp_path / "built", "thing", {"thing/rows.csv": b"wheel\n"})
    (wheel,) = (tmp_path / "built").iterdir()
    server.add("thing-1.0.tar.gz", sdist())
    server.add("thing-1.0-py3-none-any.whl", b"other")
    sha256 = server.add("thing-1.0-cp27-cp27m-win32.whl", wheel.read_bytes())
    assert fetch(tmp_path, sha256, file="thing/rows.csv").path.read_bytes() == b"wheel\n"
    assert [path for path in server.requests if "files" in path] == ["/files/thing-1.0-cp27-cp27m-win32.whl"]


@pytest.mark.parametrize("failure", ["close", "cut", "503", "429"])
def test_a_connection_that_fails_five_times_is_tried_a_sixth_time(server, tmp_path, failure):
    server.failures = [failure] * 5
    assert fetch(tmp_path, server.add("thing-1.0.tar.gz", sdist())).path.read_bytes() == b"a,b\n"


@pytest.mark.parametrize(("failure", "said"), [("close", "disconnected"), ("cut", "closed"), ("503", "503 Service")])
def test_a_connection_that_always_fails_ends_in_one_line(server, tmp_path, monkeypatch, failure, said):
    monkeypatch.setenv("PIP_RETRIES", "2")
    server.failures = [failure] * 100
    sha256 = server.add("thing-1.0.tar.gz", sdist())
    with pytest.raises(PipelineError, match=rf"127\.0\.0\.1.*{said}.*in every attempt; run again later") as raised:
        fetch(tmp_path, sha256)
    assert "\n" not in str(raised.value)
    assert len(server.failures) == 97
    assert not list((tmp_path / ".cache/downloads").iterdir())


def test_an_index_that_fails_does_not_hide_the_next_one(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{tmp_path.as_uri()}/absent {server.url}")
    assert fetch(tmp_path, server.add("thing-1.0.tar.gz", sdist())).path.read_bytes() == b"a,b\n"


def test_the_index_of_a_configuration_file_is_asked(server, tmp_path, monkeypatch):
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = http://127.0.0.1:1\n[download]\nindex-url={server.url}\n"
    )
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch(tmp_path, server.add("thing-1.0.tar.gz", sdist())).path.read_bytes() == b"a,b\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxy_without_a_scheme_is_used_for_hosts_that_are_trusted(server, tmp_path, monkeypatch, trusted):
    sha256 = server.add("thing-1.0.tar.gz", sdist())
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("PIP_PROXY", f"127.0.0.1:{server.server.server_port}")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "index.invalid" if trusted else "other.invalid")
    if trusted:
        assert fetch(tmp_path, sha256).path.read_bytes() == b"a,b\n"
        return
    with pytest.raises(PipelineError, match=r"Skipping http://index.invalid/simple/thing/ for not being trusted"):
        fetch(tmp_path, sha256)
    assert server.requests == []


@pytest.mark.parametrize("place", ["address", "netrc"])
def test_credentials_open_a_private_index(server, tmp_path, monkeypatch, place):
    server.password = PASSWORD
    if place == "address":
        monkeypatch.setenv("PIP_INDEX_URL", server.url_with(PASSWORD))
    else:
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {PASSWORD}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetch(tmp_path, server.add("thing-1.0.tar.gz", sdist())).path.read_bytes() == b"a,b\n"


@pytest.mark.parametrize("problem", ["refused", "dropped", "denied file", "other sha256", "other version", "malformed"])
def test_credentials_are_never_shown(server, tmp_path, monkeypatch, capfd, problem):
    sha256 = server.add("thing-1.0.tar.gz", sdist())
    server.password = "another" if problem == "refused" else PASSWORD
    server.failures = {"dropped": ["close"] * 9, "denied file": ["403"]}.get(problem, [])
    url = server.url_with(PASSWORD)
    monkeypatch.setenv("PIP_INDEX_URL", url.replace(PASSWORD, f"1/{PASSWORD}") if problem == "malformed" else url)
    with pytest.raises(PipelineError) as raised:
        fetch(
            tmp_path,
            "0" * 64 if problem == "other sha256" else sha256,
            version="2.0" if problem == "other version" else "1.0",
        )
    shown = f"{raised.value} {''.join(capfd.readouterr())}"
    assert PASSWORD not in shown
    expected = {
        "refused": "Client Error(401)",
        "dropped": "disconnected",
        "denied file": "403 Forbidden",
        "other sha256": f"found {sha256} (thing-1.0.tar.gz)",
        "other version": "the package index has 1.0",
        "malformed": "127.0.0.1",
    }
    assert expected[problem] in shown


def test_a_netrc_or_configuration_that_cannot_be_read_is_not_quoted(server, tmp_path, monkeypatch, capfd):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user word {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(tmp_path, server.add("thing-1.0.tar.gz", sdist()))
    (tmp_path / "pip.conf").write_text(f"index-url = {server.url_with(PASSWORD)}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(PipelineError, match=r"expected a configuration that pip can read") as raised:
        fetch(tmp_path, "0" * 64)
    assert PASSWORD not in f"{raised.value} {''.join(capfd.readouterr())}"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("PIP_PROXY", f"ftp://user:{PASSWORD}@proxy", r"expected usable proxy, cert, .* found ValueError"),
        ("PIP_CERT", "absent.pem", r"expected usable proxy, cert, .* found FileNotFoundError"),
        ("PIP_RETRIES", "many", r"expected a configuration that pip can read"),
    ],
)
def test_an_option_of_pip_that_cannot_be_used_is_one_line(server, tmp_path, monkeypatch, option, value, message):
    monkeypatch.setenv(option, value)
    with pytest.raises(PipelineError, match=message) as raised:
        fetch(tmp_path, "0" * 64)
    assert PASSWORD not in str(raised.value)


def test_a_page_cannot_name_a_repository_to_check_out_or_a_folder(server, tmp_path):
    (tmp_path / "thing-1.0.tar.gz").mkdir()
    folder = (tmp_path / "thing-1.0.tar.gz").as_uri()
    server.links = ["git+ssh://127.0.0.1/thing-1.0.tar.gz", folder]
    with pytest.raises(PipelineError, match=r"package:thing==1\.0: no such version; the package index has 1\.0"):
        fetch(tmp_path, "0" * 64)
