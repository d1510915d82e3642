"""Tables that are read piece by piece: how much memory they take depends on the length of their rows, not on how many.

The values are those of `stages.rows.formats`. What cannot be read as a row is told apart, with its line, the reason and
its content. What a file is (its encoding, its delimiter, its line ends) is found out from its first megabyte.
"""

import io
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel

from stages.common import content, files, texts
from stages.common.errors import PipelineError
from stages.rows import formats
from stages.rows.columns import VALUE_TYPES, check_width, keys_of, of_classes, read_object, unfolded, values_of
from stages.streaming.text import Record, Text, ended, is_foreign, rows

CONVERT = ", compressed or not; convert or rename it"
"""How to mend a file of another ending."""

FIRST, MOST = 64, 1024
"""Rows of the first chunk, so that the first answers come soon, and at most; each has twice as many as the last."""

SAMPLE = 1000
"""Rows that show which columns are texts."""

FOREIGN_BYTES = "bytes that are no text in the encoding of the file"


class Reject(NamedTuple):
    """What cannot be answered."""

    file: str
    line: int
    reason: str
    content: str
    """The text that was read; of a row of a Parquet file its values, as JSON."""


class Table(Protocol):
    """A file with rows."""

    path: Path
    format: str
    columns: list[str]
    header: dict[str, str]
    """What the file calls columns, by what they are called here, if it gives several one name, or one none."""
    size: int | None
    """Bytes; None: no one knows."""

    def records(self) -> Iterator[Record | None]:
        """Each row; None where the next one has yet to come."""

    def position(self) -> float:
        """The bytes that hold the rows so far."""

    def types(self) -> pa.Schema:
        """The types of the columns, which hold for every row."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows."""

    table: pd.DataFrame
    lines: list[int]
    """Where each row of the table begins."""
    rejects: list[Reject]
    position: float
    """The bytes of all tables that were read so far."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Files of which each has the columns of texts."""

    tables: list[Table]
    texts: list[str]
    """The columns whose values are answered."""
    names: dict[Path, str] = field(default_factory=dict)
    """What files are called that are copies of others; else by their paths."""

    def name(self, table: Table) -> str:
        """What a file is called."""
        return self.names.get(table.path, str(table.path))

    @property
    def columns(self) -> list[str]:
        """Those of all tables."""
        return list(dict.fromkeys(column for table in self.tables for column in table.columns))

    @property
    def header(self) -> dict[str, str]:
        """What files call columns, by what they are called here, if that is something else."""
        return {here: there for table in self.tables for here, there in table.header.items()}

    @property
    def size(self) -> int | None:
        """Bytes; None: no one knows."""
        sizes = [table.size for table in self.tables]
        return None if None in sizes else sum(sizes)

    def types(self) -> pa.Schema:
        """The types of all columns, which hold for every row.

        Raises:
            ValueError, TypeError: the values of a column have no type in common.
        """
        return pa.unify_schemas([table.types() for table in self.tables], promote_options="permissive")

    def chunks(self, *, prompt: bool = False) -> Iterator[Chunk]:
        """All rows, in order.

        Args:
            prompt: a chunk ends where the next row has yet to come.

        Raises:
            PipelineError: a file cannot be read, or there are no rows.
        """
        columns, size, before, begun = self.columns, FIRST, 0, False
        table, rows, lines, rejects = self.tables[0], [], [], []

        def chunk(position: float) -> Chunk:
            made = pd.DataFrame(rows, columns=columns, dtype=object)
            return Chunk(table=made, lines=lines, rejects=rejects, position=position)

        for table in self.tables:
            place = {name: index for index, name in enumerate(table.columns)}
            for record in table.records():
                if record:
                    given = record.values or ()
                    values = {name: given[place[name]] if name in place and given else None for name in columns}
                    if reason := record.reason or self.unfit(values):
                        rejects.append(Reject(self.name(table), record.line, reason, shown(record, values)))
                    else:
                        rows.append(list(values.values()))
                        lines.append(record.line)
                full = len(rows) + len(rejects) >= size
                if full or (prompt and not record and (rows or rejects)):
                    yield chunk(before + table.position())
                    begun, rows, lines, rejects = True, [], [], []
                    size = min(2 * size, MOST) if full else size
            before += table.size or 0
        if rows or rejects:
            yield chunk(before)
        elif not begun:
            raise PipelineError(f"{self.tables[0].path.name}: expected rows, found none")

    def unfit(self, values: dict[str, Any]) -> str:
        """Why a row has no text to be answered; empty: it has."""
        for column in self.texts:
            if values[column] is None or values[column] != values[column]:  # the latter: NaN
                return f"no text in column {column!r}"
            if not isinstance(values[column], VALUE_TYPES):
                found = type(values[column]).__name__
                return f"{found} in column {column!r}, expected text, a number or a boolean"
        return ""


