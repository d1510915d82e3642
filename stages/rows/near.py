"""Near-duplicate texts: MinHash finds the candidates (Broder 1997), an exact comparison decides.

Memory grows by `KEY_BYTES` at most and some 100 bytes a text, whatever the texts have in common.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

SHINGLE = 5
"""Characters per shingle: the usual size for short texts (Leskovec et al., Mining of Massive Datasets, ch. 3.2)."""

HASHES = 128
"""MinHash values per text, in bands that are as long as `MAX_MISSED` allows."""

MAX_MISSED = 1e-3
"""Highest share of the pairs exactly at the threshold that may be missed because they agree in no band."""

NO_WORD = {code: " " for code in range(128) if not re.match(r"\w", chr(code))}
"""ASCII characters that are no part of a word: text of ASCII alone is split three times as fast without a pattern."""

MARKS = "".join(chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M"))
"""The combining marks of the Basic Multilingual Plane, such as the vowel signs of Hindi and Thai. With those beyond it,
of rare scripts, finding the words of a text that is not ASCII takes nearly twice as long."""

WORD = re.compile(rf"\w+(?:[{MARKS}]+\w*)*")
"""A word: letters and digits, with the marks that follow them."""

CHUNK = 1_000
"""Texts hashed at once: as many as fit a core's cache."""

PART, PAIRS = 5_000, 1_000
"""Texts hashed, and pairs of texts compared, by a process at a time: so many that sending them does not count."""

KEY_BYTES = 1 << 29
"""Memory for the keys of several bands at once; for each further pass all texts are hashed again."""

BITS = 256
"""Bits of a text's bitmap: enough to tell texts of up to 400 characters apart; longer ones are compared more often."""

KEPT = 10_000
"""Texts whose shingles a process keeps for further comparisons; bounds the memory."""


def near_duplicates_in_earlier_groups(
    texts: Sequence[str], groups: np.ndarray, threshold: float, spread: Callable[..., Iterator[Any]] = map
) -> np.ndarray:
    """For each text the index of a near-duplicate in an earlier group, or -1, (texts,) int64.

    Near-duplicates are texts whose shingle sets have a Jaccard similarity of `threshold` or more.

    Args:
        texts: (texts,), ordered by group; an array, of NumPy or pandas.
        groups: (texts,), the number of each text's group, ascending.
        spread: see `stages.compute.engine.mapping`.
    """
    near = np.full(len(texts), -1)
    sketches = Sketches(texts, threshold)
    for keys in sketches.band_keys(spread):
        for ones, others in candidates(keys, groups, near):
            likely = sketches.could_be_near(ones, others)
            ones, others = ones[likely], others[likely]
            some = parts(len(ones), PAIRS)
            compared = spread(partial(are_near, threshold), ((texts[ones[part]], texts[others[part]]) for part in some))
            for part, alike in zip(some, compared, strict=True):
                near[ones[part][alike]] = others[part][alike]
    shingles.cache_clear()
    return near


def parts(count: int, most: int) -> list[slice]:
    """So many texts or pairs, in parts."""
    return [slice(start, start + most) for start in range(0, count, most)]


def are_near(threshold: float, pairs: tuple[Sequence[str], Sequence[str]]) -> np.ndarray:
    """Whether the similarity of each two texts reaches the threshold, (pairs,) bool."""
    return np.array([jaccard(shingles(one), shingles(other)) >= threshold for one, other in zip(*pairs, strict=True)])


@lru_cache(KEPT)  # a text can be compared in several bands
def shingles(text: str) -> frozenset[str]:
    """The substrings of `SHINGLE` characters of `plain(text)`."""
    text = plain(text)
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def plain(text: str) -> str:
    """The text without case and punctuation; a text of emoji alone is kept."""
    folded = text.casefold()
    words = folded.translate(NO_WORD).split() if folded.isascii() else WORD.findall(folded)
    return " ".join(words) or text


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(one & other) / len(one | other)


