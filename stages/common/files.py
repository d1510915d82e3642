"""Outputs appear whole or not at all: written under a temporary name, then moved into place."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` if the block succeeds.

    If the block raises, the temporary folder vanishes and what stood at `path` stays as it was.
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
    """Write `content`; a reader sees the former file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh = Path(scratch, path.name)
        fresh.write_bytes(content)
        fresh.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline.

    Raises:
        ValueError: if a number is not finite; JSON has no way to write it.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
