"""The text of a row: one text, or a pair of texts (entailment, paraphrase)."""

import difflib
import re
import shlex
import unicodedata

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
    """A value as valid text without NUL characters, accents composed (NFC), white space collapsed and stripped."""
    return unicodedata.normalize("NFC", " ".join(valid(value).replace("\0", "").split()))


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


def nearest(name: str, names: list[str]) -> str | None:
    """The name that is most like `name`, whatever its case; None: none is like it."""
    by_lower = {str(other).lower(): str(other) for other in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


PLAIN_VALUE = re.compile(r"[A-Za-z_][\w./*-]*(:[\w./*-]+)?", re.ASCII)
"""Values that neither a shell nor Hydra's grammar, by which DVC reads `-S`, takes for something else."""

WORDS_OF_YAML = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")


def override(key: str, value: str | list[str]) -> str:
    """The argument of `dvc exp run` that sets a key of params.yaml to a text or a list of texts, quoted for a shell."""
    if isinstance(value, str):
        written = value if is_plain(value) else quoted(value)
    else:
        written = f"[{','.join(map(quoted, value))}]"
    return f"-S {shlex.quote(f'{key}={written}')}"


def is_plain(value: str) -> bool:
    """Whether a text needs no quotes in YAML and in an argument of `-S`."""
    return PLAIN_VALUE.fullmatch(value) is not None and value.lower() not in WORDS_OF_YAML


def quoted(value: str) -> str:
    """A text in double quotes, as Hydra's grammar reads it; a line break stays `\\n`, as `encode.template` takes it."""
    escaped = value.replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
