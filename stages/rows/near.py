"""Near-duplicate texts: MinHash finds the candidates (Broder 1997), an exact comparison decides."""

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

SHINGLE = 5
"""Characters per shingle: the usual size for short texts (Leskovec et al., Mining of Massive Datasets, ch. 3.2)."""

HASHES = 128
"""MinHash values per text, in bands that are as long as `MAX_MISSED` allows."""

MAX_MISSED = 1e-3
"""Highest share of the pairs exactly at the threshold that may be missed because they agree in no band."""

CHUNK = 1_000
"""Texts hashed at once: as many as fit a core's cache."""

KEPT = 10_000
"""Texts whose shingles are kept for further comparisons; bounds the memory."""


def near_duplicates_in_earlier_groups(texts: np.ndarray, groups: np.ndarray, threshold: float) -> np.ndarray:
    """For each text the index of a near-duplicate in an earlier group, or -1, (texts,) int64.

    Near-duplicates are texts whose shingle sets have a Jaccard similarity of `threshold` or more.

    Args:
        texts: (texts,), ordered by group.
        groups: (texts,), the number of each text's group, ascending.
    """
    near = np.full(len(texts), -1)
    shingles_of = lru_cache(KEPT)(shingles)  # a pair can agree in several bands
    for keys in band_keys(texts, threshold):
        for together in collisions(keys, groups):
            sets = [shingles_of(texts[index]) for index in together]
            earlier = np.searchsorted(groups[together], groups[together])
            for index, pieces, count in zip(together, sets, earlier, strict=True):
                if near[index] < 0:
                    pairs = zip(together[:count], sets, strict=False)
                    near[index] = next((other for other, theirs in pairs if jaccard(pieces, theirs) >= threshold), -1)
    return near


def shingles(text: str) -> frozenset[str]:
    """The substrings of `SHINGLE` characters of `plain(text)`."""
    text = plain(text)
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def plain(text: str) -> str:
    """The text without case and punctuation; a text of emoji alone is kept."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(one & other) / len(one | other)


def band_keys(texts: np.ndarray, threshold: float) -> np.ndarray:
    """One key per text for each band of the MinHash signature, (bands, texts) uint64; near-duplicates share some key.

    Two texts of similarity s agree in a band of r values with probability s^r (Leskovec et al., ch. 3.4).
    """
    length = max(r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MAX_MISSED or r == 1)
    bands = HASHES // length
    generator = np.random.default_rng(0)  # fixed: the same texts are found in every run
    factors, terms, mixers = generator.integers(2**64, size=(3, bands, length), dtype=np.uint64) | np.uint64(1)
    keys = np.zeros((bands, len(texts)), dtype=np.uint64)
    for start in range(0, len(texts), CHUNK):
        values, rows = hashes(texts[start : start + CHUNK])
        for band in range(bands):
            for factor, term, mixer in zip(factors[band], terms[band], mixers[band], strict=True):
                # multiply-shift hashing (Dietzfelbinger et al. 1997): the high bits of factor * value + term
                lowest = np.minimum.reduceat((values * factor + term) >> np.uint64(32), rows)
                keys[band, start : start + len(rows)] += lowest * mixer
    return keys


def hashes(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def collisions(keys: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of the texts that share a key, ascending: one array for each key that several groups have."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    ends = np.append(starts[1:], len(order))
    mixed = groups[order[starts]] != groups[order[ends - 1]]
    for start, end in zip(starts[mixed], ends[mixed], strict=True):
        yield order[start:end]