class Sketches:
    """What tells quickly which texts could be near-duplicates."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.texts, self.threshold = texts, threshold
        self.bitmaps = np.zeros((len(texts), BITS // 64), dtype=np.uint64)
        self.sizes = np.zeros(len(texts), dtype=np.int32)
        """The number of each text's shingles, repeated ones counted again."""

    def band_keys(self, spread: Callable[..., Iterator[Any]] = map) -> Iterator[np.ndarray]:
        """One key per text, (texts,) uint64, for each band of the MinHash signature; near-duplicates share some key.

        Two texts of similarity s agree in a band of r values with probability s^r (Leskovec et al., ch. 3.4).

        Args:
            spread: see `stages.compute.engine.mapping`.
        """
        lengths = range(1, HASHES + 1)
        length = max(r for r in lengths if (1 - self.threshold**r) ** (HASHES // r) <= MAX_MISSED or r == 1)
        bands = HASHES // length
        generator = np.random.default_rng(0)  # fixed: the same texts are found in every run
        drawn = generator.integers(2**64, size=(3, bands, length), dtype=np.uint64) | np.uint64(1)
        at_once, whole = max(1, KEY_BYTES // (8 * max(1, len(self.texts)))), parts(len(self.texts), PART)
        for first in range(0, bands, at_once):
            some = drawn[:, first : first + at_once]
            keys = np.empty((some.shape[1], len(self.texts)), dtype=np.uint64)
            sketched = spread(partial(sketch, some, first == 0), (self.texts[part] for part in whole))
            for part, (of_part, *others) in zip(whole, sketched, strict=True):
                keys[:, part] = of_part
                if first == 0:
                    self.bitmaps[part], self.sizes[part] = others
            yield from keys

    def could_be_near(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether the similarity of each two texts, given by their indices, may reach the threshold, (pairs,) bool.

        Each bit in which their bitmaps differ stands for a shingle that only one of them has (Sandes et al. 2017,
        Bitmap Filter: Speeding up Exact Set Similarity Joins with Bitwise Operations). A similarity of t allows
        (1 - t) / (1 + t) such shingles for each one of both sets.
        """
        unlike = np.bitwise_count(self.bitmaps[ones] ^ self.bitmaps[others]).sum(axis=1, dtype=int)
        both = self.sizes[ones] + self.sizes[others]
        return (1 + self.threshold) * unlike <= (1 - self.threshold) * both + 1  # 1: for rounding


def sketch(drawn: np.ndarray, whole: bool, texts: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The keys of some bands, (bands, texts) uint64; if it is to be whole also the bitmaps, (texts, words), and the
    number of each text's shingles, (texts,).

    Args:
        drawn: the factors, terms and mixers of `minima`, (3, bands, length).
    """
    found = []
    for start in range(0, len(texts), CHUNK):
        values, rows = hashes(texts[start : start + CHUNK])
        keys = minima(values, rows, *drawn)
        found.append((keys, bitmaps(values, rows), np.diff(rows, append=len(values))) if whole else (keys,))
    keys, *others = zip(*found, strict=True)
    return np.concatenate(keys, axis=1), *map(np.concatenate, others)


def minima(
    values: np.ndarray, rows: np.ndarray, factors: np.ndarray, terms: np.ndarray, mixers: np.ndarray
) -> np.ndarray:
    """The keys of some bands, (bands, texts) uint64, from the hashes of the shingles; factors etc.: (bands, length).

    Multiply-shift hashing (Dietzfelbinger et al. 1997): the high bits of factor * value + term.
    """
    keys, made = np.zeros((len(factors), len(rows)), dtype=np.uint64), np.empty_like(values)
    for band, of_band in enumerate(zip(factors, terms, mixers, strict=True)):
        for factor, term, mixer in zip(*of_band, strict=True):
            np.add(np.multiply(values, factor, out=made), term, out=made)
            keys[band] += (np.minimum.reduceat(made, rows) >> np.uint64(32)) * mixer
    return keys


def bitmaps(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A bitmap of each text, (texts, words of 64 bits), in which the hash of each shingle sets a bit."""
    words, bits = values // np.uint64(64) % np.uint64(BITS // 64), np.uint64(1) << values % np.uint64(64)
    chosen = [np.where(words == word, bits, np.uint64(0)) for word in range(BITS // 64)]
    return np.stack([np.bitwise_or.reduceat(some, rows) for some in chosen], axis=1)


def hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of 32 bits of each shingle, (shingles,) uint64, text after text, and where each text's begin, (texts,).

    Multilinear hashing: the high bits of the sum of the characters times random factors (Thorup 2015, High Speed
    Hashing for Integers and Strings, section 4).
    """
    padded = [plain(text).ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    factors = np.random.default_rng(1).integers(2**64, size=SHINGLE, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    lengths = np.array([len(text) for text in padded])
    inside = np.ones(len(codes), dtype=bool)  # a window that begins here ends in the same text
    inside[(np.cumsum(lengths)[:, None] - np.arange(1, SHINGLE)).ravel()] = False
    counts = lengths - (SHINGLE - 1)
    return (windows @ factors >> np.uint64(32))[inside[: len(windows)]], np.cumsum(counts) - counts


def candidates(keys: np.ndarray, groups: np.ndarray, near: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices of texts without a near-duplicate in `near`, and of one text each that shares their key, in an
    earlier group: first the first such text, then, for those that still have none, the second, and so on."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new_key = np.ones(len(keys), dtype=bool)
    new_key[1:] = keys[1:] != keys[:-1]
    shared = ~(new_key & np.append(new_key[1:], True))
    order, new_key = order[shared], new_key[shared]
    groups, place = groups[order], np.arange(len(order), dtype=np.int32)
    new_group = new_key.copy()
    new_group[1:] |= groups[1:] != groups[:-1]
    first = np.maximum.accumulate(np.where(new_key, place, 0))
    end = np.maximum.accumulate(np.where(new_group, place, 0))
    ones = np.flatnonzero(end > first)
    ones, first, end = order[ones], first[ones], end[ones]
    while (left := (near[ones] < 0) & (first < end)).any():
        ones, first, end = ones[left], first[left], end[left]
        yield ones, order[first]
        first = first + 1
