"""Text piece by piece: the lines of a file or a stream, and the rows that they make.

What a file is (its encoding, its line ends) is found out from its first megabyte, and from the first one that is not
ASCII: `stages.common.content` says how.
"""

import codecs
import csv
import io
import itertools
import re
import select
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from stages.common import content, texts
from stages.common.errors import PipelineError
from stages.rows import formats

FOREIGN = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is no text in the encoding of its file."""

AT_ONCE = 1 << 16
"""Bytes of a stream that are read at once: as many as a pipe holds."""


class Record(NamedTuple):
    """A row of a table, or what stands in its place."""

    line: int
    """Where it begins, from 1; in a Parquet file the number of the row."""
    content: str | None
    """The text that was read; None: there is none, in a Parquet file."""
    values: list[Any] | None
    """By column; None: it is no row."""
    reason: str = ""
    """Why it is no row."""


class Text:
    """The text of a file, line by line."""

    def __init__(self, path: Path) -> None:
        """Read the beginning.

        Raises:
            UnicodeDecodeError: the encoding is unknown; ValueError: see `content.chunks` and `content.short_lines`.
        """
        self.path, self.read, self.came, self.gone, self.at = path, 0, 0, 0, 0
        self.pieces = self.decoded()
        first, second = next(self.pieces, "").removeprefix("\ufeff"), next(self.pieces, "")
        self.of_a_mac = "\r" in first and "\r" not in content.with_line_feeds(first)
        beginning = content.with_line_feeds(first) if self.of_a_mac else first
        self.beginning = beginning[: beginning.rfind("\n") + 1] or beginning if second else beginning
        self.pieces = itertools.chain([first, second], self.pieces)

    def decoded(self) -> Iterator[str]:
        """The text in pieces. What is ASCII does not tell an encoding, so the first piece that is not decides."""
        parts = content.short_lines(content.chunks(self.path, self.note))
        first, decoder = next(parts, b""), None
        encoding = content.BYTE_ORDER_MARKS.get(first[:2]) or content.utf_16_without_mark(first)
        for part in itertools.chain([first], parts):
            if decoder is None and (encoding or not part.isascii()):
                encoding = encoding or encoding_of(part)
                content.say_encoding(self.path, encoding)
                foreign = "strict" if encoding.startswith("utf-16") else "surrogateescape"
                decoder = codecs.getincrementaldecoder(encoding.split()[0])(foreign)
            text = decoder.decode(part) if decoder else part.decode()
            self.came += len(text)
            yield text
        yield decoder.decode(b"", final=True) if decoder else ""

    def note(self, read: int) -> None:
        """Remember how many bytes of the file were read."""
        self.read = read

    def lines(self) -> Iterator[str]:
        """Each line, with what ends it. The beginning is given up: thousands of files may be read."""
        self.beginning = ""
        rest, line_feeds = "", io.IncrementalNewlineDecoder(None, translate=self.of_a_mac)
        for piece in self.pieces:
            *whole, rest = (rest + line_feeds.decode(piece)).split("\n")
            for line in whole:
                self.gone += len(line) + 1
                yield f"{line}\n"
        if rest := rest + line_feeds.decode("", final=True):
            yield rest

    def position(self) -> float:
        """The bytes of the file that hold the lines so far."""
        self.at = max(self.at, min(self.read, self.read * self.gone / max(1, self.came)))
        return self.at


def encoding_of(part: bytes) -> str:
    """The encoding of a piece that is not ASCII.

    Raises:
        UnicodeDecodeError: it is unknown. In UTF-8 with a few broken bytes, the rows that have these cannot be read.
    """
    try:
        codecs.utf_8_decode(part, "strict", len(part) < content.CHUNK)  # else the last character may be cut off
    except UnicodeDecodeError:
        try:
            return content.decoded(part)[1]
        except UnicodeDecodeError:
            if part.decode(errors="ignore").isascii():
                raise
    return "utf-8"


def is_foreign(text: str) -> bool:
    """Whether a text has bytes that are no text in the encoding of its file."""
    return not text.isascii() and FOREIGN.search(text) is not None


def ended(text: str) -> str:
    """A row's text without what ends it."""
    return text.removesuffix("\n").removesuffix("\r")


def rows(lines: Iterable[str], dialect: dict[str, Any]) -> Iterator[tuple[int, str, list[str] | None]]:
    """The number of each row's first line, its text and its fields.

    None for the fields: it has a quote that is not closed within `content.LONGEST_LINE`; the next row begins with the
    next line.
    """
    lines, again, taken, number, over, size = iter(lines), deque(), [], 1, False, 0

    def feed() -> Iterator[str]:
        nonlocal over, size
        while (line := again.popleft() if again else next(lines, None)) is not None:
            size = size + len(line) if taken else len(line)
            taken.append(line)
            if size > content.LONGEST_LINE:
                raise csv.Error("a quote that is not closed")
            yield line
        over = True

    while True:
        reader = content.fields(feed(), dialect)
        over = False
        while not over:
            try:
                fields = next(reader, None)
            except csv.Error:
                over = True
            if over:
                break
            yield number, taken[0] if len(taken) == 1 else "".join(taken), fields
            number += len(taken)
            taken.clear()
        if not taken:
            return
        yield number, taken[0], None
        again.extendleft(reversed(taken[1:]))
        number += 1
        taken.clear()


class Lines:
    """Texts, or pairs with a TAB between them, a line each."""

    format, size = "lines", None

    def __init__(self, given: BinaryIO | list[str], columns: list[str], *, path: Path) -> None:
        self.given, self.columns, self.path, self.header = given, columns, path, {}

    def records(self) -> Iterator[Record | None]:
        number, blank = 0, True
        for line in self.lines():
            if line is None:
                yield None
                continue
            if not number:
                line = line.removeprefix("\ufeff")
            number, blank = number + 1, blank and not line.strip()
            values = line.split("\t") if len(self.columns) > 1 else [line]
            if len(values) == len(self.columns):
                yield Record(number, line, [texts.valid(value) for value in values])
            else:
                reason = f"expected pairs of texts with a TAB between them, found {line!r}"
                yield Record(number, line, None, reason)
        if blank and self.size is None:
            raise PipelineError("expected texts as arguments, on standard input or in --input FILE, found none")

    def lines(self) -> Iterator[str | None]:
        """The text of each line; None where the next one has yet to come."""
        if isinstance(self.given, list):
            yield from self.given
            return
        rest = b""
        with formats.reading(self.path, self.format):
            for piece in content.short_lines(iter(partial(self.given.read1, AT_ONCE), b"")):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line.removesuffix(b"\r").decode(errors="surrogateescape") for line in whole)
                if not is_waiting(self.given):
                    yield None
            if rest:
                yield rest.decode(errors="surrogateescape")

    def position(self) -> float:
        return 0.0

    def types(self) -> pa.Schema:
        """All values are text."""
        return pa.schema([(name, pa.string()) for name in self.columns])


class LinesOfFile(Lines):
    """Those of a file, which may be compressed, and in any encoding that a table may have."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        super().__init__([], columns, path=path)
        self.size, self.text = path.stat().st_size, None

    def lines(self) -> Iterator[str]:
        with formats.reading(self.path, self.format):
            self.text = Text(self.path)
            yield from map(ended, self.text.lines())

    def position(self) -> float:
        return self.text.position()


def is_waiting(stream: BinaryIO) -> bool:
    """Whether a stream can be read without a pause; so can what is no stream of the operating system."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):
        return True
