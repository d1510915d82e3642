"""The text of a file: how it is compressed, in which encoding it is, what separates its fields.

What is fed to the pipeline cannot fill its memory or its time: the limits here bound what a small file can unfold to.
"""

import bz2
import contextlib
import csv
import functools
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, TextIO

from stages.common import files, progress

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
"""The extensions of compressed files; the bytes at the beginning decide whether a file is one."""

BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
"""The separators of fields that are looked for."""

LONE_RETURN = re.compile(r"\r(?!\n)")
"""A carriage return that is no part of a line's end."""

RETURN = "\udc0d"
"""What stands for one while the csv module reads it; decoded text has no such surrogate."""

FIRST_LINES = 50
"""Rows that have to agree on a delimiter."""

RATIO = 100
"""Bytes that a compressed byte may unfold to; text comes to 3 to 20."""

AT_ONCE = 32 << 20
"""Bytes beyond `RATIO` that any file may unfold to, and that one stretch of a file may."""

TOO_MUCH = (
    f"more than {RATIO} bytes for each compressed byte, beyond the first {AT_ONCE >> 20} MB; unpack it, if you trust it"
)

LONGEST_LINE = 10_000_000
"""Bytes of a line."""

CHUNK = 1 << 20

MOST_ACCENTED = 0.3
"""Share of the letters outside ASCII up to which text is taken for Western European: Icelandic has about 0.15, other
alphabets nearly 1."""


def format_ending(path: Path) -> str:
    """The extension that tells the format, in lower case: of rows.csv.gz, `.csv`."""
    name = path.with_suffix("") if path.suffix.lower() in ENDINGS else path
    return name.suffix.lower()


def unpacked(path: Path) -> bytes:
    """The content of a file, decompressed if it is compressed.

    Raises:
        PipelineError: it is no file, like a folder or a named pipe.
        ValueError: it is damaged, an archive of files, or unfolds to more than `RATIO` allows.
    """
    return b"".join(chunks(path))


def chunks(path: Path, at: Callable[[int], Any] = int) -> Iterator[bytes]:
    """What `unpacked` returns, piece by piece; `at` is called with the number of bytes of the file that were read."""
    with files.readable(path).open("rb") as file:
        start = file.read(10)
        if start.startswith(b"PK\x03\x04"):
            raise ValueError(f"a zip archive; name the file in it, like {path.name}//NAME, or unpack it")
        packed, read = file, file.read
        if compression(start):
            packed = file if file.seekable() else io.BytesIO(start + file.read())
            packed.seek(0)
            start, read = b"", Unfolding(packed).read
        while part := start + read(CHUNK):
            if packed.seekable():
                at(packed.tell())
            yield part
            start = b""


def opened(path: Path) -> "BinaryIO | Unfolding":
    """The content of a file as a stream, decompressed if it is compressed."""
    file = path.open("rb")
    return Unfolding(file) if compression(file.peek(10)) else file


def stream(path: Path, whole: str | None, skipped: int = 0) -> TextIO:
    """The text of a file, after its first lines; one in UTF-8 need not be `whole` in memory."""
    file = io.TextIOWrapper(opened(path), "utf-8-sig", newline="\n") if whole is None else io.StringIO(whole)
    for _ in range(skipped):
        file.readline()
    return file


