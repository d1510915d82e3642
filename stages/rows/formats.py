"""Read a tsv, csv, jsonl or Parquet file, several of them, or folders of .txt files, as one table.

Files may be compressed. Spaces at the ends of column names do not count.
"""

import csv
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, List

from stages.common import content, files, texts
from stages.common.errors import PipelineError

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
    format = format or ENDINGS.get(content.format_ending(path))
    if format is None:
        raise PipelineError(f"{path.name}: expected a file ending in {', '.join(ENDINGS)}, or data.format to name it")
    try:
        table = READERS[format](path, wanted, names)
        return table.set_axis(trimmed(list(table.columns), wanted or []), axis=1)
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path.name}: expected {error.encoding.upper()} text, found byte {error.object[error.start]:#04x} at "
            f"{error.start}; "
            "convert the file to UTF-8"
        ) from None
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise PipelineError(f"{path.name}: expected {format}, found: {' '.join(str(error).split())}") from None


def trimmed(names: list, wanted: list[str]) -> list:
    """Column names as they are wanted, or else without spaces at their ends, unless two would be the same."""
    exact = {name.strip(): name for name in wanted}
    found = [exact.get(name.strip(), name.strip()) if isinstance(name, str) else name for name in names]
    return found if len(set(found)) == len(found) else names


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


def read_tsv(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """One row per line; quotes are ordinary characters."""
    return read_lines(path, wanted, names, sep="\t", quoting=csv.QUOTE_NONE)


def read_quoted_tsv(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """Fields separated by tabs, and quoted where necessary, so that a quoted field may hold line breaks."""
    return read_lines(path, wanted, names, sep="\t", quoting=csv.QUOTE_MINIMAL)


def read_csv(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """Fields separated by commas, and quoted where necessary."""
    return read_lines(path, wanted, names, sep=",", quoting=csv.QUOTE_MINIMAL)


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


def is_row(first: list[str], wanted: list[str] | None, names: list[str] | None) -> bool:
    """Whether the first line of a file is a row, and `names` are those of its columns.

    Raises:
        ValueError: the names are not of this file.
    """
    if names is None:
        return False
    held = {*trimmed(first, wanted or names)}
    if not held.isdisjoint(names) if wanted is None else {*wanted} <= held:
        return False
    if len(names) != len(first):
        raise ValueError(
            f"{listed(first)} in the first line, which is neither a header with {' and '.join(wanted or names)} nor "
            f"has the {len(names)} fields of data.columns {names}"
        )
    if absent := [name for name in wanted or [] if name not in names]:
        near = texts.nearest(absent[0], first)
        raise ValueError(
            f"{listed(first)} in the first line and {listed(names)} in data.columns, both without {absent[0]!r}; "
            + (f"did you mean {near!r}? If the first line is a header, remove" if near else "correct")
            + " data.columns"
        )
    return True


def listed(fields: list) -> str:
    """Fields as one line for an error message."""
    return texts.shortened(", ".join(map(str, fields)), 200) or "nothing"


def read_jsonl(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """One JSON object per line.

    Raises:
        ValueError: a line holds something else.
    """
    rows = []
    for number, line in enumerate(content.read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{error} of the text in line {number}") from None
            except RecursionError:
                raise ValueError(f"values nested too deeply in line {number}; unnest them") from None
            if not isinstance(rows[-1], dict):
                raise ValueError(f"{texts.shortened(line, 80)} in line {number}, which is not a JSON object")
    found = dict.fromkeys(key for row in rows for key in row)
    return pd.DataFrame({key: [row.get(key) for row in rows] for key in found}, dtype=object)


def read_parquet(path: Path, wanted: list[str] | None, names: list[str] | None) -> pd.DataFrame:
    """The wanted columns of a Parquet file; class numbers become names if `datasets` wrote these into the schema."""
    packed = content.is_compressed(path) or files.is_stream(path)  # Parquet is read from its end
    given = pa.BufferReader(content.unpacked(path)) if packed else files.readable(path)
    file = pq.ParquetFile(given)
    content.check_unfolding(unfolded(file.metadata), given.size() if packed else path.stat().st_size)
    names = file.schema_arrow.names
    if wanted is not None:
        found = dict(zip(trimmed(names, wanted), names, strict=True))
        if not set(wanted) <= set(found):
            return pd.DataFrame(columns=names)
        names = [found[name] for name in wanted]
    table = file.read(columns=names)
    columns = {name: table[name].to_pylist() for name in names}
    for name, feature in Features.from_arrow_schema(table.schema).items():
        if isinstance(feature, ClassLabel):
            columns[name] = class_of(columns[name], feature)
        elif isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
            columns[name] = [numbers and class_of(numbers, feature.feature) for numbers in columns[name]]
    return pd.DataFrame(columns, dtype=object)


def unfolded(footer: pq.FileMetaData) -> int:
    """The bytes to which a Parquet file unfolds by its footer; a repeated value is stored once, but takes memory."""
    groups = (footer.row_group(index) for index in range(footer.num_row_groups))
    return max(footer.num_rows * BYTES_OF_ROW, sum(group.total_byte_size for group in groups))


def class_of(numbers: list[int | None], feature: ClassLabel) -> list[str | None]:
    """The names of the classes; None for -1 and None, which mean a missing label."""
    name_of = dict(enumerate(feature.names))
    return [name_of.get(number) for number in numbers]


READERS: dict[str, Callable[[Path, list[str] | None, list[str] | None], pd.DataFrame]] = {
    "tsv": read_tsv,
    "quoted_tsv": read_quoted_tsv,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
