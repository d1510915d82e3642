"""Where answers go, chunk by chunk: to standard output, or part by part into a folder and at the end into a file.

The parts of a run that was interrupted are taken up by the next one. A file is whole or absent: its parts become one
under a temporary name.
"""

import csv
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common import errors, files, progress
from stages.common.texts import printable, shortened, valid
from stages.streaming.tables import Reject

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""The formats of answers, by extension."""

SPREADSHEETS = (".csv", ".tsv")
"""Those that a spreadsheet opens, which takes some texts for formulas."""

FORMULA = re.compile(r"[=+\-@\t\r]")
"""How a formula begins (OWASP, CSV Injection)."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

SEPARATORS = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""Tabs, and all that some reader of lines takes for the end of one."""

PARTS_OF_GROUP = 64
"""Parts that make a row group of a Parquet file."""


def defused(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which a spreadsheet finds no formula: a text or name that could be one begins with an apostrophe."""

    def harmless(text: str) -> str:
        return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text

    return with_texts(table, harmless)


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with every text and every name changed. All other values stay what they are: `table.map` would make
    floats of the whole numbers beside a missing one, which lose digits."""

    def changed(value: object) -> object:
        return change(value) if isinstance(value, str) else value

    def column(values: pd.Series) -> pd.Series:
        if pd.api.types.is_numeric_dtype(values):
            return values
        return pd.Series(list(map(changed, values)), index=values.index, dtype=object)

    columns = dict(enumerate(column(values) for _, values in table.items()))
    return pd.DataFrame(columns).set_axis([*map(changed, table)], axis=1)


def as_csv(table: pd.DataFrame, *, header: bool = True) -> bytes:
    """The table as text; all fields are quoted if one holds a carriage return, which the csv module leaves bare."""
    bare = table.map(lambda value: isinstance(value, str) and "\r" in value).any(axis=None)
    quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    return table.to_csv(index=False, quoting=quoting, header=header).encode()


def as_tsv(table: pd.DataFrame, *, header: bool = True) -> bytes:
    """The table as tab-separated values."""
    return tabbed(table, header=header).encode()


def tabbed(table: pd.DataFrame, **options: Any) -> str:
    """The table as tab-separated values, whose quotes are ordinary characters: as no field can hold a tab or a line
    break, each becomes a space."""
    flat = with_texts(table, partial(SEPARATORS.sub, " "))
    return flat.to_csv(sep="\t", index=False, quoting=csv.QUOTE_NONE, **options)


def as_jsonl(table: pd.DataFrame, *, header: bool = True) -> bytes:
    """The table as an object a line; numbers keep all their digits."""
    lines = (json.dumps(plain(row), ensure_ascii=False, default=str) for row in table.to_dict("records"))
    return "".join(f"{line}\n" for line in lines).encode()


def plain(value: object) -> object:
    """A value as JSON has it: null where there is none or no finite number; dates as texts; texts that are Unicode."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {valid(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.datetime64 | date):
        return None if pd.isna(value) else pd.Timestamp(value).isoformat()
    value = value.item() if isinstance(value, np.generic) else value
    missing = value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value))
    return None if missing else value


WRITERS = {".csv": as_csv, ".tsv": as_tsv, ".jsonl": as_jsonl}
"""A table as the content of a file of text, by its extension; `header`: it is the beginning."""