def compression(start: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    """What decompresses a file that begins so; None: it is not compressed."""
    if start.startswith(b"\x1f\x8b"):
        return partial(gzip.GzipFile, None, "rb", 9)
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", start):
        return bz2.BZ2File
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile
    return zstd if start.startswith(b"\x28\xb5\x2f\xfd") else None


def zstd(packed: BinaryIO) -> BinaryIO:
    """What decompresses Zstandard; unlike Arrow's streams, it leaves the file open when it is gone."""
    import pyarrow as pa

    kept_open = SimpleNamespace(read=packed.read, closed=False, close=lambda: None)
    return pa.CompressedInputStream(pa.PythonFile(kept_open, "r"), "zstd")


class Unfolding(io.RawIOBase):
    """A compressed file as a stream of what it unfolds to, as `tarfile` takes one.

    The budget grows with what is read of the file, and shrinks with what comes out: so an innocent beginning does not
    hide a bomb behind it.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self.packed, self.budget = packed, AT_ONCE
        self.unfold = compression(packed.read(10))
        self.most = self.taken = 0
        self.rewind()

    def rewind(self) -> None:
        """Begin anew: not every kind of stream can go back."""
        self.packed.seek(0)
        self.stream, self.at = self.unfold(self.packed), 0

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes, `size` of them unless the stream ends.

        Raises:
            ValueError: the file is damaged, or the budget is spent.
        """
        parts = []
        try:
            while size > 0 and (part := self.stream.read(min(size, CHUNK))):
                parts.append(part)
                size -= len(part)
                self.at += len(part)
                self.pay()
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"damaged compression ({error}); copy the file again, or decompress it") from None
        return b"".join(parts)

    def pay(self) -> None:
        """Take what came out, unless it did before, from the budget."""
        taken, most = max(self.packed.tell(), self.taken), max(self.at, self.most)
        self.budget = min(self.budget + RATIO * (taken - self.taken), AT_ONCE) - (most - self.most)
        self.taken, self.most = taken, most
        if self.budget < 0:
            raise ValueError(TOO_MUCH)

    def readable(self) -> bool:
        """It is: `io.TextIOWrapper` asks."""
        return True

    def close(self) -> None:
        """Close the file."""
        self.packed.close()

    def tell(self) -> int:
        """The place in what comes out."""
        return self.at

    def seek(self, place: int) -> int:
        """Go to a place in what comes out."""
        if place < self.at:
            self.rewind()
        while self.at < place and self.read(min(place - self.at, CHUNK)):
            pass
        return self.at


def check_unfolding(unfolded: int, size: int) -> None:
    """Check that `size` bytes may unfold to so many.

    Raises:
        ValueError: they may not.
    """
    if unfolded > RATIO * size + AT_ONCE:
        raise ValueError(TOO_MUCH)


def with_line_feeds(text: str) -> str:
    """The text of a table whose rows end in line feeds. A carriage return within a row stays, unless the first row and
    most others end in one, as in old files of the Mac."""
    if not (lone := len(LONE_RETURN.findall(text))):
        return text
    first = re.search(r"\r\n?|\n", text)[0]
    if first == "\r" and lone > text.count("\n"):
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\r\n", "\n") if first == "\r\n" else text


def is_compressed(path: Path) -> bool:
    """Whether a file has the extension of a compressed one."""
    return path.suffix.lower() in ENDINGS


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark; another encoding than UTF-8 is named on standard error.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16, nor could it be cp1252.
        ValueError: see `unpacked`.
    """
    text, encoding = decoded(b"".join(short_lines(chunks(path))))
    say_encoding(path, encoding)
    return text


def say_encoding(path: Path, encoding: str) -> None:
    """Name the encoding of a file, unless it is UTF-8."""
    if encoding != "utf-8":
        line = f"warning: {path.name}: read as {encoding}, as it is not UTF-8; if letters are wrong, convert it"
        say_once(path, line)


def short_lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, piece by piece.

    Raises:
        ValueError: a line is longer than `LONGEST_LINE`.
    """
    length = 0
    for part in parts:
        first, last = re.search(rb"[\r\n]|\Z", part).start(), max(part.rfind(b"\n"), part.rfind(b"\r"))
        before, length = length, len(part) - last - 1 if last >= 0 else length + len(part)
        if max(before + first, length) > LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE:,} bytes; give each row a line of its own")
        yield part


@functools.lru_cache(maxsize=1_000)
def say_once(path: Path, line: str) -> None:
    """Print a line about a file, however often the file is read. The last thousand lines are remembered: a server gets
    files without end."""
    progress.say(line)


