"""The slices of the test rows: groups of rows that share a value of a column that `data.slices` names."""

import math

import pandas as pd

from stages.common.texts import clean
from stages.problems.problem import label_text

MOST_NUMBERS = 8
"""Distinct numbers of a column up to which each is a slice; more are cut into `RANGES`."""

RANGES = 4
"""Ranges of numbers, each with as many rows as the others, ties aside. A number that as many rows have is a slice."""

MOST_VALUES = 20
"""Values of a column that are slices, the most frequent ones; all others together are one slice."""

NO_VALUE, OTHER_VALUES = "(missing)", "(other)"


def of_test_rows(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The slices of each test row: `row`, `column` and the slice's name, `value`; one line for each row and column.

    Args:
        splits: the rows of each split, with a dictionary of values by column in `slices`; without this column, there
            are no slices.
    """
    test = splits["test"]
    values = pd.DataFrame(test["slices"].tolist() if "slices" in test else None, index=test["row"], dtype=object)
    named = [
        pd.DataFrame({"row": values.index, "column": column, "value": names(values[column]).to_numpy()})
        for column in values
    ]
    return pd.concat([pd.DataFrame({"row": [], "column": [], "value": []}), *named]).astype(
        {"row": "int64", "column": str, "value": str}
    )


def names(values: pd.Series) -> pd.Series:
    """The slice of each value of a column: the value as text, a range of numbers, or one for rare or missing values."""
    as_text = values.map(lambda value: clean(label_text(value)))
    missing = as_text == ""
    present = ranges(as_text[~missing])
    counts = present.value_counts()
    ordered = sorted(counts.index, key=lambda name: (-counts[name], name))
    frequent = present.where(present.isin(ordered[:MOST_VALUES]), OTHER_VALUES)
    return frequent.reindex(values.index, fill_value=NO_VALUE)


def ranges(values: pd.Series) -> pd.Series:
    """Values as they are, or, where all are numbers and many are distinct, the range of each, like `2 to 7.5`."""
    numbers = pd.to_numeric(values, errors="coerce")
    if not numbers.map(math.isfinite).all() or numbers.nunique() <= MOST_NUMBERS:
        return values
    frequent = numbers.map(numbers.value_counts()) >= len(numbers) / RANGES
    quantiles = pd.qcut(numbers[~frequent], RANGES, labels=False, duplicates="drop")
    groups = quantiles.map("range {}".format).reindex(numbers.index).fillna(numbers.map(str))
    lowest, highest = (numbers.groupby(groups).transform(end) for end in ("min", "max"))
    return pd.Series(
        [
            f"{low:.10g} to {high:.10g}" if low < high else f"{low:.10g}"
            for low, high in zip(lowest, highest, strict=True)
        ],
        index=values.index,
        dtype=object,
    )
