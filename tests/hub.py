"""A hub on this machine: the part of the Hugging Face hub's protocol that a download needs, and its ways to fail."""

import hashlib
import json
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf", ".bin", ".parquet")
"""Endings of the files that the hub keeps in LFS, whose ETag is their sha256; that of others is Git's hash."""


@dataclass
class Refusal:
    """An answer in place of the real one, to the first `times` requests whose line (`GET /path`) matches."""

    line: str
    status: int
    headers: dict[str, str]
    times: float


@dataclass
class Hub:
    """Repositories by `models/ORG/NAME` or `datasets/ORG/NAME`, then by commit; `refs` names commits."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """`METHOD /path` of every request, and the range that it asked for."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Files that are served with other bytes than those that the listing describes."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes a file's next transfers break off."""
    token: str | None = None
    """What a request must carry; without it there is no such repository."""

    def __enter__(self) -> Self:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Protocol,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, repository: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """Commit the files to `models/ORG/NAME` or `datasets/ORG/NAME`; returns the commit."""
        listing = json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
        commit = hashlib.sha1(listing.encode()).hexdigest()
        self.repositories.setdefault(repository, {})[commit] = dict(files)
        self.refs[f"{repository}@{branch}"] = commit
        return commit

    def refuse(self, line: str, status: int, *, times: float = math.inf, **headers: str) -> None:
        """Answer requests whose line contains the pattern `line` with `status`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refusals.append(Refusal(line, status, names, times))


class Protocol(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(f"{line} {self.headers.get('Range', '')}".strip())
        for refusal in self.hub.refusals:
            if refusal.times and re.search(refusal.line, line):
                refusal.times -= 1
                return self.answer(refusal.status, refusal.headers)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})
        if about := re.fullmatch(r"/api/(\w+/[\w.-]+/[\w.-]+)/(revision|tree)/([\w.-]+)", path):
            return self.describe(*about.groups())
        if wanted := re.fullmatch(r"/((?:datasets/)?[\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            repository, commit, name = wanted.groups()
            return self.send(repository if repository.startswith("datasets/") else f"models/{repository}", commit, name)
        return self.answer(404, {})

    def describe(self, repository: str, what: str, revision: str) -> None:
        if repository not in self.hub.repositories:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.hub.refs.get(f"{repository}@{revision}", revision)
        if commit not in self.hub.repositories[repository]:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        files = self.hub.repositories[repository][commit]
        about = {"id": repository.partition("/")[2], "sha": commit, "siblings": []}
        listing = [describe(name, content) for name, content in files.items()]
        self.answer(200, {}, json.dumps(listing if what == "tree" else about).encode())

    def send(self, repository: str, commit: str, name: str) -> None:
        files = self.hub.repositories.get(repository, {}).get(commit, {})
        if name not in files:
            return self.answer(404, {"X-Error-Code": "EntryNotFound"})
        about = describe(name, files[name])
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" in about:
            headers |= {"X-Linked-ETag": f'"{about["lfs"]["oid"]}"', "X-Linked-Size": str(about["size"])}
        else:
            headers |= {"ETag": f'"{about["oid"]}"'}
        content, status = self.hub.served.get(name, files[name]), 200
        if start := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            content, status = content[int(start[1]) :], 206
        cuts = self.hub.cut.get(name) if self.command == "GET" else None
        self.answer(status, headers, content, cuts.pop(0) if cuts else None)

    def answer(self, status: int, headers: Mapping[str, str], content: bytes = b"", cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
            self.close_connection = cut is not None

    def log_message(self, *arguments: object) -> None:
        """Nothing: the requests are kept in `hub.requests`."""


def describe(name: str, content: bytes) -> dict:
    """A file as the hub's listing describes it."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    about = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        about["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return about
