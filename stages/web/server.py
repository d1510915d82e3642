"""The server: a page for people, and an API for programs.

Nothing is fetched from elsewhere, and no other site's page may ask: the page's Content-Security-Policy names its own
script and style by their hashes, a request has to name this machine by its address or by a name that is known (against
DNS rebinding), and one that a browser sends for another origin is refused.
"""

import asyncio
import base64
import hashlib
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.common.errors import PipelineError
from stages.common.texts import as_inputs, clean, nearest, printable, shortened
from stages.serving.answers import Classifier, Inputs
from stages.web.batching import Batcher, FullError
from stages.web.models import Served, as_json

PAGE = Path(__file__).with_name("page.html")

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""The upper ends of the histogram of latencies."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for."""

    texts: int = 256
    """Texts, or pairs, in a request."""
    characters: int = 20_000
    """Characters of a text."""
    megabytes: int = 32
    """Size of a file."""

    @property
    def body(self) -> int:
        """Bytes of a request without a file: any character of JSON may be written by 12."""
        return min(self.texts * self.characters * 12, self.megabytes << 20)


class Question(BaseModel):
    """Texts to classify: one as `text`, or several as `texts`; a pair of texts is a list of two."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"texts": ["A warm, funny and wise film.", "Dull."], "compare": True}]},
    )

    text: str | list[str] | None = Field(None, description="one text, or a pair of texts")
    texts: list[str | list[str]] | None = Field(None, description="a list of texts, or of pairs of texts")
    compare: bool = Field(False, description="true for the untouched model's answers besides, or false")
    model: str | None = Field(None, description="the name of a model, where several are served")


def create(models: Mapping[str, Served], *, limits: Limits = Limits(), hosts: tuple[str, ...] = ()) -> FastAPI:
    """The application.

    Args:
        models: by name; the first answers where none is named.
        hosts: names by which a request may call this machine, besides localhost and any address.
    """
    measures = Measures()
    batcher = Batcher(seen=measures.batch.observe)
    measures.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="Text classifier", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, hosts=("localhost", *hosts), measures=measures)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(PipelineError, refused)
    app.add_exception_handler(FullError, full)
    app.add_exception_handler(Exception, failed)
    add_page(app)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, with which models, and within which limits."""
        known = [model.facts | {"compares": model.untouched is not None} for model in models.values()]
        return {"status": "ok", "waiting": batcher.waiting, "limits": asdict(limits), "models": known}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts, latencies and the queue, as Prometheus reads them."""
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(question: Question) -> dict[str, Any]:
        """The answer to each text: its label, probability, and the probability of every class."""
        model = named(models, question.model)
        inputs = inputs_of(question, model, limits)
        asked = [model.tuned, model.beside()] if question.compare else [model.tuned]
        answers, *others = await asyncio.gather(*(answered(batcher, one, inputs) for one in asked))
        measures.texts.labels(model.name).inc(len(inputs))
        for other in others:
            answers = [mine | {"untouched": its} for mine, its in zip(answers, other, strict=True)]
        return {"model": model.name, "answers": answers}

    return app


async def answered(batcher: Batcher, classifier: Classifier, inputs: Inputs) -> list[dict[str, Any]]:
    """The answers to inputs, see `as_json`."""
    return as_json(classifier, await asyncio.wrap_future(batcher.submit(classifier.answers, inputs)))


def named(models: Mapping[str, Served], name: str | None) -> Served:
    """The model of a name; None: the first.

    Raises:
        HTTPException: there is none (404).
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise HTTPException(404, f"model: expected one of {', '.join(map(repr, models))}, found {shown(name)}")
    return models[name]


def inputs_of(question: Question, model: Served, limits: Limits) -> Inputs:
    """The texts of a question, as the model takes them.

    Raises:
        HTTPException: there are none, or others than the model takes (422), or too many or too long ones (413).
    """
    if (question.text is None) == (question.texts is None):
        raise HTTPException(422, f"expected text or texts, found {'neither' if question.text is None else 'both'}")
    texts = [question.text] if question.texts is None else question.texts
    if not texts:
        raise HTTPException(422, "texts: expected one or more, found none")
    if len(texts) > limits.texts:
        raise HTTPException(413, f"texts: expected at most {limits.texts:,}, found {len(texts):,}; send them in parts")
    rows = [[text] if isinstance(text, str) else text for text in texts]
    wanted = "a text" if model.texts == 1 else f"a pair of texts, as [{', '.join(map(repr, model.columns.values()))}]"
    for number, (text, row) in enumerate(zip(texts, rows, strict=True), start=1):
        if len(row) != model.texts or isinstance(text, str) != (model.texts == 1):
            found = "a text" if isinstance(text, str) else f"a list of {len(row)}"
            raise HTTPException(422, f"text {number}: expected {wanted}, found {found}")
        if (length := max(map(len, row))) > limits.characters:
            raise HTTPException(
                413, f"text {number}: expected at most {limits.characters:,} characters, found {length:,}; cut it"
            )
    return as_inputs(pd.DataFrame(rows, columns=list(model.columns), dtype=object).map(clean))


def add_page(app: FastAPI) -> None:
    """Serve the page, whose script and style are the only ones that a browser runs there."""
    content = PAGE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {sources(content, 'script')}; style-src {sources(content, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse("/#api")


def sources(page: str, tag: str) -> str:
    """The hashes of a page's elements of a tag, as Content-Security-Policy names them (CSP level 3, section 2.3.1)."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in found)


async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a body that is no question: 422, in one line."""
    first = error.errors()[0]
    where = [part for part in first["loc"] if part not in ("body", "query")]
    name = str(where[0]) if where else ""
    fields = Question.model_fields
    if first["type"] == "json_invalid":
        detail = f"expected JSON, found: {first['ctx']['error']} at {first['loc'][-1]}"
    elif first["type"] == "extra_forbidden":
        near = nearest(name, list(fields))
        detail = f"expected {', '.join(fields)}, found {shown(name)}" + (f"; did you mean {near!r}?" if near else "")
    elif name in fields:
        detail = f"{name}: expected {fields[name].description}, found {shown(first['input'])}"
    else:
        detail = (
            f"expected a JSON object with text or texts (Content-Type: application/json), found {shown(first['input'])}"
        )
    return JSONResponse({"detail": detail}, 422)


async def refused(request: Request, error: PipelineError) -> JSONResponse:
    """Answer what cannot be answered: 400, in one line."""
    return JSONResponse({"detail": printable(str(error))}, 400)


async def full(request: Request, error: FullError) -> JSONResponse:
    """Answer while too many texts wait: 503."""
    return JSONResponse({"detail": "too many texts wait; ask again in a moment"}, 503, {"Retry-After": "1"})


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of the server; the traceback is on standard error."""
    return JSONResponse({"detail": "the server failed; its standard error says why"}, 500)


def shown(value: Any) -> str:
    """A value of a request, as an error message shows it."""
    return printable(shortened(repr(value), 80))


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
        most = self.limits.megabytes << 20 if scope["path"] == "/file" else self.limits.body

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
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"expected a request from the server's own page, found one from {shown(origin)}"
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            return 413, too_large(most)
        return None


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
