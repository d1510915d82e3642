"""Read a tsv, csv, jsonl or Parquet file, several of them, or folders of .txt files, as one table.

Files may be compressed. Spaces at the ends of column names do not count.
"""

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, List

from stages.common import content, files, texts
from stages.common.errors import PipelineError
from stages.rows.columns import is_row, listed, trimmed

ENDINGS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""The format of a file, by its extension."""

BYTES_OF_ROW = 32
"""The least memory that a row takes."""

VALUE_TYPES = None | str | int | float
"""The types of a text or a label."""


def read(
    path: Path,
    *,
    wanted: Mapping[str, str | list[str]],
    format: str | None = None,
    names: list[str] | None = None,
    lists: tuple[str, ...] = (),
) -> pd.DataFrame:
    """One column for each role: text, numbers, booleans or None; dictionaries of these for a role of several columns.

    Args:
        path: a file; or a folder, whose files make one table, in sorted order.
        wanted: the file's column, or columns, for each role, like {"text": "review"}.
        format: a key of `READERS`, or "folders"; None: by each file's extension, and "folders" for a folder that holds
            folders of .txt files.
        names: the columns of a tsv or csv file whose first line does not name the wanted ones.
        lists: the roles whose values may be lists.

    Raises:
        PipelineError: a file is not of the format, is not UTF-8 or has no rows, or a wanted column is missing or holds
            values of another type.
    """
    if format == "folders" or (format is None and text_files(path)):
        for role, nothing in (("text_pair", "null"), ("slices", "[]")):
            if role in wanted:
                raise PipelineError(
                    f"{path.name}: expected data.{role}: {nothing} with a folder of .txt files, one text each"
                )
        return read_folders(path)[list(wanted)]
    return pd.concat([read_file(file, wanted, format, names, lists) for file in files_of(path)], ignore_index=True)


def read_all(path: Path, *, format: str | None = None, names: list[str] | None = None) -> pd.DataFrame:
    """Every column of a file or folder by its own name, values as the format has them; arguments as for `read`.

    Raises:
        PipelineError: a file is not of the format, or is not UTF-8.
    """
    if format == "folders" or (format is None and text_files(path)):
        return read_folders(path)
    return pd.concat([read_table(file, None, format, names) for file in files_of(path)], ignore_index=True)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files below a folder in sorted order.

    Raises:
        PipelineError: the folder has none, or something else than files.
    """
    if not path.is_dir():
        return [path]
    found = files.members(path)
    if not found:
        raise PipelineError(f"{path.name}: expected a file or a folder of files, found an empty folder")
    return found


def read_file(
    path: Path,
    wanted: Mapping[str, str | list[str]],
    format: str | None,
    names: list[str] | None,
    lists: tuple[str, ...],
) -> pd.DataFrame:
    """One column for each role, from one file."""
    roles = {
        column: role
        for role, columns in wanted.items()
        for column in ([columns] if isinstance(columns, str) else columns)
    }
    table = read_table(path, list(roles), format, names)
    for column, role in roles.items():
        if column not in table.columns:
            near = texts.nearest(column, list(table.columns))
            hint = f"did you mean {near!r}? Correct" if near else "correct"
            raise PipelineError(
                f"{path.name}: expected a column {column!r} (data.{role}), found {listed(list(table.columns))}; "
                f"{hint} data.{role}, or add the column"
            )
    check_values(path, table, roles, lists)
    columns = {
        role: table[column] if isinstance(column, str) else table[column].to_dict("records")
        for role, column in wanted.items()
    }
    return pd.DataFrame(columns, dtype=object)


def check_values(path: Path, table: pd.DataFrame, roles: Mapping[str, str], lists: tuple[str, ...] = ()) -> None:
    """Check that there are rows, and that the columns hold values that texts and labels may be.

    Args:
        roles: the role of each column to check.
        lists: the roles whose values may be lists.

    Raises:
        PipelineError: there are no rows, or a column holds another value.
    """
    if table.empty:
        raise PipelineError(f"{path.name}: expected rows, found none")
    for column, role in roles.items():
        kinds = VALUE_TYPES | list if role in lists else VALUE_TYPES
        odd = table[column][~table[column].map(lambda value, kinds=kinds: isinstance(value, kinds))]
        if len(odd):
            raise PipelineError(
                f"{path.name}: expected text, numbers or booleans in column {column!r} (data.{role}), "
                f"found {type(odd.iloc[0]).__name__} in row {odd.index[0] + 1}"
            )


def read_table(
    path: Path, wanted: list[str] | None = None, format: str | None = None, names: list[str] | None = None
) -> pd.DataFrame:
    """The columns of one file, at least the `wanted` ones; None: all. format, names: as for `read`.

    Raises:
        PipelineError: the file is not of the format, or is not in a known encoding.
    """
    format = format or format_of(path)
    with reading(path, format):
        table = READERS[format](path, wanted, names)
        return table.set_axis(trimmed(list(table.columns), wanted or []), axis=1)


def format_of(path: Path) -> str:
    """The format of a file by its extension.

    Raises:
        PipelineError: it has none that is known.
    """
    if content.format_ending(path) not in ENDINGS:
        raise PipelineError(f"{path.name}: expected a file ending in {', '.join(ENDINGS)}, or data.format to name it")
    return ENDINGS[content.format_ending(path)]


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
            f"{error.start}; "
            "convert the file to UTF-8"
        ) from None
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise PipelineError(f"{path.name}: expected {format}, found: {' '.join(str(error).split())}") from None


