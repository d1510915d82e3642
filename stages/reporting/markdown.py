"""Markdown that reads well in a terminal, on a page and in a diff."""

import re
from collections.abc import Iterable, Sequence

MARKUP = re.compile(r"[\\`*~<\[$]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
"""Characters that could start markup, an entity or a formula within a line. `cell` escapes what would end a cell."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """A table of cells that are already text: the first `names` columns hold names, the others numbers."""
    lines = [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * names + "---:|" * (len(columns) - names),
        *(f"| {' | '.join(cell(text) for text in row)} |" for row in rows),
    ]
    return "\n".join(lines)


def cell(text: str) -> str:
    """`text` as one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def paragraphs(*parts: str) -> str:
    """The non-empty parts, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def literal(text: str) -> str:
    """Text from a dataset, as Markdown that shows it unchanged."""
    return MARKUP.sub(r"\\\g<0>", text)
