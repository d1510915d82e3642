"""Markdown: tables, paragraphs, and what a dataset says."""

import pytest

from stages.reporting.markdown import literal, paragraphs, table


def test_names_stand_on_the_left_and_numbers_on_the_right():
    assert table(("a", "b", "c"), [("x | y", "two\nlines", "1")], names=2).splitlines() == [
        "| a | b | c |",
        "|---|---|---:|",
        "| x \\| y | two lines | 1 |",
    ]


def test_paragraphs_that_say_nothing_are_left_out():
    assert paragraphs("one", "", "two") == "one\n\ntwo"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, isn't it? 100% & more (yes) - card_payment", None),
        ("![](http://example.org/x.png)", "!\\[](http://example.org/x.png)"),
        ("<img src=x>", "\\<img src=x>"),
        ("**bold** and _slanted_", "\\*\\*bold\\*\\* and \\_slanted\\_"),
        ("`code` $x$ &lt;", "\\`code\\` \\$x\\$ \\&lt;"),
        ("back\\slash", "back\\\\slash"),
    ],
)
def test_what_a_dataset_says_is_no_markup(text, shown):
    assert literal(text) == (shown or text)
