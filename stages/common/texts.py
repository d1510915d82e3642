"""The text of a row: one text, or a pair of texts (entailment, paraphrase)."""

import pandas as pd

COLUMNS = ("text", "text_pair")
"""The text columns of a table; only pairs have the second."""


def as_inputs(table: pd.DataFrame) -> list[str] | list[tuple[str, str]]:
    """Each row's text or pair, as a tokenizer takes them."""
    columns = [table[name].tolist() for name in COLUMNS if name in table]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def joined(table: pd.DataFrame) -> pd.Series:
    """Each row's text, or both of its texts with a line break between them."""
    return table["text"] + "\n" + table["text_pair"] if "text_pair" in table else table["text"]


def clean(value: str | float | None) -> str:
    """A value as valid text without NUL characters, white space collapsed to single spaces and stripped at the ends."""
    return " ".join(valid(value).replace("\0", "").split())


def valid(value: str | float | None) -> str:
    """A value as text that UTF-8 can encode: a lone surrogate becomes U+FFFD, None an empty string."""
    return "" if value is None else str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, length: int) -> str:
    """The beginning of a text on one line, of at most `length` characters, including the ellipsis if it is cut.

    The cut is after a word if one ends in the second half; otherwise, as in Chinese or a long URL, anywhere.
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    words = line[: length - 1].rpartition(" ")[0]
    return f"{words} …" if len(words) > length // 2 else f"{line[: length - 1]}…"
