"""The values of a column become the names of slices."""

import numpy as np
import pandas as pd
import pytest

from stages.rows import slices


def named(values):
    return slices.names(pd.Series(values, dtype=object)).tolist()


def test_values_are_slices_as_text_and_missing_ones_are_a_slice():
    assert named([" de ", "a  b", True, 7, 0.5, None, "", " ", float("nan")]) == [
        *("de", "a b", "true", "7", "0.5"),
        *["(missing)"] * 4,
    ]
    assert named([None, ""]) == ["(missing)"] * 2


def test_few_numbers_are_slices_as_they_are_and_many_are_cut_into_quarters():
    assert named(["1", "2", "3"] * 5) == ["1", "2", "3"] * 5
    years = [str(year) for year in range(2001, 2013)]
    assert named(years) == [
        name for name in ("2001 to 2003", "2004 to 2006", "2007 to 2009", "2010 to 2012") for _ in range(3)
    ]
    assert named([*years, None])[-1] == "(missing)"


def test_a_number_that_a_quarter_of_the_rows_have_is_a_slice_of_its_own():
    skewed = named([0.0] * 88 + list(np.arange(12) / 4 + 1))
    assert skewed[:88] == ["0"] * 88
    assert skewed[88:] == [n for n in ("1 to 1.5", "1.75 to 2.25", "2.5 to 3", "3.25 to 3.75") for _ in range(3)]
    assert set(named([-1.0] * 30 + [7.0] * 30 + list(range(10)))) == {"-1", "0 to 2", "3 to 4", "5 to 6", "7", "8 to 9"}


def test_many_values_of_which_one_is_no_number_are_no_ranges():
    assert len(set(named(["x", *map(str, range(12))]))) == 13


@pytest.mark.parametrize("order", [1, -1])
def test_the_rarest_of_many_values_are_one_slice_whatever_the_order_of_the_rows(order):
    values = [f"v{number:02}" for number in range(25) for _ in range(1 + (number < 10))][::order]
    found = dict(zip(values, named(values), strict=True))
    assert sorted(value for value, name in found.items() if name == "(other)") == [f"v{n}" for n in range(20, 25)]
    assert all(name in (value, "(other)") for value, name in found.items())


def test_each_test_row_has_a_line_for_each_column():
    test = pd.DataFrame({"row": [7, 3], "slices": [{"a": "x", "row": 1}, {"a": None, "row": 2}]})
    assert slices.of_test_rows({"train": test[:1], "test": test}).to_dict("list") == {
        "row": [7, 3, 7, 3],
        "column": ["a", "a", "row", "row"],
        "value": ["x", "(missing)", "1", "2"],
    }


def test_without_slices_the_table_has_no_lines():
    found = slices.of_test_rows({"test": pd.DataFrame({"row": [7, 3]})})
    assert found.empty
    assert list(found) == ["row", "column", "value"]
