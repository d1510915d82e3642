"""docs/run.png: what a command shows on a terminal, drawn by the distribution's Chromium.

    python -m benchmarks.terminal [--until TEXT] [--columns N] [--output FILE] COMMAND

COMMAND is a line for bash. The picture is of the last moment at which the line of the cursor, such as a bar, has TEXT
in it, or without one of the end; the command runs to its end in either case. Needs requirements-dev.txt and
/usr/bin/chromium, or another one that $CHROMIUM names.
"""

import argparse
import html
import os
import pty
import subprocess
import sys
import termios
from itertools import groupby
from pathlib import Path

import pyte
from playwright.sync_api import sync_playwright
from pyte.screens import Char

from benchmarks.screenshot import chromium, save

ROWS = 200
"""Of the terminal: more than a run prints, so that nothing scrolls away."""

COLORS = {"red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "blue": "#61afef", "cyan": "#56b6c2"}
"""Of a terminal's names, those that are hard to read on the dark page."""

PAGE = """\
<meta charset="utf-8">
<style>
  body {{ margin: 0; width: max-content; }}
  pre {{ margin: 0; padding: 14px 18px; background: #1e2127; color: #d7dae0;
    font: 13px/1.4 "DejaVu Sans Mono", monospace; }}
</style>
<pre>{text}</pre>"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.terminal")
    parser.add_argument("--until", metavar="TEXT")
    parser.add_argument("--columns", type=int, default=110)
    parser.add_argument("--output", type=Path, default=Path("docs/run.png"))
    parser.add_argument("command")
    options = parser.parse_args()
    lines = watched(options.command, until=options.until, columns=options.columns)
    text = "\n".join([f"<b>$ {html.escape(options.command)}</b>", *lines])
    with sync_playwright() as playwright, playwright.chromium.launch(**chromium()) as browser:
        page = browser.new_page(device_scale_factor=1.5)
        page.set_content(PAGE.format(text=text))
        save(page.locator("pre").screenshot(), options.output)


def watched(command: str, *, until: str | None, columns: int) -> list[str]:
    """The lines of the screen, as HTML."""
    screen = pyte.Screen(columns, ROWS)
    stream, kept = pyte.ByteStream(screen), None
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, columns))
    environment = os.environ | {"TERM": "xterm-256color"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(["bash", "-c", command], env=environment, start_new_session=True, **streams)
    os.close(theirs)
    while data := received(ours):
        stream.feed(data)
        if until and until in screen.display[screen.cursor.y]:
            kept = drawn(screen)
    if status := process.wait():
        sys.exit(f"exit status {status}:\n" + "\n".join(screen.display).rstrip())
    return kept or drawn(screen)


def received(terminal: int) -> bytes:
    """What the terminal got; nothing once the command has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end was closed
        return b""


def drawn(screen: pyte.Screen) -> list[str]:
    """The screen's lines as HTML, without the empty ones at its end."""
    lines = [line([screen.buffer[row][column] for column in range(screen.columns)]) for row in range(screen.lines)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def line(characters: list[Char]) -> str:
    """A line as HTML, with a span for each run of characters of one color and weight."""
    runs = groupby(characters, key=lambda one: (one.fg, one.bold))
    spans = [(*style, html.escape("".join(one.data for one in run))) for style, run in runs]
    return "".join(span(*one) for one in spans).rstrip()


def span(color: str, bold: bool, text: str) -> str:
    """Text in a color of pyte's: a name, or six hexadecimal digits."""
    if color == "default" and not bold:
        return text
    shown = "inherit" if color == "default" else COLORS.get(color, f"#{color}")
    return f'<span style="color: {shown}; font-weight: {"bold" if bold else "normal"}">{text}</span>'


if __name__ == "__main__":
    main()
