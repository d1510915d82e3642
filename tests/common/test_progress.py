"""Progress: a bar on a terminal, a line at each tenth elsewhere, and nothing of either on standard output."""

import io
import sys

import pytest
from tqdm import tqdm

from stages.common import progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `time.monotonic` returns, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_is_printed_at_each_tenth(clock, capsys):
    with progress.bar("train", total=200, unit="step") as shown:
        for _ in range(200):
            clock[0] += 1
            shown.set_postfix_str(f"loss {clock[0]:.0f}")
            shown.update()
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert lines[0] == "train: 20 of 200 steps, 03:00 left, loss 20"
    assert lines[-1] == "train: 200 of 200 steps, 00:00 left, loss 200"
    assert len(lines) == 10
    assert not told.out


def test_where_no_one_knows_how_much_there_is_a_line_says_how_much_is_done(clock, capsys):
    with progress.bar("predict", total=None, unit="row") as shown:
        shown.update(0)
        for _ in range(4):
            clock[0] += 10
            shown.update(1_000)
        clock[0] += 10
        shown.update(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"predict: {thousands},000 rows" for thousands in range(1, 5)]


def test_what_takes_seconds_or_is_hidden_prints_no_lines(clock, capsys):
    for seconds, hidden in ((0.05, False), (1, True)):
        with progress.bar("encode", total=100, unit="row", hidden=hidden) as shown:
            for _ in range(100):
                clock[0] += seconds
                shown.update()
    assert not capsys.readouterr().err


def test_what_would_control_the_terminal_is_shown_by_its_number(capsys):
    progress.say("warning: \x1b[31mred")
    assert capsys.readouterr().err == "warning: \\x1b[31mred\n"


@pytest.mark.parametrize("total", [2, 0, None], ids=["known", "known later", "unknown"])
def test_on_a_terminal_there_is_a_bar_and_lines_stand_above_it(total, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar("train", total=total, unit="step") as shown:
        assert isinstance(shown, tqdm)
        shown.update()
        progress.say("train: a line")
    assert "train: a line\n" in terminal.getvalue()
