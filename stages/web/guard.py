"""What every request to the server goes through: who may ask, how much, and what Prometheus is told of it.

No other site's page may ask: a request has to name this machine by its address or by a name that is known (against DNS
rebinding), and one that a browser sends for another origin is refused.
"""

import ipaddress
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.common.texts import printable, shortened

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""The upper ends of the histogram of latencies."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for."""

    texts: int = 256
    """Texts, or pairs, in a request."""
    explained: int = 8
    """Texts whose words are weighed in a request: each takes a pass for every word."""
    characters: int = 20_000
    """Characters of a text."""
    megabytes: int = 32
    """Size of a request's body: a file, or a question as JSON."""


class Measures:
    """What Prometheus is told."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry, "namespace": "classifier"}
        self.requests = Counter("requests", "Requests answered.", ["path", "status"], **given)
        self.seconds = Histogram("request_seconds", "Time to the answer.", ["path"], buckets=SECONDS, **given)
        self.texts = Counter("texts", "Texts answered.", ["model"], **given)
        self.batch = Histogram("batch_texts", "Texts answered together.", buckets=(1, 2, 4, 8, 16, 32, 64), **given)
        self.waiting = Gauge("waiting_texts", "Texts in the queue.", **given)


class Guard:
    """What every request goes through: who may ask, how much, and how long it took."""

    def __init__(self, app: ASGIApp, *, limits: Limits, hosts: tuple[str, ...], measures: Measures) -> None:
        self.app, self.limits, self.hosts, self.measures = app, limits, hosts, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, headers, status = time.perf_counter(), Headers(scope=scope), 500
        most = self.limits.megabytes << 20

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                safe = MutableHeaders(scope=message)
                safe["X-Content-Type-Options"], safe["Referrer-Policy"] = "nosniff", "no-referrer"
                safe["Cache-Control"] = "no-store"
            await send(message)

        try:
            if reason := self.why_not(headers, most):
                await JSONResponse({"detail": reason[1]}, reason[0])(scope, receive, sent)
            else:
                await self.app(scope, limited(receive, most), sent)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.measures.requests.labels(path, status).inc()
            self.measures.seconds.labels(path).observe(time.perf_counter() - begin)

    def why_not(self, headers: Headers, most: int) -> tuple[int, str] | None:
        """The status and reason why a request is refused; None: it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own(host, self.hosts):
            return 400, f"expected the server's address or a name given by --name, found {shown(host)}"
        if origin is not None and netloc(origin) != host:
            return 403, f"expected a request from the server's own page, found one from {shown(origin)}"
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            return 413, too_large(most)
        return None


def netloc(origin: str) -> str:
    """The host and port of an Origin header; empty where it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def is_own(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header names this machine: an address, which no other site's name can lead to, or a known name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def limited(receive: Receive, most: int) -> Receive:
    """The messages of a request, up to a number of bytes."""
    left = most

    async def received() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, too_large(most))
        return message

    return received


def too_large(most: int) -> str:
    """What is said of a body that is larger than `most` bytes."""
    return f"expected a body of at most {most / (1 << 20):.4g} MB, found a larger one; send it in parts"


def shown(value: Any) -> str:
    """A value of a request, as an error message shows it."""
    return printable(shortened(repr(value), 80))
