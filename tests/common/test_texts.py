"""Texts, cut by characters."""

import pytest

from stages.common.texts import shortened


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
