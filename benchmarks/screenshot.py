"""docs/page.png: the page of `stages.serve` with the model of the workspace, in the distribution's Chromium.

    python -m benchmarks.screenshot [--output FILE]

Needs requirements-dev.txt and /usr/bin/chromium, or another one that $CHROMIUM names.
"""

import argparse
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

TEXTS = """\
A warm, funny and wise film.
Two hours of my life that I want back."""

WIDTH = 1000
"""Of the page, pixels."""

MARGIN = 14
"""Pixels below the last answer."""

COLORS = 128
"""In the picture's palette: a page has few, and the file a fifth of the size."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshot")
    parser.add_argument("--output", type=Path, default=Path("docs/page.png"))
    options = parser.parse_args()
    with server() as url, sync_playwright() as playwright, playwright.chromium.launch(**chromium()) as browser:
        picture = taken(browser, url)
    save(picture, options.output)


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Run `stages.serve`; yields its address."""
    command = [sys.executable, "-m", "stages.serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield address(process)
        finally:
            process.terminate()


def address(process: subprocess.Popen) -> str:
    """The address that a server prints once it has loaded.

    Raises:
        RuntimeError: it ended before.
    """
    told = []
    for line in process.stderr:
        if found := re.match(r"serve: (http://\S+)", line):
            return found[1]
        told.append(line)
    raise RuntimeError("".join(told))


def chromium() -> dict:
    """How playwright starts the distribution's browser."""
    return {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}


def taken(browser: Browser, url: str) -> bytes:
    """The page down to the last answer, as a PNG."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 800})
    page.goto(url)
    page.get_by_label("Your text").fill(TEXTS)
    page.get_by_label("Compare with untouched").check()
    page.get_by_label("Words that mattered").check()
    page.get_by_role("button", name="Classify").click()
    last = page.locator("article").nth(TEXTS.count("\n"))
    last.wait_for(timeout=60_000)
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    box = last.bounding_box()
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN}
    return page.screenshot(full_page=True, clip=clip)


def save(picture: bytes, path: Path) -> None:
    """Write a PNG as a small file, and print its size."""
    small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
