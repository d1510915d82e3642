"""Which column is the text, which the label: chosen only where one alone can be meant."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_params

from stages.common.errors import PipelineError
from stages.params import Params
from stages.rows import columns

ROWS = 40
PROSE = [f"the printer number {row} is broken" for row in range(ROWS)]
CHINESE = [f"第{row}号打印机坏了" for row in range(ROWS)]
NAMES = [f"王{chr(0x4E00 + row)}明" for row in range(ROWS)]
TICKETS = {
    "id": [str(row) for row in range(ROWS)],
    "opened": ["2024-01-02", "2024-01-03"] * 20,
    "body": PROSE,
    "queue": ["it", "billing"] * 20,
}


def choose(table, **changes):
    open_keys = {"text": None, "label": None, "classes": None, "columns": None}
    data = Params.model_validate(tiny_params(data=open_keys | changes, encode={"template": None})).data
    return columns.choose(pd.DataFrame(table, dtype=object), data, Path("rows.csv"))


@pytest.mark.parametrize(
    ("table", "changes", "chosen"),
    [
        (TICKETS, {}, {"text": "body", "label": "queue"}),
        (TICKETS, {"label": "id"}, {"text": "body"}),
        (TICKETS, {"text": "id"}, {"label": "queue"}),
        (TICKETS | {"Text": ["short"] * ROWS, "Label": range(ROWS)}, {}, {"text": "Text", "label": "Label"}),
        (TICKETS | {"queue": [True, False] * 20}, {}, {"text": "body", "label": "queue"}),
        (TICKETS | {"tags": [["a"], []] * 20}, {"problem": "multi_label"}, {"text": "body", "label": "tags"}),
        (
            TICKETS | {"stars": [row * 0.7 % 5 for row in range(ROWS)]},
            {"problem": "regression"},
            {"text": "body", "label": "stars"},
        ),
        (TICKETS | {"more": PROSE}, {"text_pair": "more"}, {"text": "body", "label": "queue"}),
        (TICKETS | {"body": CHINESE, "name": NAMES}, {}, {"text": "body", "label": "queue"}),
    ],
)
def test_the_only_column_that_can_be_meant_is_chosen(table, changes, chosen):
    assert choose(table, **changes) == chosen


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TICKETS | {"subject": PROSE},
            "rows.csv: expected data.text to name the column with the text, as 'body' or 'subject' could be meant; the "
            "file has id, opened, body, queue, subject: -S data.text=body",
        ),
        (TICKETS | {"priority of it": ["1", "2"] * 20}, "as 'queue' or 'priority of it' could be meant"),
        ({"id": ["1", "2"], "n": ["3", "4"]}, "data.text to name the column with the text, as none looks like it"),
        ({}, "the file has no column"),
    ],
)
def test_otherwise_the_columns_are_listed_with_what_to_type(table, message):
    with pytest.raises(PipelineError) as caught:
        choose(table)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
