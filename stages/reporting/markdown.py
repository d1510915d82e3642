"""Markdown that reads well in a terminal, on a page and in a diff."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """A table of cells that are Markdown: the first `names` columns hold names, the others numbers."""
    lines = [
        f"| {' | '.join(map(cell, columns))} |",
        "|" + "---|" * names + "---:|" * (len(columns) - names),
        *(f"| {' | '.join(map(cell, row))} |" for row in rows),
    ]
    return "\n".join(lines)


def cell(text: str) -> str:
    """`text`, which is Markdown, as one cell of a table; a `|` is escaped in a code span too."""
    return text.replace("|", "\\|").replace("\n", " ")


def paragraphs(*parts: str) -> str:
    """The non-empty parts, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def details(title: str, *parts: str) -> str:
    """Parts that are shown when a reader opens their title."""
    return paragraphs(f"<details><summary>{title}</summary>", *parts, "</details>") if any(parts) else ""


def fitting(parts: dict[str, str], *, most: int, elsewhere: str) -> str:
    """The parts, without those for which `most` characters leave no room, which a last line names.

    Args:
        parts: by their names; the first ones have precedence.
        elsewhere: where all of them are.
    """
    room, kept = most - sum(len(name) + 2 for name in parts) - len(elsewhere) - 100, []
    for name, part in parts.items():
        if len(part) + 2 <= room:
            kept.append(name)
            room -= len(part) + 2
    left_out = ", ".join(name for name in parts if name not in kept)
    note = f"Left out, as there is room for {most:,} characters only: {left_out}. {elsewhere}" if left_out else ""
    return paragraphs(*(parts[name] for name in kept), note)