@dataclass(kw_only=True)
class Output:
    """What becomes of answers, and of what has none."""

    strict: bool = False
    """Whether the first row without an answer ends the run."""
    defuse: bool = False
    """See `defused`."""
    header: dict[str, str] = field(default_factory=dict)
    """Names of columns in a header, in which two may be the same, by their names in the table."""
    parts: int = 0
    """How many chunks of answers there are."""
    rejects: int = 0
    first: Reject | None = None

    def with_header(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table for a file whose first line names the columns."""
        table = table.rename(columns=self.header)
        return defused(table) if self.defuse else table

    def reject(self, rejects: list[Reject]) -> None:
        """Count what has no answer.

        Raises:
            PipelineError: there is some, and the run is strict.
        """
        self.rejects += len(rejects)
        self.first = self.first or next(iter(rejects), None)
        if self.first and self.strict:
            raise errors.PipelineError(f"{self.found()}; correct it, or leave out --strict")

    def found(self) -> str:
        """The first row without an answer, in words."""
        return f"{self.first.file}: expected readable rows, found in line {self.first.line}: {self.first.reason}"

    def sum_up(self, kept: str) -> None:
        """Say how many rows have no answer.

        Args:
            kept: where they are, or what would keep them.

        Raises:
            PipelineError: no row has one.
        """
        if not self.parts:
            raise errors.PipelineError(f"{self.found()}; so all {self.rejects:,} rows; correct them")
        if self.rejects:
            progress.say(
                f"predict: {self.rejects:,} row(s) could not be read and have no answer; the first: "
                f"{self.first.file}, line {self.first.line}: {shortened(self.first.reason, 200)}; {kept}"
            )


@dataclass(kw_only=True)
class Printed(Output):
    """Standard output, with tab-separated values."""

    def take_up(self) -> bool:
        """Take up the next chunk's answers if they are there already; returns whether they are."""
        return False

    def add(self, table: pd.DataFrame) -> None:
        """Print a chunk's answers, each row on a line. The answers' numbers, unlike those of the rows, are rounded."""
        content = tabbed(self.with_header(table), float_format="%.4f", header=not self.parts)
        print(printable(content) if sys.stdout.isatty() else content, end="", flush=True)
        self.parts += 1


@dataclass(kw_only=True)
class File(Output):
    """A file in the making."""

    path: Path
    folder: Path
    """Where its parts are."""
    rejected: TextIO
    """The table of what has no answer."""
    types: pa.Schema | None = None
    """Of the columns that are carried through, for a Parquet file."""

    def __post_init__(self) -> None:
        csv.writer(self.rejected).writerow(Reject._fields)

    def part(self, number: int) -> Path:
        """The file of a part, whose numbers begin at 0."""
        return self.folder / "parts" / f"part-{number:09}{self.path.suffix}"

    def take_up(self) -> bool:
        """Take up the next chunk's answers if they are there from an interrupted run; returns whether they are."""
        there = self.part(self.parts).exists()
        self.parts += there
        return there

    def add(self, table: pd.DataFrame) -> None:
        """Write a chunk's answers.

        Raises:
            PipelineError: the file's format cannot hold the values of a column; or see `files.write_bytes`.
        """
        with holdable(self.path):
            if self.types is None:
                table = self.with_header(table) if self.path.suffix in SPREADSHEETS else table
                content = WRITERS[self.path.suffix](table, header=not self.parts)
            else:
                content = as_parquet(table, self.types)
        files.write_bytes(self.part(self.parts), content)
        self.parts += 1

    def reject(self, rejects: list[Reject]) -> None:
        super().reject(rejects)
        told = [Reject(valid(one.file), one.line, valid(one.reason), valid(one.content)) for one in rejects]
        table = pd.DataFrame(told, columns=Reject._fields, dtype=object)
        table = defused(table) if self.defuse else table
        csv.writer(self.rejected).writerows(table.itertuples(index=False))

    def join(self, fresh: Path) -> None:
        """Make one file of the parts.

        Raises:
            PipelineError: one is missing.
        """
        parts = [self.part(number) for number in range(self.parts)]
        if not all(part.exists() for part in parts):
            raise errors.PipelineError(
                f"{self.path}: expected all its parts in {self.folder}, found some missing, which the same command may "
                "have removed that ran at the same time; run it again"
            )
        if self.types is None:
            with fresh.open("wb") as file:
                for part in parts:
                    file.write(part.read_bytes())
            return
        with pq.ParquetWriter(fresh, pq.read_schema(parts[0])) as writer:
            for start in range(0, len(parts), PARTS_OF_GROUP):
                group = [pq.ParquetFile(part).read() for part in parts[start : start + PARTS_OF_GROUP]]
                writer.write_table(pa.concat_tables(group))


def rejects_of(path: Path) -> Path:
    """The file beside an output with what has no answer there."""
    return path.with_name(f"{path.stem}.rejects.csv")


@contextmanager
def opened(path: Path | None, home: Path | None, types: pa.Schema | None, **options: Any) -> Iterator[Output]:
    """Where answers go; if the block succeeds, the file is there.

    Args:
        path: None: standard output.
        home: where the parts of the file stay if the block fails; None: nowhere.
        types: of the columns that are carried through, for a Parquet file.
        options: see `Output`.
    """
    if path is None:
        output = Printed(**options)
        yield output
        output.sum_up("with --output, a file keeps them")
        return
    with files.temporary(path) as scratch:
        fresh, rejected = scratch / path.name, scratch / rejects_of(path).name
        fresh.touch()
        with rejected.open("w", encoding="utf-8", newline="") as table:
            output = File(path=path, folder=home or scratch, rejected=table, types=types, **options)
            yield output
        with files.writing(path):
            output.sum_up(f"all are in {rejects_of(path).name}")
            output.join(fresh)
            for made in (fresh, rejected):
                files.sync(made)
            if output.rejects:
                rejected.replace(rejects_of(path))
            else:
                rejects_of(path).unlink(missing_ok=True)
            fresh.replace(path)
            files.sync(path.parent)


def as_parquet(table: pd.DataFrame, types: pa.Schema) -> bytes:
    """The table as a Parquet file; `types`: of its first columns."""
    answers = pa.Schema.from_pandas(table[table.columns[len(types) :]], preserve_index=False)
    made = pa.Table.from_pandas(table, pa.schema([*types, *answers]), preserve_index=False)
    content = pa.BufferOutputStream()
    pq.write_table(made.replace_schema_metadata(), content)
    return content.getvalue().to_pybytes()


@contextmanager
def holdable(path: Path) -> Iterator[None]:
    """Say of `path` that its format cannot hold some values, if the block fails, which makes its content.

    Raises:
        PipelineError: it does.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise errors.PipelineError(
            f"{path.name}: expected columns that such a file can hold, found: {' '.join(str(error).split())}; "
            "choose another ending, or leave the column out"
        ) from None
