"""Near-duplicate texts: MinHash finds the candidates (Broder 1997), an exact comparison decides."""

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from sklearn.feature_extraction import FeatureHasher

SHINGLE = 5
"""Characters per shingle: the usual size for short texts (Leskovec et al., Mining of Massive Datasets, ch. 3.2)."""

HASHES = 128
"""MinHash values per text, in bands that are as long as `MAX_MISSED` allows."""

MAX_MISSED = 1e-3
"""Highest share of the pairs exactly at the threshold that may be missed because they agree in no band."""

CHUNK = 10_000
"""Texts hashed at once; bounds the memory."""


def near_duplicates_in_earlier_groups(texts: np.ndarray, groups: np.ndarray, threshold: float) -> np.ndarray:
    """For each text the index of a near-duplicate in an earlier group, or -1, (texts,) int64.

    Near-duplicates are texts whose shingle sets have a Jaccard similarity of `threshold` or more.

    Args:
        texts: (texts,), ordered by group.
        groups: (texts,), the number of each text's group, ascending.
    """
    near = np.full(len(texts), -1)
    shingles_of = lru_cache(CHUNK)(shingles)  # a pair can agree in several bands
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
    """The substrings of `SHINGLE` characters of `text`, without case and punctuation; a text of emoji alone is kept."""
    plain = " ".join(re.findall(r"\w+", text.casefold())) or text
    return frozenset(plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1)))


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
    hasher = FeatureHasher(n_features=2**31 - 1, input_type="string", alternate_sign=False)
    keys = np.zeros((bands, len(texts)), dtype=np.uint64)
    for start in range(0, len(texts), CHUNK):
        hashed = hasher.transform(shingles(text) for text in texts[start : start + CHUNK])
        values, rows = hashed.indices.astype(np.uint64), hashed.indptr[:-1]
        for band in range(bands):
            for factor, term, mixer in zip(factors[band], terms[band], mixers[band], strict=True):
                # multiply-shift hashing (Dietzfelbinger et al. 1997): the high bits of factor * value + term
                lowest = np.minimum.reduceat((values * factor + term) >> np.uint64(32), rows)
                keys[band, start : start + len(rows)] += lowest * mixer
    return keys


def collisions(keys: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of the texts that share a key, ascending: one array for each key that several groups have."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    ends = np.append(starts[1:], len(order))
    mixed = groups[order[starts]] != groups[order[ends - 1]]
    for start, end in zip(starts[mixed], ends[mixed], strict=True):
        yield order[start:end]
