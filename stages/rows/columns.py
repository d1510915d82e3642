"""Columns: their names, their values, and which is the text and which the label where `data` names none.

Text: the column named `text`; else the only one with running text: half of its values have three words or more, and
half of its values are distinct. Label: the column named `label`; else the only other one whose values could be labels:
for classes, at least two distinct values that are no dates, each in five rows or more on average; for a text with
several labels, lists; for numbers, numbers that are not those of the rows. Where several columns could be meant, none
is chosen.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, List

from stages.common import texts
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.problems.problem import Problem, label_text
from stages.rows.params import Data

VALUE_TYPES = None | str | int | float
"""The types of a text or a label."""

LEAST_WORDS = 3
"""Words of a value, in the middle, from which a column is running text."""

LEAST_DISTINCT = 0.5
"""Share of distinct values from which it is."""

ROWS_PER_CLASS = 5
"""Rows per distinct value, on average, from which a column could hold classes."""

DATE = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
"""How a date begins."""


MOST_COLUMNS = 1_000
"""Columns of a table over all of which each row is spread, however few values it has."""

BYTES_OF_ROW = 32
"""The least memory that a row takes."""


def choose(table: pd.DataFrame, data: Data, path: Path) -> dict[str, str]:
    """The columns `text` and `label` where `data` leaves them open.

    Raises:
        PipelineError: more than one column could be meant, or none.
    """
    chosen = {}
    given = {data.text, data.text_pair, *([data.label] if isinstance(data.label, str) else data.label or [])}
    if data.text is None:
        chosen["text"] = only("text", texts_in(table, given), table, path)
    if data.label is None:
        taken = given | {*chosen.values()}
        chosen["label"] = only("label", labels_in(table, taken, PROBLEMS[data.problem]), table, path)
    return chosen


def only(role: str, found: list[str], table: pd.DataFrame, path: Path) -> str:
    """The only column that was found.

    Raises:
        PipelineError: there are several, or none.
    """
    if len(found) == 1:
        return found[0]
    names = [str(name) for name in table.columns]
    guess = (found or names or ["NAME"])[0]
    unsure = f"{' or '.join(map(repr, found[:4]))} could be meant" if found else "none looks like it"
    raise PipelineError(
        f"{path.name}: expected data.{role} to name the column with the {role}, as {unsure}; the file has "
        f"{texts.shortened(', '.join(names), 200) or 'no column'}: {texts.override(f'data.{role}', guess)}"
    )


def texts_in(table: pd.DataFrame, taken: set[str | None]) -> list[str]:
    """The columns that could be the text."""
    free = [name for name in table if name not in taken]
    return named("text", free) or [name for name in free if is_running_text(table[name])]


def labels_in(table: pd.DataFrame, taken: set[str | None], problem: Problem) -> list[str]:
    """The columns that could be the label."""
    free = [name for name in table if name not in taken]
    return named("label", free) or [name for name in free if could_be_label(table[name], problem)]


def named(name: str, columns: list[str]) -> list[str]:
    """The column of this name, whatever its case; empty if there is none, or more than one."""
    found = [column for column in columns if str(column).lower() == name]
    return found if len(found) == 1 else []


def is_running_text(values: pd.Series) -> bool:
    """Whether a column has running text."""
    present = values.dropna()
    if present.empty or not present.map(lambda value: isinstance(value, str)).all():
        return False
    return present.map(texts.words).median() >= LEAST_WORDS and present.nunique() >= LEAST_DISTINCT * len(present)


def could_be_label(values: pd.Series, problem: Problem) -> bool:
    """Whether a column has values of the kind that labels are."""
    present = values[~values.map(is_missing)]
    lists = present.map(lambda value: isinstance(value, list))
    if problem.several_answers or lists.any() or present.empty:
        return problem.several_answers and len(present) > 0 and bool(lists.all())
    if present.map(lambda value: isinstance(value, dict)).any():
        return False
    if problem.numeric:
        numbers = pd.to_numeric(present, errors="coerce")
        return bool(numbers.notna().all()) and numbers.nunique() > 1 and numbers.diff().dropna().nunique() > 1
    values = present.map(label_text)
    if values.str.match(DATE).all():
        return False
    return 2 <= values.nunique() <= len(present) / ROWS_PER_CLASS and not is_running_text(present)


def is_missing(value: object) -> bool:
    """Whether a value is no label."""
    return not isinstance(value, list | dict) and label_text(value) == ""


def is_row(first: list[str], wanted: list[str] | None, names: list[str] | None) -> bool:
    """Whether the first line of a file is a row, and `names` are those of its columns; else it is their header.

    Raises:
        ValueError: the names are not of this file, or see `check_distinct`.
    """
    held = {*trimmed(first, wanted or names or [])}
    if names is None or (not held.isdisjoint(names) if wanted is None else {*wanted} <= held):
        check_distinct(first, wanted)
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


def trimmed(names: list, wanted: list[str]) -> list:
    """Column names as they are wanted, or else as `plain` has them, unless two would be the same that are not."""
    exact = {plain(name): name for name in wanted}
    found = [exact.get(plain(name), plain(name)) if isinstance(name, str) else name for name in names]
    return found if len({*found}) == len({*names}) else names


def plain(name: str) -> str:
    """A column name with accents composed (NFC), as keyboards type them, without spaces at its ends, and with single
    ones for line breaks and other spaces."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def check_distinct(names: list[str], wanted: Iterable[str] | None) -> None:
    """Check that no two columns have a name that is wanted (None: any but an empty one).

    Raises:
        ValueError: they have.
    """
    sought = {*map(plain, wanted)} if wanted is not None else {*map(plain, names)} - {""}
    if twice := [name for name, columns in Counter(names).items() if columns > 1 and plain(name) in sought]:
        raise ValueError(f"several columns {twice[0]!r}; rename all but one")


