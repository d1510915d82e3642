"""Markdown: tables, paragraphs, and what there is room for."""

from stages.reporting.markdown import details, fitting, paragraphs, table


def test_names_stand_on_the_left_and_numbers_on_the_right():
    assert table(("a", "b", "c"), [("x | y", "two\nlines", "1")], names=2).splitlines() == [
        "| a | b | c |",
        "|---|---|---:|",
        "| x \\| y | two lines | 1 |",
    ]


def test_paragraphs_that_say_nothing_are_left_out():
    assert paragraphs("one", "", "two") == "one\n\ntwo"


def test_details_are_shown_on_a_click_and_are_markdown_themselves():
    assert details("More", "one", "", "two") == "<details><summary>More</summary>\n\none\n\ntwo\n\n</details>"
    assert details("More", "") == ""


def test_parts_for_which_there_is_no_room_are_named_and_the_others_are_whole():
    parts = {"Change": "c" * 300, "Errors": "e" * 9000, "Data": "d" * 300, "Empty": ""}
    assert fitting(parts, most=20_000, elsewhere="All is there.") == paragraphs(*parts.values())
    cut = fitting(parts, most=1000, elsewhere="All is there.")
    assert cut == paragraphs(
        "c" * 300, "d" * 300, "Left out, as there is room for 1,000 characters only: Errors. All is there."
    )
    for most in (1000, 700, 500, 300):
        assert len(fitting(parts, most=most, elsewhere="All is there.")) <= most
