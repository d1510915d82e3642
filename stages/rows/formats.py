"""Read a tsv, csv, jsonl or Parquet file, several of them, or folders of .txt files, as one table.

Files may be compressed. Spaces at the ends of column names do not count. Tables are read in parts of `AT_ONCE` rows, so
that few values are Python objects at a time.
"""

import codecs
import csv
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common import content, files
from stages.common.errors import PipelineError
from stages.rows.columns import (
    as_texts,
    check_present,
    check_values,
    in_one_piece,
    is_row,
    keys_of,
    of_plain_types,
    read_object,
    trimmed,
    unfolded,
    values_of,
)

ENDINGS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""The format of a file, by its extension."""

CONVERSIONS = {
    ".json": "; write one JSON object per line into a .jsonl file, as jq -c '.[]' does with an array of objects",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "; save the sheet as .csv"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "; unpack it (data.source may name a file inside: x.zip//rows.csv)"),
}
"""How files of some other formats become one that is read, by their extension."""

AT_ONCE = 10_000
"""Rows of a part of a table."""


def read(
    path: Path,
    *,
    wanted: Mapping[str, str | list[str]],
    format: str | None = None,
    names: list[str] | None = None,
    lists: tuple[str, ...] = (),
) -> pd.DataFrame:
    """One column for each role: text, numbers, booleans or None; dictionaries of these for a role of several columns.
    A column of texts alone has pandas' type `str`, others `object`.

    Args:
        path: a file; or a folder, whose files make one table, in sorted order.
        wanted: the file's column, or columns, for each role, like {"text": "review"}.
        format: a key of `READERS`, or "folders"; None: by each file's extension, and "folders" for a folder that holds
            folders of .txt files.
        names: the columns of a tsv or csv file whose first line does not name the wanted ones.
        lists: the roles whose values may be lists.

    Raises:
        PipelineError: a file is not of the format, in no known encoding or without rows, or a wanted column is missing
            or holds values of another type.
    """
    if format == "folders" or text_files(path, format):
        for role, nothing in (("text_pair", "null"), ("slices", "[]")):
            if role in wanted:
                raise PipelineError(f"{path.name}: expected data.{role}: {nothing} with a folder of .txt files")
        return read_folders(path)[list(wanted)]
    found = (part for file in files_of(path, format) for part in read_file(file, wanted, format, names, lists))
    return pd.concat(found, ignore_index=True).apply(in_one_piece)


def read_all(
    path: Path, *, format: str | None = None, names: list[str] | None = None, most: float = math.inf
) -> pd.DataFrame:
    """Every column of a file or folder by its own name, values as the format has them; arguments as for `read`.

    Args:
        most: rows of tables that are returned; of more, only every second, fourth or further one is kept.

    Raises:
        PipelineError: a file is not of the format, or in no known encoding; or there are no rows.
    """
    if format == "folders" or text_files(path, format):
        return read_folders(path)
    kept, rows, step = [], 0, 1
    for part in (part for file in files_of(path, format) for part in parts(file, None, format, names)):
        kept.append(part[-rows % step :: step].copy())
        rows += len(part)
        while sum(map(len, kept)) > most:
            kept, step = [pd.concat(kept, ignore_index=True)[::2]], 2 * step
    if not rows:
        raise PipelineError(f"{path.name}: expected rows, found none")
    return pd.concat(kept, ignore_index=True)


def files_of(path: Path, format: str | None) -> list[Path]:
    """The file itself, or the files below a folder in sorted order. Without a format, files whose extensions tell none,
    such as a README.md, and then .txt files are left out with a message, unless there are no others.

    Raises:
        PipelineError: the folder has none, or something else than files.
    """
    if not path.is_dir():
        return [path]
    if not (found := files.members(path)):
        raise PipelineError(f"{path.name}: expected a file or a folder of files, found an empty folder")
    known = [file for file in found if format or content.format_ending(file) in ENDINGS] or found
    tables = [file for file in known if format or content.format_ending(file) != ".txt"] or known
    if others := sorted({*found} - {*tables}):
        content.say_once(path, f"{path.name}: left out {len(others)} file(s) that are no tables: {others[0].name} …")
    return tables


def read_file(
    path: Path,
    wanted: Mapping[str, str | list[str]],
    format: str | None,
    names: list[str] | None,
    lists: tuple[str, ...],
) -> Iterator[pd.DataFrame]:
    """One column for each role, from one file."""
    columns = {role: [some] if isinstance(some, str) else some for role, some in wanted.items()}
    roles = {column: role for role, some in columns.items() for column in some}
    rows = 0
    for table in parts(path, list(roles), format, names):
        check_present(path, table, roles)
        table.index = range(rows, rows + len(table))
        check_values(path, table, roles, lists)
        columns = {
            role: table[column] if isinstance(column, str) else table[column].to_dict("records")
            for role, column in wanted.items()
        }
        rows += len(table)
        yield pd.DataFrame(columns, dtype=object).apply(as_texts)
    if not rows:
        raise PipelineError(f"{path.name}: expected rows, found none")


def parts(path: Path, wanted: list[str] | None, format: str | None, names: list[str] | None) -> Iterator[pd.DataFrame]:
    """The columns of one file, at least the `wanted` ones (None: all), some rows at a time; if it has none, no rows."""
    format = format or format_of(path)
    with reading(path, format):
        for table in READERS[format](path, wanted, names):
            yield table.set_axis(trimmed(list(table.columns), wanted or []), axis=1)


def format_of(path: Path, name: str | None = None, remedy: str = ", or data.format to name it") -> str:
    """The format of a file by its extension; `name` and `remedy` are for the error, see also `CONVERSIONS`.

    Raises:
        PipelineError: it has none that is known.
    """
    if (ending := content.format_ending(path)) not in ENDINGS:
        how = CONVERSIONS.get(ending, remedy)
        raise PipelineError(f"{name or path.name}: expected a file ending in {', '.join(ENDINGS)}{how}")
    return ENDINGS[ending]


@contextmanager
def reading(path: Path, format: str) -> Iterator[None]:
    """Say of `path` why it cannot be read, if the block fails, which reads it.

    Raises:
        PipelineError: it does.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path.name}: expected {error.encoding.upper()} text, found byte {error.object[error.start]:#04x} at "
            f"{error.start}; convert the file to UTF-8"
        ) from None
    except (OSError, ValueError, OverflowError, csv.Error, pd.errors.ParserWarning) as error:
        raise PipelineError(f"{path.name}: expected {format}, found: {' '.join(str(error).split())}") from None