def listed(fields: list) -> str:
    """Fields as one line for an error message."""
    return texts.shortened(", ".join(map(str, fields)), 200) or "nothing"


def keys_of(objects: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of all objects, which are the columns of their table.

    Raises:
        ValueError: see `check_width`.
    """
    found = {}
    for one in objects:
        found |= dict.fromkeys(one)
        check_width(found)
    return list(found)


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


def check_width(columns: Sized) -> None:
    """Check that a table has few enough columns.

    Raises:
        ValueError: it has more than `MOST_COLUMNS`.
    """
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"more than {MOST_COLUMNS:,} columns; remove those that are not needed")


def check_present(path: Path, table: pd.DataFrame, roles: Mapping[str, str]) -> None:
    """Check that a table of the file has the columns, each of which has a role, like {"review": "text"}.

    Raises:
        PipelineError: it lacks one.
    """
    names = list(table.columns)
    for column, role in roles.items():
        if column not in names:
            near = texts.nearest(column, names)
            hint = f"did you mean {near!r}? Correct" if near else "correct"
            raise PipelineError(
                f"{path.name}: expected a column {column!r} (data.{role}), found {listed(names)}; {hint} data.{role}, "
                "or add the column"
            )


def check_values(path: Path, table: pd.DataFrame, roles: Mapping[str, str], lists: tuple[str, ...] = ()) -> None:
    """Check that the columns hold values that texts and labels may be.

    Args:
        table: its index is the number of each row before.
        roles: the role of each column to check.
        lists: the roles whose values may be lists.

    Raises:
        PipelineError: a column holds another value.
    """
    for column, role in roles.items():
        kinds = VALUE_TYPES | list if role in lists else VALUE_TYPES
        odd = table[column][~table[column].map(lambda value, kinds=kinds: isinstance(value, kinds)).astype(bool)]
        if len(odd):
            raise PipelineError(
                f"{path.name}: expected text, numbers or booleans in column {column!r} (data.{role}), "
                f"found {type(odd.iloc[0]).__name__} in row {odd.index[0] + 1}"
            )


def as_texts(values: pd.Series) -> pd.Series:
    """The values in Arrow's memory, which takes a fraction of that of Python's objects, if all are valid texts."""
    try:
        return values.astype("str") if pd.api.types.infer_dtype(values, skipna=False) == "string" else values
    except UnicodeEncodeError:  # a lone surrogate
        return values


def in_one_piece(values: pd.Series) -> pd.Series:
    """The same values. Of texts in pieces, as parts leave them, Arrow makes another copy for each choice of rows."""
    if values.dtype != "str" or not isinstance(found := pa.array(values), pa.ChunkedArray):
        return values
    return pd.Series(pd.array(found.combine_chunks(), dtype="str"), index=values.index)


def of_plain_types(table: pa.Table) -> pa.Table:
    """The table with decimals as floats, and dates and times as text in the order of ISO 8601."""
    for place, column in enumerate(table.schema):
        timed = pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type)
        if timed or pa.types.is_decimal(column.type):
            values = table.column(place).cast(pa.string() if timed else pa.float64())
            table = table.set_column(place, column.name, values)
    return table


def values_of(table: pa.Table) -> dict[str, list]:
    """Each column's values; class numbers become names if `datasets` wrote these into the schema.

    Raises:
        ValueError: several columns have one name.
    """
    check_distinct(table.column_names, table.column_names)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, feature in of_classes(table.schema).items():
        if isinstance(feature, ClassLabel):
            columns[name] = class_of(columns[name], feature)
        else:
            columns[name] = [numbers and class_of(numbers, feature.feature) for numbers in columns[name]]
    return columns


def unfolded(footer: pq.FileMetaData) -> int:
    """The bytes to which a Parquet file unfolds by its footer; a repeated value is stored once, but takes memory."""
    groups = (footer.row_group(index) for index in range(footer.num_row_groups))
    return max(footer.num_rows * BYTES_OF_ROW, sum(group.total_byte_size for group in groups))


def of_classes(schema: pa.Schema) -> dict[str, ClassLabel | List]:
    """The columns of which `datasets` wrote into the schema that their numbers, or lists of numbers, are classes.

    It knows no type for some other columns, such as maps, so it is asked about numbers alone.
    """

    def is_number(type: pa.DataType) -> bool:
        in_lists = pa.types.is_list(type) or pa.types.is_fixed_size_list(type)
        return pa.types.is_integer(type.value_type if in_lists else type)

    numbers = pa.schema([field for field in schema if is_number(field.type)], schema.metadata)
    features = Features.from_arrow_schema(numbers)
    return {name: one for name, one in features.items() if isinstance(getattr(one, "feature", one), ClassLabel)}


def class_of(numbers: list[int | None], feature: ClassLabel) -> list[str | None]:
    """The names of the classes; None for -1 and None, which mean a missing label."""
    name_of = dict(enumerate(feature.names))
    return [name_of.get(number) for number in numbers]