def shown(record: Record, values: dict[str, Any]) -> str:
    """The content of a row, given its values by column."""
    if record.content is None:
        return json.dumps(values, ensure_ascii=False, default=str)
    return ended(record.content)


def opened(path: Path, format: str | None = None, *, names: list[str] | None = None, quoted: bool = False) -> Table:
    """The table in a file.

    Args:
        format: one of `formats.READERS`; None: by the file's extension.
        names: of the columns of a delimited file without a header, see `Delimited`.
        quoted: whether a .tsv file is one of `quoted_tsv`.

    Raises:
        PipelineError: the file has no such table.
    """
    format = format or formats.format_of(path, remedy=CONVERT)
    with formats.reading(path, format):
        if format in formats.DIALECTS:
            return Delimited(path, "quoted_tsv" if quoted and format == "tsv" else format, names)
        return Objects(path) if format == "jsonl" else Columnar(path)


def sample(table: Table) -> pd.DataFrame:
    """The first rows of a table; of a stream, which cannot be read twice, the names of the columns alone."""
    records = () if table.size is None else itertools.islice(table.records(), SAMPLE)
    return pd.DataFrame([one.values for one in records if not one.reason], columns=table.columns, dtype=object)


class Delimited:
    """A .csv or .tsv file, or a stream of one. Its first line is the header, unless it has as many fields as there are
    `names`, and none of them; then it is a row, which is said."""

    def __init__(self, path: Path, format: str, names: list[str] | None = None) -> None:
        self.path, self.format = path, format
        self.size = None if files.is_stream(path) else path.stat().st_size
        self.text = Text(path)
        self.dialect = content.with_delimiter(path, self.text.beginning, formats.DIALECTS[format])
        lines = io.StringIO(self.text.beginning, newline="\n")
        _, first, fields = next((row for row in rows(lines, self.dialect) if row[1].strip()), (1, "", []))
        fields, names = fields or [], names or []  # a header's quote may not be closed
        check_width(fields)
        self.headless = len(fields) == len(names) > 0 and {*formats.trimmed(fields, names)}.isdisjoint(names)
        if self.headless:
            self.columns, self.header = names, {}
            content.say_once(path, f"{path.name}: its first line is a row, as it names no column of the training")
        else:
            options = self.dialect | {"index_col": False, "lineterminator": "\n"}
            read = list(pd.read_csv(io.StringIO(ended(first)), nrows=0, **options).columns)
            self.columns = formats.trimmed(read, [])
            self.header = {new: old for new, name, old in zip(self.columns, read, fields, strict=False) if old != name}
        if self.size is not None:
            self.text = None  # thousands of files may be named

    def records(self) -> Iterator[Record]:
        width = None
        with formats.reading(self.path, self.format):
            self.text = Text(self.path) if self.size is not None else self.text
            for line, text, fields in rows(self.text.lines(), self.dialect):
                if width is None:  # blank lines may be before the first row
                    width = len(fields or []) or None if text.strip() else None
                    if width is None or not self.headless:
                        continue
                if fields != [] or width == 1:  # spreadsheets leave blank lines at the end
                    yield self.record(line, text, fields, width)

    def record(self, line: int, text: str, fields: list[str] | None, width: int) -> Record:
        """A row, or why it is none."""
        if fields is None:
            reason = "a quote that is not closed"
        elif is_foreign(text):
            reason = FOREIGN_BYTES
        elif len(fields or [""]) != width:
            reason = f"{len(fields)} fields, {width} in the first line"
        else:
            return Record(line, text, fields or [""])
        return Record(line, text, None, reason)

    def position(self) -> float:
        return self.text.position()

    def types(self) -> pa.Schema:
        """All values are text."""
        return pa.schema([(name, pa.string()) for name in self.columns])


