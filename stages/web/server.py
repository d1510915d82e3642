"""The server: a page for people, and an API for programs.

The page fetches nothing from elsewhere, and its Content-Security-Policy names its own script and style by their hashes.
"""

import asyncio
import base64
import hashlib
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import ClientDisconnect

from stages.common.errors import PipelineError
from stages.common.texts import as_inputs, clean, nearest, printable
from stages.serving.answers import Classifier, Inputs
from stages.serving.reasons import MOST, Reasons, reasons_for
from stages.streaming.columns import joined
from stages.streaming.outputs import WRITERS
from stages.web.batching import Batcher, FullError
from stages.web.guard import Guard, Limits, Measures, shown
from stages.web.models import Served, as_json
from stages.web.uploads import IDLE, TYPES, Answers, Upload, received, safe

PAGE = Path(__file__).with_name("page.html")

DEFAULT_LIMITS = Limits()

FILES = 8
"""Files that are taken at once; each lies in the temporary folder until it is answered."""


class FirstFault(FailFast):
    """Of a list, the first fault is told: to find millions would take long."""

    __hash__ = object.__hash__  # so that it can stand in a union


Pair = Annotated[list[str], FirstFault()]


class Question(BaseModel):
    """Texts to classify: one as `text`, or several as `texts`; a pair of texts is a list of two."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"texts": ["A warm, funny and wise film.", "Dull."], "compare": True}]},
    )

    text: str | Pair | None = Field(None, description="one text, or a pair of texts")
    texts: Annotated[list[str | Pair], FirstFault()] | None = Field(
        None, description="a list of texts, or of pairs of texts"
    )
    compare: bool = Field(False, description="true for the untouched model's answers besides, or false")
    explain: bool = Field(False, description="true for the words that mattered, or false")
    model: str | None = Field(None, description="the name of a model, where several are served")

    @model_validator(mode="before")
    @classmethod
    def with_one_unknown_key(cls, given: Any) -> Any:
        """Of a body with unknown keys, the first of these alone."""
        unknown = [key for key in given if key not in cls.model_fields][:1] if isinstance(given, dict) else []
        return {key: given[key] for key in unknown} or given


def create(models: Mapping[str, Served], *, limits: Limits = DEFAULT_LIMITS, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The application.

    Args:
        models: by name; the first answers where none is named.
        hosts: names by which a request may call this machine, besides localhost and any address.
    """
    service = Service(models, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(title="Text classifier", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, hosts=("localhost", *map(str.lower, hosts)), measures=service.measures)
    for error, answer in ANSWERS.items():
        app.add_exception_handler(error, answer)
    app.get("/health")(service.health)
    app.get("/metrics")(service.metrics)
    app.post("/predict")(service.predict)
    app.post("/file", response_class=StreamingResponse)(service.file)
    add_page(app)
    return app


class Service:
    """What the API answers."""

    def __init__(self, models: Mapping[str, Served], limits: Limits) -> None:
        self.models, self.limits, self.measures = models, limits, Measures()
        self.batcher = Batcher(seen=self.measures.batch.observe)
        self.places = threading.Semaphore(FILES)
        self.measures.waiting.set_function(lambda: self.batcher.waiting)

    async def health(self) -> dict[str, Any]:
        """Whether the server answers, with which models, and within which limits."""
        known = [model.facts | {"compares": model.untouched is not None} for model in self.models.values()]
        return {"status": "ok", "waiting": self.batcher.waiting, "limits": asdict(self.limits), "models": known}

    async def metrics(self) -> Response:
        """Counts, latencies and the queue, as Prometheus reads them."""
        return Response(generate_latest(self.measures.registry), media_type=CONTENT_TYPE_LATEST)

    async def predict(self, question: Question) -> dict[str, Any]:
        """The answer to each text: its label, probability, and the probability of every class."""
        model = named(self.models, question.model)
        inputs = inputs_of(question, model, self.limits)
        asked = [model.tuned, model.beside()] if question.compare else [model.tuned]
        answers, *others = await asyncio.gather(*(answered(self.batcher, one, inputs) for one in asked))
        self.measures.texts.labels(model.name).inc(len(inputs))
        for other in others:
            answers = [mine | {"untouched": its} for mine, its in zip(answers, other, strict=True)]
        if question.explain:
            found = await self.reasons(model, inputs)
            answers = [mine | {"reasons": asdict(why)} for mine, why in zip(answers, found, strict=True)]
        return {"model": model.name, "answers": answers}

    async def reasons(self, model: Served, inputs: Inputs) -> list[Reasons]:
        """The reasons for each answer of a model; between them the questions of others are answered."""
        found = []
        for given in inputs:
            why = partial(reasons_for, model.tuned)
            found += await asyncio.wrap_future(self.batcher.submit(why, [given], passes=MOST + 1))
        return found

    async def file(
        self, request: Request, name: str, text: str | None = None, model: str | None = None, compare: bool = False
    ) -> StreamingResponse:
        """The rows of a .csv, .tsv or .jsonl file, the body, with the answers in further columns.

        `name` is the file's name, `text` the column of the texts, if it is not that of the training or the only one.
        """
        chosen = named(self.models, model)
        asked = {"": chosen.tuned} | ({"untouched_": chosen.beside()} if compare else {})
        with ExitStack() as held:
            path = held.enter_context(self.place()) / safe(name)
            with path.open("wb") as stored:
                async for part in received(request):
                    stored.write(part)
            how = {"named": text, "characters": self.limits.characters} | chosen.dialect
            check = partial(Upload.opened, path, chosen.columns, **how)
            upload = await asyncio.to_thread(check)
            kept = f'attachment; filename="{path.stem.split(".")[0]}.answers{upload.ending}"'
            headers = {"X-Rows": str(upload.rows), "Content-Disposition": kept}
            answers = answered_file(upload, self.batcher, asked, self.measures.texts.labels(chosen.name).inc)
            return Answers(answers, held.pop_all(), media_type=TYPES[upload.ending], headers=headers)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A temporary folder for one of the files that are taken at once.

        Raises:
            FullError: there are `FILES` already.
        """
        if not self.places.acquire(blocking=False):
            raise FullError
        try:
            with tempfile.TemporaryDirectory(prefix="upload-") as folder:
                yield Path(folder)
        finally:
            self.places.release()


async def answered(batcher: Batcher, classifier: Classifier, inputs: Inputs) -> list[dict[str, Any]]:
    """The answers to inputs, see `as_json`."""
    return as_json(classifier, await asyncio.wrap_future(batcher.submit(classifier.answers, inputs)))


async def answered_file(
    upload: Upload, batcher: Batcher, classifiers: dict[str, Classifier], count: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """A file's rows with the answers, piece by piece, between which the questions of others are answered.

    Args:
        classifiers: by what comes before the names of their answers.
    """
    header = True
    async for piece in iterate_in_threadpool(upload.pieces()):
        table = piece
        for prefix, classifier in classifiers.items():
            found = await asyncio.wrap_future(await patient(batcher, classifier, upload.inputs(piece)))
            table = joined(table, found.reset_index(drop=True).add_prefix(prefix))
        count(len(piece))
        yield WRITERS[upload.ending](table.rename(columns=upload.tables.header), header=header)
        header = False


async def patient(batcher: Batcher, classifier: Classifier, inputs: Inputs) -> Future:
    """Ask a classifier; where too many texts wait, a file waits until it can."""
    while True:
        try:
            return batcher.submit(classifier.answers, inputs)
        except FullError:
            if batcher.closed:
                raise
            await asyncio.sleep(0.1)


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
    if question.explain and len(texts) > limits.explained:
        raise HTTPException(413, f"explain: expected at most {limits.explained} texts, found {len(texts):,}")
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
    elif first["loc"][0] == "query":
        detail = f"{name}: expected a value, as in /file?name=rows.csv&compare=true, found {shown(first['input'])}"
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
    """Answer while too many texts wait, or files are answered: 503."""
    return JSONResponse({"detail": "too many texts or files wait; ask again in a moment"}, 503, {"Retry-After": "1"})


async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
    """End a request whose client has left, or has sent nothing for long, before its body was whole."""
    return JSONResponse({"detail": f"expected the rest of the body within {IDLE:g} seconds, found nothing more"}, 400)


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of the server; the traceback is on standard error."""
    return JSONResponse({"detail": "the server failed; its standard error says why"}, 500)


ANSWERS = {
    RequestValidationError: invalid,
    PipelineError: refused,
    FullError: full,
    ClientDisconnect: gone,
    Exception: failed,
}
"""What is answered instead, by what went wrong."""
