"""The columns of a file: whether it has any, which of them has the texts, and the answers beside them."""

from pathlib import Path

import pandas as pd

from stages.common import content, errors, files
from stages.common.texts import nearest
from stages.rows import formats
from stages.rows.columns import check_distinct, listed, plain
from stages.streaming import tables
from stages.streaming.tables import Table
from stages.streaming.text import Lines, LinesOfFile

STREAMED = "csv"
"""The format of a table that has no file name; its delimiter is looked for."""


def opened(
    path: Path, roles: list[str], *, named: str | None, names: list[str] | None = None, quoted: bool = False
) -> Table:
    """The rows of a file or a stream. A .txt file and a stream are a table if its column of texts is named, else lines.

    Args:
        roles: the columns that lines get.
        named: the column of texts.
        names, quoted: see `Run.dialect`.

    Raises:
        PipelineError: it cannot be read.
    """
    streamed = files.is_stream(path)
    if named or not (streamed or content.format_ending(path) == ".txt"):
        names = names if named in (None, *(names or [])) else None
        return tables.opened(path, STREAMED if streamed else None, names=names, quoted=quoted)
    return Lines(path.open("rb"), roles, path=path) if streamed else LinesOfFile(path, roles)


def text_columns(
    table: pd.DataFrame, trained: dict[str, str], *, named: str | None, file: Path, option: str = "--text"
) -> dict[str, str]:
    """The column of a file for each of the columns `trained`: `named`, or the same, or the only one of texts.

    Args:
        option: what names a column.

    Raises:
        PipelineError: there is no such column, or more than one.
    """
    if named and len(trained) > 1:
        raise errors.PipelineError(
            f"{option}: expected no column for a model of pairs, whose texts are in {' and '.join(trained.values())}, "
            f"found {named}"
        )
    roles = {"text": named} if named else trained
    roles = {role: name if name in table else plain(name) for role, name in roles.items()}
    absent = [column for column in roles.values() if column not in table]
    if not absent:
        return roles
    if not named and len(roles) == 1 and len(only := [name for name in table if of_texts(table[name])]) == 1:
        return {"text": only[0]}
    found = listed(list(table.columns))
    if named:
        near = nearest(named, list(table.columns))
        raise errors.PipelineError(
            f"{file.name}: expected a column {named!r} ({option}), found {found}"
            + (f"; did you mean {near!r}?" if near else "; name one of these")
        )
    raise errors.PipelineError(
        f"{file.name}: expected the column {' and '.join(map(repr, absent))} of the training, or else one column of "
        f"texts, found {found}; " + ("rename the columns" if len(roles) > 1 else f"name the column with {option}")
    )


def check_each(given: tables.Tables) -> None:
    """Check that each file has the columns of texts, and no two of one name.

    Raises:
        PipelineError: one has not.
    """
    first = given.tables[0]
    for table in given.tables:
        if absent := [column for column in given.texts if column not in table.columns]:
            raise errors.PipelineError(
                f"{given.name(table)}: expected the column {absent[0]!r}, as in {given.name(first)}, found "
                f"{listed(table.columns)}; rename the columns, or leave the file out"
            )
        with formats.reading(table.path, table.format):
            check_distinct([table.header.get(name, name) for name in table.columns], given.texts)


def of_texts(column: pd.Series) -> bool:
    """Whether the values of a column are texts, and not numbers written as texts."""
    values = [value for value in column if value not in (None, "")]
    written = all(isinstance(value, str) for value in values)
    return written and bool(pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").isna().any())


def joined(table: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
    """The table with the answers beside it; an answer's name that the table has already gets `predicted_` before it."""
    for name in answered:
        column = name
        while column in table:
            column = f"predicted_{column}"
        table = table.assign(**{column: answered[name]})
    return table
