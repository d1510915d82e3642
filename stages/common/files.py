"""Outputs appear whole or not at all: written under a temporary name, then moved into place."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd  # takes most of a second, and `fetch` has no table

DIGITS = 5
"""Significant digits of a metric: the last bits of a float differ between kinds of CPU."""

PLOT_DIGITS = 4
"""Significant digits of a number that is drawn."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` if the block succeeds.

    If the block raises, the temporary folder is removed and `path` stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh, former = Path(scratch, "fresh"), Path(scratch, "former")
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(former)
        fresh.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`; a reader sees either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh = Path(scratch, path.name)
        fresh.write_bytes(content)
        fresh.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_metrics(path: Path, value: Any) -> None:
    """Write `value` as JSON, its numbers rounded for Git: what no one reads as a difference is none.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_json(path, rounded(value))


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write the table as CSV, without its index and with its numbers rounded for a drawing."""
    write_text(path, table.map(lambda value: rounded(value, PLOT_DIGITS)).to_csv(index=False))


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """The value with every fraction in it, at any depth, rounded to this many significant digits."""
    if isinstance(value, dict):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
