"""Files that come over the network: checked as a whole before the first answer, then answered piece by piece."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from stages.common import content
from stages.common.errors import PipelineError
from stages.common.texts import as_inputs, clean
from stages.serving.answers import BATCH_SIZE, Inputs
from stages.streaming import tables
from stages.streaming.columns import check_each, opened, text_columns
from stages.streaming.outputs import WRITERS
from stages.streaming.tables import Tables

TYPES = {".csv": "text/csv", ".tsv": "text/tab-separated-values", ".jsonl": "application/jsonl"}
"""What a file of answers is for HTTP, by its extension."""

IDLE = 60.0
"""Seconds in which a client has to send, or to take, the next part of a file."""


def safe(name: str) -> str:
    """A file's name without what a file system, a header or a terminal could take for something else."""
    return re.sub(r"[^\w. -]", "_", name, flags=re.ASCII)[-100:].strip(". ") or "file"


def unreadable(path: Path, line: int, reason: str) -> PipelineError:
    """What to say of a row that cannot be answered."""
    return PipelineError(f"{path.name}: expected rows that can be read, found in line {line}: {reason}; correct it")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file whose rows can all be answered."""

    tables: Tables
    roles: dict[str, str]
    """The column for `text`, and for pairs `text_pair`."""
    rows: int
    ending: str
    """A key of `WRITERS`: the format of the answers, which is the file's own."""

    @classmethod
    def opened(cls, path: Path, trained: dict[str, str], *, named: str | None, characters: int, **dialect: Any) -> Self:
        """Read a file to its end.

        Args:
            trained, named: see `text_columns`.
            characters: the most that a text may have; dialect: see `Run.dialect`.

        Raises:
            PipelineError: a row cannot be read or is too long, or no column has the texts.
        """
        ending = content.format_ending(path)
        if ending not in WRITERS:
            raise PipelineError(f"{path.name}: expected a file ending in {', '.join(WRITERS)}; convert it")
        table = opened(path, list(trained), named=named, **dialect)
        for record in table.records():  # before any are gathered, as the row after a bad one may be long to find
            if record.reason:
                raise unreadable(path, record.line, record.reason)
        roles = text_columns(tables.sample(table), dict(trained), named=named, file=path, option="text")
        found = Tables(tables=[table], texts=list(roles.values()))
        check_each(found)
        rows = 0
        for chunk in found.chunks():
            for reject in chunk.rejects[:1]:
                raise unreadable(path, reject.line, reject.reason)
            longest = chunk.table[found.texts].map(lambda value: len(str(value))).max(axis=1)
            for line, length in zip(chunk.lines, longest, strict=True):
                if length > characters:
                    raise PipelineError(
                        f"{path.name}: expected texts of at most {characters:,} characters, found {length:,} in line "
                        f"{line}; cut it"
                    )
            rows += len(chunk.table)
        return cls(tables=found, roles=roles, rows=rows, ending=ending)

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The rows, as many as a batch has at a time."""
        for chunk in self.tables.chunks():
            for start in range(0, len(chunk.table), BATCH_SIZE):
                yield chunk.table[start : start + BATCH_SIZE].reset_index(drop=True)

    def inputs(self, piece: pd.DataFrame) -> Inputs:
        """The texts of some rows."""
        return as_inputs(pd.DataFrame({role: piece[column].map(clean) for role, column in self.roles.items()}))


async def received(request: Request) -> AsyncIterator[bytes]:
    """The parts of a request's body.

    Raises:
        ClientDisconnect: the client has left, or has sent nothing for `IDLE` seconds.
    """
    parts = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(IDLE):
                part = await anext(parts, None)
        except TimeoutError:
            raise ClientDisconnect from None
        if part is None:
            return
        yield part


class Answers(StreamingResponse):
    """The answers to a file, which is held until they are sent, or the client has left or takes none for `IDLE`
    seconds."""

    def __init__(self, answers: AsyncIterator[bytes], held: ExitStack, **options: Any) -> None:
        super().__init__(answers, **options)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def timely(message: Message) -> None:
            async with asyncio.timeout(IDLE):
                await send(message)

        with self.held, suppress(ClientDisconnect):
            await super().__call__(scope, receive, timely)