class Objects:
    """A .jsonl file. It is read twice, as any row may have further keys."""

    format = "jsonl"

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.header = path, path.stat().st_size, {}
        self.keys = keys_of(one.values for one in self.objects() if not one.reason)
        self.columns = formats.trimmed([texts.valid(key) for key in self.keys], [])

    def objects(self) -> Iterator[Record]:
        """The object in each line that is not blank, as the values of a record."""
        self.text = Text(self.path)
        for number, line in enumerate(self.text.lines(), start=1):
            if is_foreign(line):
                yield Record(number, line, None, FOREIGN_BYTES)
            elif line.strip():
                try:
                    yield Record(number, line, read_object(ended(line), number))
                except ValueError as error:
                    yield Record(number, line, None, str(error))

    def records(self) -> Iterator[Record]:
        with formats.reading(self.path, self.format):
            for one in self.objects():
                yield one if one.reason else one._replace(values=[valid(one.values.get(key)) for key in self.keys])

    def position(self) -> float:
        return self.text.position()

    def types(self) -> pa.Schema:
        """Those of all values."""
        found, records = pa.schema([]), (one.values for one in self.records() if not one.reason)
        while some := list(itertools.islice(records, SAMPLE)):
            columns = zip(self.columns, zip(*some, strict=True), strict=True)
            types = pa.schema([(name, pa.array(values).type) for name, values in columns])
            found = pa.unify_schemas([found, types], promote_options="permissive")
        return found


def valid(value: Any) -> Any:
    """A value of a JSON object; a text as UTF-8 can encode it."""
    return texts.valid(value) if isinstance(value, str) and not value.isascii() else value


class Columnar:
    """A Parquet file."""

    format = "parquet"

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.header, self.share = path, path.stat().st_size, {}, 0.0
        with self.file() as file:
            self.schema = file.schema_arrow
        self.names = list(dict.fromkeys(self.schema.names))
        self.columns = formats.trimmed(self.names, [])

    @contextmanager
    def file(self) -> Iterator[pq.ParquetFile]:
        """The file; what it unfolds to, if it is compressed as a whole, as Parquet is read from its end."""
        packed = content.is_compressed(self.path)
        with tempfile.TemporaryFile() if packed else files.readable(self.path).open("rb") as given:
            if packed:
                given.writelines(content.chunks(self.path))
            size = given.seek(0, os.SEEK_END)
            file = pq.ParquetFile(given, buffer_size=content.CHUNK)
            content.check_unfolding(unfolded(file.metadata), size)
            yield file

    def records(self) -> Iterator[Record]:
        with formats.reading(self.path, self.format), self.file() as file:
            number = itertools.count(1)
            for batch in file.iter_batches(batch_size=MOST, columns=self.names):
                found = values_of(pa.Table.from_batches([batch]))
                for values in zip(*map(found.get, self.names), strict=True):
                    yield Record(row := next(number), None, list(values))
                    self.share = row / file.metadata.num_rows

    def position(self) -> float:
        return self.size * self.share

    def types(self) -> pa.Schema:
        """Those of the file; text for numbers that have names."""
        types = {name: self.schema.field(name).type for name in self.names}
        for name, type in types.items():
            types[name] = type.value_type if pa.types.is_dictionary(type) else type
        for name, feature in of_classes(self.schema).items():
            types[name] = pa.string() if isinstance(feature, ClassLabel) else pa.list_(pa.string())
        return pa.schema(list(zip(self.columns, types.values(), strict=True)))
