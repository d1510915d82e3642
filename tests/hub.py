"""A hub on this machine: the part of the Hugging Face hub's protocol that downloads and uploads need, and its ways to
fail."""

import base64
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
    private: dict[str, bool] = field(default_factory=dict)
    """Whether a repository that was created here is private."""
    uploaded: dict[str, bytes] = field(default_factory=dict)
    """Large files by their sha256, before and after a commit names them."""

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
        path = self.admitted()
        if path is None:
            return None
        if about := re.fullmatch(r"/api/(\w+/[\w.-]+/[\w.-]+)(?:/(revision|tree)/([\w.-]+))?", path):
            repository, what, revision = about.groups()
            return self.describe(repository, what, revision or "main")
        if wanted := re.fullmatch(r"/((?:datasets/)?[\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            repository, commit, name = wanted.groups()
            return self.send(repository if repository.startswith("datasets/") else f"models/{repository}", commit, name)
        return self.answer(404, {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.admitted()
        if path is None:
            return None
        if path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(**json.loads(content))
        if re.fullmatch(r"/[\w.-]+/[\w.-]+\.git/info/lfs/objects/batch", path):
            return self.answer_json(
                {"transfer": "basic", "objects": [*map(self.place, json.loads(content)["objects"])]}
            )
        action = re.fullmatch(r"/api/(models/[\w.-]+/[\w.-]+)/(preupload|commit)/main", path)
        if action and action[1] not in self.hub.repositories:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        if action and action[2] == "preupload":
            modes = {
                file["path"]: "lfs" if file["path"].endswith(LARGE) else "regular"
                for file in json.loads(content)["files"]
            }
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            return self.answer_json({"files": files})
        if action:
            return self.commit(action[1], [json.loads(line) for line in content.splitlines()])
        return self.answer(404, {})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.admitted(signed=True) is not None:
            self.hub.uploaded[hashlib.sha256(content).hexdigest()] = content
            self.answer(200, {})

    def admitted(self, *, signed: bool = False) -> str | None:
        """The path of the request, or None if it has been refused.

        Args:
            signed: the address itself is the permission, as in the store of large files.
        """
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(f"{line} {self.headers.get('Range', '')}".strip())
        for refusal in self.hub.refusals:
            if refusal.times and re.search(refusal.line, line):
                refusal.times -= 1
                return self.answer(refusal.status, refusal.headers)
        if not signed and self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})
        return path

    def create(self, *, name: str, organization: str, visibility: str = "public", **other: object) -> None:
        repository = f"models/{organization}/{name}"
        status = 409 if repository in self.hub.repositories else 200
        if status == 200:
            self.hub.add(repository, {})
            self.hub.private[repository] = visibility == "private"
        self.answer_json({"url": f"{self.hub.url}/{organization}/{name}"}, status)

    def place(self, file: dict) -> dict:
        """Where a large file goes; nowhere, if the hub has it."""
        wanted = {} if file["oid"] in self.hub.uploaded else {"href": f"{self.hub.url}/large/{file['oid']}"}
        return file | ({"actions": {"upload": wanted}} if wanted else {})

    def commit(self, repository: str, lines: list[dict]) -> None:
        files = dict(self.hub.repositories[repository][self.hub.refs[f"{repository}@main"]])
        for line in lines:
            match line["key"], line["value"]:
                case "file", value:
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile", value:
                    files[value["path"]] = self.hub.uploaded[value["oid"]]
        commit = self.hub.add(repository, files)
        address = f"{self.hub.url}/{repository.removeprefix('models/')}/commit/{commit}"
        self.answer_json({"success": True, "commitOid": commit, "commitUrl": address})

    def describe(self, repository: str, what: str | None, revision: str) -> None:
        if repository not in self.hub.repositories:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.hub.refs.get(f"{repository}@{revision}", revision)
        if commit not in self.hub.repositories[repository]:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        files = self.hub.repositories[repository][commit]
        about = {"id": repository.partition("/")[2], "sha": commit, "siblings": []}
        about["private"] = self.hub.private.get(repository, False)
        listing = [describe(name, content) for name, content in files.items()]
        self.answer_json(listing if what == "tree" else about)

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

    def answer_json(self, content: object, status: int = 200) -> None:
        self.answer(status, {}, json.dumps(content).encode())

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