def text_files(path: Path, format: str | None) -> list[Path]:
    """The .txt files of a folder's subfolders, in sorted order, without hidden ones; none if another format is named.

    Raises:
        PipelineError: no format is named, and there are tables beside the subfolders.
    """
    if format not in (None, "folders"):
        return []
    found = sorted(file for file in path.glob("[!.]*/[!.]*.*") if content.format_ending(file) == ".txt")
    endings = {*ENDINGS} - {".txt"}
    tables = [file.name for file in sorted(path.glob("[!.]*.*")) if content.format_ending(file) in endings]
    if found and tables and not format:
        line = f"expected tables or CLASS/*.txt, found both, {tables[0]} and {found[0].parent.name}/{found[0].name}"
        raise PipelineError(f"{path.name}: {line}; name the table in data.source, or say data.format: folders")
    return found


def read_folders(path: Path) -> pd.DataFrame:
    """The .txt files of a folder's subfolders, one per row; the subfolder's name is the class.

    One file in another encoding is no reason to refuse thousands: its invalid bytes become U+FFFD, and a message says
    so.
    """
    if not (found := text_files(path, "folders")):
        raise PipelineError(f"{path.name}: expected a folder of .txt files for each class, found none")
    if others := sorted({*files.members(path)} - {*found}):
        line = f"{len(others)} file(s) other than CLASS/*.txt are left out; the first: {others[0].relative_to(path)}"
        content.say_once(path, f"{path.name}: {line}")
    rows, odd = [], {}
    for file in found:
        inside = file.relative_to(path)
        try:
            packed = content.unpacked(file)
            text, encoding = content.decoded(packed)
        except UnicodeDecodeError:
            text, encoding = packed.decode(errors="replace"), None
        except (OSError, ValueError) as error:
            raise PipelineError(f"{path.name}: expected text in {inside}, found {error}") from None
        rows.append({"text": text, "label": file.parent.name})
        if encoding != "utf-8":
            odd.setdefault(encoding, []).append(inside)
    for encoding, names in odd.items():
        how = f"are not UTF-8, read as {encoding}" if encoding else "hold bytes that are not UTF-8, replaced by \ufffd"
        content.say_once(path, f"{path.name}: {len(names)} file(s) {how}; the first: {names[0]}")
    return pd.DataFrame(rows, dtype=object)


