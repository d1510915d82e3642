"""Files that come over the network: checked as a whole before the first answer, then answered piece by piece."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from stages.common import content
from stages.common.errors import PipelineError
from stages.common.texts import as_inputs, clean
from stages.serving.answers import BATCH_SIZE, Inputs
from stages.streaming import tables
from stages.streaming.columns import text_columns
from stages.streaming.outputs import WRITERS
from stages.streaming.tables import Tables

TYPES = {".csv": "text/csv", ".tsv": "text/tab-separated-values", ".jsonl": "application/jsonl"}
"""What a file of answers is for HTTP, by its extension."""


def safe(name: str) -> str:
    """A file's name without what a file system, a header or a terminal could take for something else."""
    return re.sub(r"[^\w. -]", "_", name, flags=re.ASCII)[-100:].strip(". ") or "file"


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
    def opened(cls, path: Path, trained: dict[str, str], *, named: str | None, characters: int) -> Self:
        """Read a file to its end.

        Args:
            trained, named: see `text_columns`.
            characters: the most that a text may have.

        Raises:
            PipelineError: a row cannot be read or is too long, or no column has the texts.
        """
        ending = content.format_ending(path)
        if ending not in WRITERS:
            raise PipelineError(f"{path.name}: expected a file ending in {', '.join(WRITERS)}; convert it")
        table = tables.opened(path)
        roles = text_columns(tables.sample(table), dict(trained), named=named, file=path, option="text")
        found = Tables(tables=[table], texts=list(roles.values()))
        rows = 0
        for chunk in found.chunks():
            for reject in chunk.rejects[:1]:
                raise PipelineError(
                    f"{path.name}: expected rows that can be read, found in line {reject.line}: {reject.reason}; "
                    "correct it"
                )
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
