"""Texts: cut by characters, and shown as they are."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting.rendered import HOSTILE, Rendered

from stages.common.texts import clean, literal, printable, rarest, script_safe, shortened
from stages.reporting.markdown import table

FRAGMENTS = [*HOSTILE, "``", "\n\n", "\\|", "</td>", "[a]: b", "</SCRIPT"]
CHARACTERS = list("`|\\\n <>$@#_*~&![]()-=:\ud800\u2028\x1b\u200f")
TEXTS = st.lists(st.sampled_from(FRAGMENTS + CHARACTERS) | st.characters(), max_size=12).map("".join)
"""Any text, in most of which something could be markup."""


def test_the_rarest_classes_come_first_and_those_with_enough_rows_not_at_all():
    assert rarest({"a": 9, "b": 3, "c": 10, "d": 3}, few=10) == "b (3), d (3), a (9)"
    assert rarest({"a": 10, "b": 12}, few=10) == ""


def test_none_and_nan_are_no_texts_and_other_numbers_and_words_are():
    values = [None, float("nan"), "nan", "None", 0, 1.5, float("inf")]
    assert [clean(value) for value in values] == ["", "", "nan", "None", "0", "1.5", "inf"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A warm, funny film.", "A warm, funny film."),
        ("exactly twenty chars", "exactly twenty chars"),
        ("A warm,\n\tfunny  film.", "A warm, funny film."),
        ("A warm, funny and wise film.", "A warm, funny and …"),
        ("这部电影很温暖而且非常有趣也很有智慧值得一看", "这部电影很温暖而且非常有趣也很有智慧值…"),
        ("https://example.org/a/very/long/path", "https://example.org…"),
        ("See https://example.org/a/very/long/path", "See https://example…"),
    ],
)
def test_a_text_is_cut_at_a_word_or_else_at_a_character(text, expected):
    assert shortened(text, 20) == expected
    assert len(expected) <= 20


@pytest.mark.parametrize("text", ["A warm, funny and wise film.", "这部电影很温暖而且非常有趣", "x" * 60, "a " * 30])
def test_a_shortened_text_is_its_beginning_and_never_too_long(text):
    line = text.strip()
    for length in range(1, 70):
        found = shortened(text, length)
        assert len(found) <= length
        assert found == line if len(line) <= length else line.startswith(found.removesuffix("…").rstrip())


@given(text=TEXTS, other=TEXTS)
def test_markdown_shows_a_text_as_it_is_wherever_it_stands(text, other):
    both = [printable(" ".join(one.split())) for one in (text, other)]
    expected, (text, other) = [one for one in both if one], map(literal, (text, other))
    for markdown, tags in (
        (f"{text} taken for {other}, 1 row", ["p"]),
        (f"# Classes: {text}, {other}!", ["h1"]),
        (f"**tuned, {text}, here** and **there, {other}!**", ["p", "strong", "strong"]),
        (table(("one", text), [(other, "1")]), ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]),
    ):
        page = Rendered(markdown)
        assert page.code == expected
        assert [tag for tag in page.tags if tag != "code"] == tags


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a plain text", "`a plain text`"),
        (" two\n\nlines\x85 ", "`two lines`"),
        ("a `name`", "`` a `name` ``"),
        ("``", "` `` `"),
        (" \n", ""),
    ],
)
def test_a_text_is_a_code_span(text, markdown):
    assert literal(text) == markdown


@given(TEXTS)
def test_nothing_that_controls_a_terminal_is_printed(text):
    shown = printable(text)
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and one not in "\t\n"]
    assert printable(shown) == shown
    assert shown == text or any(one not in shown for one in text)


def test_what_controls_a_terminal_is_shown_by_its_number():
    assert (
        printable("\x1b[31mred\r\x9b \u202e\U0001f600\u200f\t\n") == "\\x1b[31mred\\r\\x9b \\u202e\U0001f600\u200f\t\n"
    )


@pytest.mark.parametrize("name", ["</script>", "a </SCRIPT >", "<!--", "<script>"])
def test_no_name_ends_a_script_and_all_others_stay(name):
    assert script_safe(name) == name.replace("<", "<\u2060")
    assert script_safe("<b> </p> a < b") == "<b> </p> a < b"