def read_lines(path: Path, wanted: list[str] | None, names: list[str] | None, **dialect: Any) -> Iterator[pd.DataFrame]:
    """Every value as text; the first line that is not blank is the header, or, if it lacks a wanted name and there are
    `names`, a row.

    Args:
        wanted: None: the first line is a row if it has none of the `names`.

    Raises:
        ValueError: a row has more fields than the first line, or lacks a wanted one; or see `is_row`.
    """
    whole = None if is_plain(path) else content.with_line_feeds(content.read_text(path))
    blank = sum(1 for _ in takewhile(str.isspace, content.stream(path, whole)))
    rows = partial(content.stream, path, whole, blank)
    dialect = content.with_delimiter(path, "".join(islice(rows(), 2 * content.FIRST_LINES)), dialect)
    options = dialect | {"dtype": str, "keep_default_na": False, "index_col": False}
    if whole and content.LONE_RETURN.search(whole):  # for pandas an end of a row, unless another one is named
        options["lineterminator"] = "\n"
    headless = is_row(next(content.fields(rows(), dialect), []), wanted, names)
    options |= {"names": names, "header": None} if headless else {"header": 0}
    given = pd.read_csv(rows(), skip_blank_lines=False, chunksize=AT_ONCE, **options)
    least = 0
    while (table := next_part(given, rows, dialect, headless)) is not None:
        held = enumerate(trimmed(list(table.columns), wanted or []))
        sought = [place for place, name in held if name in (wanted or [])]
        least = max([least, *(place + 1 for place in sought if table.iloc[:, place].eq("").any())])
        yield table.astype(object).where(table.notna(), None)
    if least and (short := content.short_row(rows(), dialect, headless, least)):
        raise ValueError(short)


def next_part(
    given: Iterator[pd.DataFrame], rows: Callable[[], TextIO], dialect: dict[str, Any], headless: bool
) -> pd.DataFrame | None:
    """The next rows of a table that pandas reads; None: there are no more.

    Raises:
        ValueError: a row has more fields than the first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas drops the extra fields of a long row
        try:
            return next(given, None)
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            long = content.long_row(rows(), dialect, headless)
            raise ValueError(long or str(error)) from None


def is_plain(path: Path) -> bool:
    """Whether a file is UTF-8 whose carriage returns are all part of a line's end, and so can be read in pieces."""
    decoder, last = codecs.getincrementaldecoder("utf-8")(), b""
    if files.is_stream(path):  # it can be read only once
        return False
    try:
        for piece in content.short_lines(content.chunks(path)):
            decoder.decode(piece)
            if re.search(rb"\r(?!\n|\Z)", last + piece) or (not last and b"\0" in piece[:4096]):  # the latter: UTF-16
                return False
            last = piece[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return last != b"\r"


def read_jsonl(path: Path, wanted: list[str] | None, names: list[str] | None) -> Iterator[pd.DataFrame]:
    """One JSON object per line.

    Raises:
        ValueError: a line holds something else, or see `keys_of`.
    """
    whole = None if is_plain(path) else content.read_text(path)

    def rows() -> Iterator[dict[str, Any]]:
        lines = enumerate(content.stream(path, whole), start=1)
        return (read_object(line.removesuffix("\n"), number) for number, line in lines if line.strip())

    found, read = keys_of(rows()), rows()
    while some := list(islice(read, AT_ONCE)):
        yield pd.DataFrame({key: [row.get(key) for row in some] for key in found}, dtype=object)
    if not found:
        yield pd.DataFrame()


def read_parquet(path: Path, wanted: list[str] | None, names: list[str] | None) -> Iterator[pd.DataFrame]:
    """The wanted columns of a Parquet file."""
    packed = content.is_compressed(path)  # Parquet is read from its end
    given = pa.BufferReader(content.unpacked(path)) if packed else files.readable(path)
    file = pq.ParquetFile(given)
    content.check_unfolding(unfolded(file.metadata), given.size() if packed else path.stat().st_size)
    names = file.schema_arrow.names
    if wanted is not None:
        found = dict(zip(trimmed(names, wanted), names, strict=True))
        if not set(wanted) <= set(found):
            yield pd.DataFrame(columns=names)
            return
        names = [found[name] for name in wanted]
    for batch in file.iter_batches(AT_ONCE, columns=names):
        yield pd.DataFrame(values_of(of_plain_types(pa.Table.from_batches([batch]))), dtype=object)
    if not file.metadata.num_rows:
        yield pd.DataFrame(columns=names)


DIALECTS = {
    "tsv": {"sep": "\t", "quoting": csv.QUOTE_NONE},
    "quoted_tsv": {"sep": "\t", "quoting": csv.QUOTE_MINIMAL},
    "csv": {"sep": ",", "quoting": csv.QUOTE_MINIMAL},
}
"""What separates the fields of a row, and whether quotes, as in most files, join what is between them, also lines."""

READERS: dict[str, Callable[[Path, list[str] | None, list[str] | None], Iterator[pd.DataFrame]]] = {
    **{format: partial(read_lines, **dialect) for format, dialect in DIALECTS.items()},
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
