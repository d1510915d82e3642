"""docs/plots_diff.png: four charts of `dvc plots diff`, drawn by Vega-Lite without a browser or a network.

    python -m benchmarks.charts [--output FILE] [REVISION ...]

REVISION as for `dvc plots diff`; by default HEAD~1 and the workspace. Needs requirements-dev.txt.
"""

import argparse
import io
import json
import subprocess
from pathlib import Path

import vl_convert
from PIL import Image

from benchmarks.screenshot import save

SHOWN = ("train/loss", "plots/confusion", "plots/roc", "plots/reliability")
"""Tables of metrics/, two in a row."""

GAP = 24
"""Pixels between two charts."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.charts")
    parser.add_argument("--output", type=Path, default=Path("docs/plots_diff.png"))
    parser.add_argument("revisions", nargs="*", default=["HEAD~1"])
    options = parser.parse_args()
    told = subprocess.run(["dvc", "plots", "diff", "--json", *options.revisions], check=True, stdout=subprocess.PIPE)
    charts = json.loads(told.stdout)["data"]
    save(tiled([picture(charts[f"metrics/{name}.csv"][0]["content"]) for name in SHOWN]), options.output)


def picture(chart: dict) -> Image.Image:
    """A chart, as its specification describes it."""
    return Image.open(io.BytesIO(vl_convert.vegalite_to_png(chart, vl_version="5.8")))


def tiled(pictures: list[Image.Image]) -> bytes:
    """The pictures in rows of two, as a PNG."""
    rows = [pictures[start : start + 2] for start in range(0, len(pictures), 2)]
    widths = [max(column.width for column in columns) for columns in zip(*rows, strict=True)]
    heights = [max(one.height for one in row) for row in rows]
    whole = Image.new("RGB", (sum(widths) + 3 * GAP, sum(heights) + (len(rows) + 1) * GAP), "white")
    for number, one in enumerate(pictures):
        row, column = divmod(number, 2)
        whole.paste(one, (GAP + column * (widths[0] + GAP), GAP + sum(heights[:row]) + row * GAP))
    written = io.BytesIO()
    whole.save(written, "PNG")
    return written.getvalue()


if __name__ == "__main__":
    main()
