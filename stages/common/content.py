"""The text of a file: how it is compressed, in which encoding it is, what separates its fields."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common import files, progress

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
"""The extensions of compressed files; the bytes at the beginning decide whether a file is one."""

BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
"""The separators of fields that are looked for."""

LONE_RETURN = re.compile(r"\r(?!\n)")
"""A carriage return that is no part of a line's end."""

FIRST_LINES = 50
"""Rows that have to agree on a delimiter."""

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
        ValueError: it is damaged, or an archive of files.
    """
    content = files.readable(path).read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", content):
            return bz2.decompress(content)
        if content.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(content)
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            import pyarrow as pa

            return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"damaged compression ({error}); copy the file again, or decompress it") from None
    if content.startswith(b"PK\x03\x04"):
        raise ValueError(f"a zip archive; name the file in it, like {path.name}//NAME, or unpack it")
    return content


def with_line_feeds(text: str) -> str:
    """The text of a table whose rows end in line feeds. A carriage return within a row stays, unless the first row and
    most others end in one, as in old files of the Mac."""
    lone = len(LONE_RETURN.findall(text))
    if not lone:
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
    text, encoding = decoded(unpacked(path))
    if encoding != "utf-8":
        say_once(
            path, f"warning: {path.name}: read as {encoding}, as it is not UTF-8; if letters are wrong, convert it"
        )
    return text


@functools.cache
def say_once(path: Path, line: str) -> None:
    """Print a line about a file, however often the file is read."""
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
    first = "".join(itertools.islice(io.StringIO(text, newline=""), 2 * FIRST_LINES))
    if len(next(fields(first, dialect), [])) != 1:
        return dialect
    found = {}
    for name, delimiter in DELIMITERS.items():
        rows = [
            row for row in itertools.islice(fields(first, {"sep": delimiter}), FIRST_LINES) if any(map(str.strip, row))
        ]
        if len(rows) > 1 and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            found[name] = len(rows[0])
    if not found:
        return dialect
    best = max(found, key=found.__getitem__)
    say_once(path, f"warning: {path.name}: its fields are separated by the {best}, read so")
    return dialect | {"sep": DELIMITERS[best], "quoting": csv.QUOTE_MINIMAL}


def fields(text: str, dialect: dict[str, Any]) -> Iterator[list[str]]:
    """The fields of each row, up to the first that the csv module refuses; an empty line has none."""
    lines = io.StringIO(LONE_RETURN.sub(" ", text), newline="")
    rows = csv.reader(lines, delimiter=dialect["sep"], quoting=dialect.get("quoting", csv.QUOTE_MINIMAL))
    with contextlib.suppress(csv.Error):
        yield from rows


def long_row(text: str, dialect: dict[str, Any], headless: bool) -> str | None:
    """Which row has more fields than the first line; None: none has."""
    rows = fields(text, dialect)
    width = len(next(rows, []))
    for number, row in enumerate(rows, start=2 if headless else 1):
        if len(row) > width:
            return f"{len(row)} fields in row {number}, {width} in the first line; correct this row, or quote its text"
    return None


def short_row(text: str, dialect: dict[str, Any], headless: bool, least: int) -> str | None:
    """Which row has some text, and fewer fields than `least`; None: none has."""
    for number, row in enumerate(fields(text, dialect), start=1 if headless else 0):
        if number and len(row) < least and any(map(str.strip, row)):
            return f"{len(row)} fields in row {number}, expected {least} or more; correct this row, or quote its text"
    return None