def text_files(path: Path) -> list[Path]:
    """The .txt files of a folder's subfolders, in sorted order."""
    return sorted(file for file in path.glob("*/*.*") if content.format_ending(file) == ".txt")


def read_folders(path: Path) -> pd.DataFrame:
    """The .txt files of a folder's subfolders, one per row; the subfolder's name is the class.

    One file in another encoding is no reason to refuse thousands: its invalid bytes become U+FFFD, and a message says
    so.
    """
    found = text_files(path)
    if not found:
        raise PipelineError(f"{path.name}: expected a folder of .txt files for each class, found none")
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


def read_lines(path: Path, wanted: list[str] | None, names: list[str] | None, **dialect: Any) -> pd.DataFrame:
    """Every value as text; the first line is the header, or, if it lacks a wanted name and there are `names`, a row.

    Args:
        wanted: None: the first line is a row if it has none of the `names`.

    Raises:
        ValueError: the first line is a row, and has more or fewer fields than there are `names`; or a row has more
            fields than the first, or lacks a wanted one.
    """
    text = content.with_line_feeds(content.read_text(path))
    dialect = content.with_delimiter(path, text, dialect)
    options = dialect | {"dtype": str, "keep_default_na": False, "index_col": False}
    if content.LONE_RETURN.search(text):  # for pandas an end of a row, unless another one is named
        options["lineterminator"] = "\n"
    first = list(pd.read_csv(io.StringIO(text), nrows=0, **options).columns)
    headless = is_row(first, wanted, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas drops the extra fields of a long row
        try:
            header = {"names": names, "header": None} if headless else {"header": 0}
            table = pd.read_csv(io.StringIO(text), skip_blank_lines=False, **header, **options)
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            raise ValueError(content.long_row(text, dialect, headless) or str(error)) from None
    absent = [column for column in wanted or [] if column in table and table[column].eq("").any()]
    if absent and (short := content.short_row(text, dialect, headless, max(map(list(table).index, absent)) + 1)):
        raise ValueError(short)
    return table.astype(object).where(table.notna(), None)


def read_jsonl(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """One JSON object per line.

    Raises:
        ValueError: a line holds something else.
    """
    lines = enumerate(content.read_text(path).split("\n"), start=1)
    rows = [read_object(line, number) for number, line in lines if line.strip()]
    found = dict.fromkeys(key for row in rows for key in row)
    return pd.DataFrame({key: [row.get(key) for row in rows] for key in found}, dtype=object)


def read_object(line: str, number: int) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        ValueError: the line holds something else.
    """
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{error} of the text in line {number}") from None
    except RecursionError:
        raise ValueError(f"values nested too deeply in line {number}; unnest them") from None
    if not isinstance(found, dict):
        raise ValueError(f"{texts.shortened(line, 80)} in line {number}, which is not a JSON object")
    return found


def read_parquet(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """The wanted columns of a Parquet file."""
    packed = content.is_compressed(path)  # Parquet is read from its end
    given = pa.BufferReader(content.unpacked(path)) if packed else files.readable(path)
    file = pq.ParquetFile(given)
    content.check_unfolding(unfolded(file.metadata), given.size() if packed else path.stat().st_size)
    names = file.schema_arrow.names
    if wanted is not None:
        found = dict(zip(trimmed(names, wanted), names, strict=True))
        if not set(wanted) <= set(found):
            return pd.DataFrame(columns=names)
        names = [found[name] for name in wanted]
    return pd.DataFrame(values_of(file.read(columns=names)), dtype=object)


def values_of(table: pa.Table) -> dict[str, list]:
    """Each column's values; class numbers become names if `datasets` wrote these into the schema."""
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, feature in Features.from_arrow_schema(table.schema).items():
        if isinstance(feature, ClassLabel):
            columns[name] = class_of(columns[name], feature)
        elif isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
            columns[name] = [numbers and class_of(numbers, feature.feature) for numbers in columns[name]]
    return columns


def unfolded(footer: pq.FileMetaData) -> int:
    """The bytes to which a Parquet file unfolds by its footer; a repeated value is stored once, but takes memory."""
    groups = (footer.row_group(index) for index in range(footer.num_row_groups))
    return max(footer.num_rows * BYTES_OF_ROW, sum(group.total_byte_size for group in groups))


def class_of(numbers: list[int | None], feature: ClassLabel) -> list[str | None]:
    """The names of the classes; None for -1 and None, which mean a missing label."""
    name_of = dict(enumerate(feature.names))
    return [name_of.get(number) for number in numbers]


DIALECTS = {
    "tsv": {"sep": "\t", "quoting": csv.QUOTE_NONE},
    "quoted_tsv": {"sep": "\t", "quoting": csv.QUOTE_MINIMAL},
    "csv": {"sep": ",", "quoting": csv.QUOTE_MINIMAL},
}
"""What separates the fields of a row, and whether quotes, as in most files, join what is between them, also lines."""

READERS: dict[str, Callable[[Path, list[str] | None, list[str] | None], pd.DataFrame]] = {
    **{format: partial(read_lines, **dialect) for format, dialect in DIALECTS.items()},
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
