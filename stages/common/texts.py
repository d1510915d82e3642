"""What a row says: one text, or a pair of texts (entailment, paraphrase)."""

import pandas as pd

COLUMNS = ("text", "text_pair")
"""A table's columns of texts; the second is there for pairs alone."""


def as_inputs(table: pd.DataFrame) -> list[str] | list[tuple[str, str]]:
    """Each row's text or pair, as a tokenizer takes them."""
    columns = [table[name].tolist() for name in COLUMNS if name in table]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def joined(table: pd.DataFrame) -> pd.Series:
    """Each row's text, or both of its texts with a line break between them."""
    return table["text"] + "\n" + table["text_pair"] if "text_pair" in table else table["text"]


def clean(value: str | float | None) -> str:
    """A value as valid text without NUL characters, every run of white space as one space, and none at the ends."""
    return " ".join(valid(value).replace("\0", "").split())


def valid(value: str | float | None) -> str:
    """A value as text that UTF-8 can hold: U+FFFD stands for half of a surrogate pair, and nothing for None."""
    return "" if value is None else str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