def decoded(content: bytes) -> tuple[str, str]:
    """Bytes as text, and the encoding: UTF-8; UTF-16, by its mark or its zeros; else cp1252, if it is plausible.

    Raises:
        UnicodeDecodeError: none of these. A UTF-8 text with a few broken bytes is no cp1252.
    """
    encoding = BYTE_ORDER_MARKS.get(content[:2]) or utf_16_without_mark(content)
    if encoding:
        return content.decode(encoding), encoding
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if any(character > "\x7f" and character != "\ufffd" for character in content.decode(errors="replace")):
            raise
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise error from None
        letters = sum(map(str.isalpha, text))
        if sum(character > "\x7f" and character.isalpha() for character in text) > MOST_ACCENTED * letters:
            raise
        return text, "cp1252 (Western European)"


def utf_16_without_mark(content: bytes) -> str | None:
    """The byte order of text of which nearly every other byte is zero, as in UTF-16 of Latin letters; else None."""
    start = content[:4096]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = start[first::2].count(0), start[1 - first :: 2].count(0)
        if len(content) % 2 == 0 and zeros > 0.7 * (len(start) / 2) and not others:
            return encoding
    return None


def with_delimiter(path: Path, text: str, dialect: dict[str, Any]) -> dict[str, Any]:
    """The dialect, with another delimiter if the first line has a single field by its own, and the first rows agree on
    two fields or more by the other, which is then named on standard error."""
    first = "".join(itertools.islice(itertools.dropwhile(str.isspace, io.StringIO(text, newline="")), 2 * FIRST_LINES))
    if len(next(first_rows(first, dialect), [])) != 1:
        return dialect
    others = {name: {"sep": delimiter, "quoting": csv.QUOTE_MINIMAL} for name, delimiter in DELIMITERS.items()}
    found = {}
    for name, other in others.items():
        widths = [len(row) for row in first_rows(first, other) if any(map(str.strip, row))]
        compared = widths[:-1] if len(widths) > 2 else widths  # the text may end within its last row
        if len(compared) > 1 and len({*compared}) == 1 and compared[0] > 1:
            found[name] = compared[0]
    if not found:
        return dialect
    best = max(found, key=found.__getitem__)
    say_once(path, f"warning: {path.name}: its fields are separated by the {best}, read so")
    return dialect | others[best]


def first_rows(text: str, dialect: dict[str, Any]) -> Iterator[list[str]]:
    """The fields of the first rows, up to one that the csv module refuses."""
    with contextlib.suppress(csv.Error):
        yield from itertools.islice(fields(io.StringIO(text), dialect), FIRST_LINES)


def fields(lines: Iterable[str], dialect: dict[str, Any]) -> Iterator[list[str]]:
    """The fields of each row; an empty line has none. A lone carriage return is part of its field.

    Raises:
        csv.Error: a field is longer than `LONGEST_LINE`.
    """
    csv.field_size_limit(LONGEST_LINE)
    marked = (LONE_RETURN.sub(RETURN, line) if "\r" in line else line for line in lines)
    for row in csv.reader(marked, delimiter=dialect["sep"], quoting=dialect["quoting"]):
        yield [field.replace(RETURN, "\r") for field in row]


def long_row(lines: Iterable[str], dialect: dict[str, Any], headless: bool) -> str | None:
    """Which row has more fields than the first line; None: none has."""
    rows = fields(lines, dialect)
    width = len(next(rows, []))
    for number, row in enumerate(rows, start=2 if headless else 1):
        if len(row) > width:
            return f"{len(row)} fields in row {number}, {width} in the first line; correct this row, or quote its text"
    return None


def short_row(lines: Iterable[str], dialect: dict[str, Any], headless: bool, least: int) -> str | None:
    """Which row has some text, and fewer fields than `least`; None: none has."""
    for number, row in enumerate(fields(lines, dialect), start=1 if headless else 0):
        if number and len(row) < least and any(map(str.strip, row)):
            return f"{len(row)} fields in row {number}, expected {least} or more; correct this row, or quote its text"
    return None
