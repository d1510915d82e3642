"""The text of a row: one text, or a pair of texts (entailment, paraphrase); and how what data say is shown."""

import difflib
import itertools
import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("text", "text_pair")
"""The text columns of a table; only pairs have the second."""


def as_inputs(table: "pd.DataFrame") -> list[str] | list[tuple[str, str]]:
    """Each row's text or pair, as a tokenizer takes them."""
    columns = [table[name].tolist() for name in COLUMNS if name in table]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def joined(table: "pd.DataFrame") -> "pd.Series":
    """Each row's text, or both of its texts with a line break between them."""
    return table["text"] + "\n" + table["text_pair"] if "text_pair" in table else table["text"]


UNSPACED = re.compile(r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Letters of scripts without spaces between words, for which Unicode's word boundaries need a dictionary (UAX #29,
section 4): Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters."""


def words(text: str) -> float:
    """How many words a text has, nearly; in scripts without spaces between words, two letters count as one."""
    unspaced = len(UNSPACED.findall(text))
    return unspaced / 2 + len(UNSPACED.sub(" ", text).split())


def clean(value: str | float | None) -> str:
    """A value as valid text without NUL characters, accents composed (NFC), white space collapsed and stripped."""
    return unicodedata.normalize("NFC", " ".join(valid(value).replace("\0", "").split()))


def valid(value: str | float | None) -> str:
    """A value as text that UTF-8 can encode: a lone surrogate becomes U+FFFD, None and NaN an empty string."""
    text = "" if value is None or value != value else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, length: int) -> str:
    """The beginning of a text on one line, of at most `length` characters, including the ellipsis if it is cut.

    The cut is after a word if one ends in the second half; otherwise, as in Chinese or a long URL, anywhere.
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    words = line[: length - 1].rpartition(" ")[0]
    return f"{words} …" if len(words) > length // 2 else f"{line[: length - 1]}…"


def rarest(rows: "Mapping[str, int] | pd.Series", few: int) -> str:
    """The classes with fewer than `few` rows, the rarest first, as `NAME (ROWS), …`; empty if there are none."""
    rare = [(name, count) for name, count in rows.items() if count < few]
    return shortened(", ".join(f"{name} ({count})" for name, count in sorted(rare, key=itemgetter(1))), 200)


NOTHING_LISTED = "(none)"
"""What stands for an empty list of names."""


def listed(names: Iterable[str]) -> str:
    """Names of classes or labels as an answer that a reader of CSV takes apart again: with commas between them, in
    quotes where one has a comma or quotes."""
    return ", ".join(map(in_list, names)) or NOTHING_LISTED


def in_list(name: str) -> str:
    """A name as it stands in a list."""
    return '"{}"'.format(name.replace('"', '""')) if {*name} & {*',"'} or name == NOTHING_LISTED else name


def literal(text: str) -> str:
    """What a user's data or files say, as Markdown that shows it as it is, on one line: in a code span.

    Within one, Markdown has no markup, and GitHub finds no mention, reference, link, emoji or formula (CommonMark
    0.31.2, section 6.1; in a table, `reporting.markdown.table` escapes a `|`, there too). White space is collapsed;
    for control characters see `printable`. A blank text stays empty.
    """
    line = printable(" ".join(text.split()))
    if not line:
        return ""
    inside = set(map(len, re.findall("`+", line)))
    ticks = "`" * next(length for length in itertools.count(1) if length not in inside)
    space = " " if "`" in (line[0], line[-1]) else ""
    return f"{ticks}{space}{line}{space}{ticks}"


UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, line separators, what reorders the rest of a line (UAX #9), surrogates."""


def printable(text: str) -> str:
    """A text as a terminal may get it: characters that would control it are shown by their number, such as `\\x1b`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def script_safe(name: str) -> str:
    """A name as it may stand in the script of a page, as `dvc plots` writes it there: with a word joiner, which is not
    seen, where it would end the script (HTML standard, 4.12.1.3)."""
    return re.sub("<(?=!--|/?script)", "<\u2060", name, flags=re.IGNORECASE)


def nearest(name: str, names: list[str]) -> str | None:
    """The name that is most like `name`, whatever its case; None: none is like it."""
    by_lower = {str(other).lower(): str(other) for other in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


PLAIN_VALUE = re.compile(r"[A-Za-z_][\w./*-]*(:[\w./*-]+)?", re.ASCII)
"""Values that neither a shell nor Hydra's grammar, by which DVC reads `-S`, takes for something else."""

WORDS_OF_YAML = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")


def override(key: str, value: str | list[str] | None) -> str:
    """The argument of `dvc exp run` that sets a key of params.yaml to a text, a list of texts or null, quoted for a
    shell; a line break is `\\n`, as `encode.template` takes it, too."""
    written = value if isinstance(value, str) and is_plain(value) else in_hydra(value).replace("\n", r"\n")
    return f"-S {shlex.quote(f'{key}={written}')}"


def is_plain(value: str) -> bool:
    """Whether a text needs no quotes in YAML and in an argument of `-S`."""
    return PLAIN_VALUE.fullmatch(value) is not None and value.lower() not in WORDS_OF_YAML


def in_hydra(value: object) -> str:
    """A value of params.yaml, other than a mapping, in Hydra's grammar, by which DVC reads `-S`.

    A text is in quotes, in which a backslash stands for itself, unless it is before a quote.
    """
    if isinstance(value, list):
        return f"[{','.join(map(in_hydra, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    escaped = re.sub(r'(\\+)(?="|\Z)', r"\1\1", value).replace('"', r"\"")
    return f'"{escaped}"'
