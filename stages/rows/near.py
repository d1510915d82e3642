"""Near-duplicate texts: MinHash finds the candidates (Broder 1997), a comparison of all shingles decides. Where a text
has too many candidates, as one made from a template has, those that share its rarest shingles take their place, and
none is missed.

Memory grows by some 100 bytes a text, and by no more than `KEY_BYTES`, a few bytes for each of `BLOCK` characters and
some dozens for each of the longest text, whatever the texts have in common.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, vstack

from stages.common import progress
from stages.rows.cleaning import plain

SHINGLE = 5
"""Characters per shingle: the usual size for short texts (Leskovec et al., Mining of Massive Datasets, ch. 3.2)."""

HASHES = 128
"""MinHash values per text, in bands that are as long as `MAX_MISSED` allows."""

MAX_MISSED = 1e-3
"""Highest share of the pairs exactly at the threshold that may be missed because they agree in no band."""

CHUNK, PART = 1 << 17, 1 << 19
"""Characters of the texts hashed at once, as many as fit a core's cache; and of those that a process hashes or compares
at a time, so many that sending them does not count."""

KEY_BYTES = 1 << 29
"""Memory for the keys of several bands at once; for each further pass all texts are hashed again."""

BITS = 256
"""Bits of a text's bitmap: enough to tell texts of up to 400 characters apart; longer ones are compared more often."""

EFFORT, COMPARISON = 1_000, 100
"""Candidates that a text may have before its rarest shingles are the shorter way, and for how many a comparison counts.
Texts without a template have three each in a million."""

BLOCK, SHARED = 1 << 25, 1 << 20
"""Characters of the texts with too many candidates that are looked for at once: for each further block all others are
hashed again. And how many shingles, in all pairs of texts together, may be shared at a time."""

BUCKETS, CLASSES, RANKED = 22, 5, 40
"""Bits of a shingle's hash that tell rare ones apart, of the class of its frequency, and of the hash where shingles are
put in order; what is left of 64 bits counts the texts of a chunk."""

LONG = 64
"""Shingles of a text for each of which it must share another one of the rarest: long texts share some by chance."""


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
    search = Search(texts, groups, threshold, spread)
    search.by_bands()
    crowded = np.flatnonzero((search.near < 0) & (search.effort <= 0))
    if len(crowded):
        search.by_rarest_shingles(crowded)
    return search.near


class Search:
    """The search for near-duplicates: see `near_duplicates_in_earlier_groups`."""

    def __init__(
        self, texts: Sequence[str], groups: np.ndarray, threshold: float, spread: Callable[..., Iterator[Any]] = map
    ) -> None:
        self.texts, self.groups, self.threshold, self.spread = texts, groups, threshold, spread
        self.lengths = pd.Series(texts).str.len().to_numpy(dtype=np.int64)
        self.near = np.full(len(texts), -1)
        self.effort = np.full(len(texts), EFFORT)
        """What is left of each text's `EFFORT`."""
        self.bitmaps = np.zeros((len(texts), BITS // 64), dtype=np.uint64)
        self.sizes = np.zeros(len(texts), dtype=np.int32)
        """The number of each text's shingles, repeated ones counted again."""

    def by_bands(self) -> None:
        """Look among the texts that share a key in some band, as long as there are few."""
        for keys in self.band_keys():
            for ones, others in candidates(keys[-1], self.groups, self.near, self.effort):
                self.effort[ones] -= 1
                ones, others = self.likely(ones, others)
                new = (keys[:-1, ones] != keys[:-1, others]).all(axis=0)
                self.compare(ones[new], others[new])
                self.effort[ones[new]] -= COMPARISON

    def band_keys(self) -> Iterator[np.ndarray]:
        """One key per text, for each band of the MinHash signature, after those of the bands before that are in memory,
        (bands, texts) uint64; near-duplicates share some key.

        Two texts of similarity s agree in a band of r values with probability s^r (Leskovec et al., ch. 3.4).
        """
        lengths = range(1, HASHES + 1)
        length = max(r for r in lengths if (1 - self.threshold**r) ** (HASHES // r) <= MAX_MISSED or r == 1)
        bands = HASHES // length
        generator = np.random.default_rng(0)  # fixed: the same texts are found in every run
        drawn = generator.integers(2**64, size=(3, bands, length), dtype=np.uint64) | np.uint64(1)
        at_once, whole = max(1, KEY_BYTES // (8 * max(1, len(self.texts)))), parts(self.lengths, PART)
        for first in range(0, bands, at_once):
            some = drawn[:, first : first + at_once]
            keys = np.empty((some.shape[1], len(self.texts)), dtype=np.uint64)
            sketched = self.spread(partial(sketch, some, first == 0), (self.texts[part] for part in whole))
            with progress.bar("near-duplicates", total=len(self.texts), unit="text") as bar:
                for part, (of_part, *others) in zip(whole, sketched, strict=True):
                    keys[:, part] = of_part
                    if first == 0:
                        self.bitmaps[part], self.sizes[part] = others
                    bar.update(part.stop - part.start)
            with progress.bar("near-duplicates", total=len(keys), unit="round") as bar:
                for band in range(len(keys)):
                    yield keys[: band + 1]
                    bar.update()

    def by_rarest_shingles(self, crowded: np.ndarray) -> None:
        """Look for near-duplicates of some texts, given by their indices, among all in earlier groups."""
        count = np.searchsorted(self.groups, self.groups[crowded[-1]])  # of texts in earlier groups
        blocks, whole = parts(self.lengths[crowded], BLOCK), parts(self.lengths[:count], PART)
        listing = partial(rarest, frequencies(self.texts[crowded[:: len(blocks)]]), self.threshold)
        with progress.bar("near-duplicates", total=len(blocks) * count, unit="text") as bar:
            for block in blocks:
                short, long, sizes = listing(self.texts[crowded[block]])
                index = short.T.tocsr(), long.T.tocsr(), sizes
                for part, listed in zip(whole, self.spread(listing, (self.texts[part] for part in whole)), strict=True):
                    for ones, others in sharing(self.threshold, index, listed):
                        self.compare(*self.likely(crowded[block][ones], others + part.start))
                    bar.update(part.stop - part.start)

    def likely(self, ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of pairs, given by their indices, those that are to be compared: the second in an earlier group, the first
        without a near-duplicate yet, and their bitmaps alike."""
        wanted = (self.near[ones] < 0) & (self.groups[others] < self.groups[ones])
        ones, others = ones[wanted], others[wanted]
        likely = self.could_be_near(ones, others)
        return ones[likely], others[likely]

    def compare(self, ones: np.ndarray, others: np.ndarray) -> None:
        """Compare each two texts, given by their indices."""
        some = parts(self.lengths[ones] + self.lengths[others], PART)
        pairs = (self.pairs(ones[part], others[part]) for part in some)
        for part, alike in zip(some, self.spread(partial(are_near, self.threshold), pairs), strict=True):
            self.near[ones[part][alike]] = others[part][alike]

    def pairs(self, ones: np.ndarray, others: np.ndarray) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        """Pairs of texts, given by their indices, as `are_near` takes them."""
        which, places = np.unique(np.stack([ones, others]), return_inverse=True)
        return self.texts[which], *places

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
    for wide, rows in hashed(texts):
        values = wide >> np.uint64(32)
        keys = minima(values, rows, *drawn)
        found.append((keys, bitmaps(values, rows), np.diff(rows, append=len(values))) if whole else (keys,))
    keys, *others = zip(*found, strict=True)
    return np.concatenate(keys, axis=1), *map(np.concatenate, others)


def minima(
    values: np.ndarray, rows: np.ndarray, factors: np.ndarray, terms: np.ndarray, mixers: np.ndarray
) -> np.ndarray:
    """The keys of some bands, (bands, texts) uint64, from hashes of 32 bits; factors etc.: (bands, length).

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


def candidates(
    keys: np.ndarray, groups: np.ndarray, near: np.ndarray, effort: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices of texts without a near-duplicate in `near`, and of one text each that shares their key, in an
    earlier group: first the first such text, then, for those that still have none, the second, and so on, as long as
    some `effort` is left to them."""
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
    while (left := (near[ones] < 0) & (effort[ones] > 0) & (first < end)).any():
        ones, first, end = ones[left], first[left], end[left]
        yield ones, order[first]
        first = first + 1


def frequencies(texts: Sequence[str]) -> np.ndarray:
    """The class of the frequency of each shingle in texts, by its hash, (2 ** `BUCKETS`,) uint8."""
    counts = np.zeros(1 << BUCKETS, dtype=np.int64)
    for values, _ in hashed(texts):
        counts += np.bincount((values >> np.uint64(64 - BUCKETS)).astype(np.int64), minlength=len(counts))
    return np.log2(counts + 1, dtype=np.float32).astype(np.uint8)


def rarest(classes: np.ndarray, threshold: float, texts: Sequence[str]) -> tuple[csr_array, csr_array, np.ndarray]:
    """The rarest shingles of texts, as two matrices, (texts, 2 ** `BUCKETS`), and how many shingles each text has.

    Prefix filtering (Bayardo et al. 2007, Scaling Up All Pairs Similarity Search): two texts at the threshold t share
    2 * t / (1 + t) or more of the shingles of the smaller one, and t or more of the larger one's. If those of all texts
    are in one order, one that is shared is before the last of either text, which are too few to be all: in the first
    matrix for the smaller text, in the second for the larger one.

    Args:
        classes: see `frequencies`; any order of the shingles finds the same pairs, but the rarest first makes few.
    """
    short, long, sizes = [], [], []
    for values, rows in hashed(texts):
        owners = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(rows, append=len(values)))
        above = owners << np.uint64(CLASSES) | classes[values >> np.uint64(64 - BUCKETS)]
        ordered = distinct(above << np.uint64(RANKED) | values >> np.uint64(64 - RANKED))
        owners = (ordered >> np.uint64(RANKED + CLASSES)).astype(np.int64)
        sizes.append(np.bincount(owners))
        ends, size = np.cumsum(sizes[-1]), sizes[-1][owners]
        left = ends[owners] - np.arange(len(owners)) + extra(size, threshold)
        buckets = (ordered >> np.uint64(RANKED - BUCKETS)).astype(np.int64) % (1 << BUCKETS)
        for found, share in ((short, 2 * threshold / (1 + threshold)), (long, threshold)):
            kept = left >= share * size - 1e-6  # for rounding
            starts = np.searchsorted(owners[kept], np.arange(len(rows) + 1))
            found.append(csr_array((kept[kept].astype(np.int32), buckets[kept], starts), (len(rows), 1 << BUCKETS)))
    return vstack(short, "csr"), vstack(long, "csr"), np.concatenate(sizes)


def extra(sizes: np.ndarray, threshold: float) -> np.ndarray:
    """How many more than one of their rarest shingles two texts must share, for the size of the smaller one."""
    return (sizes * threshold).astype(np.int64) // LONG


def sharing(threshold: float, index: tuple, listed: tuple) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices of texts that share enough of their rarest shingles, one of the index and one that is listed each.

    Args:
        index, listed: see `rarest`; the matrices of the index are transposed.
    """
    (short, long, sizes), (of_short, of_long, of_index) = listed, index
    for mine, theirs, order in ((long, of_short, np.less_equal), (short, of_long, np.greater)):
        work = mine @ np.diff(theirs.indptr)
        for part in parts(work, SHARED):
            shared = (mine[part] @ theirs).tocoo()
            ones, others = shared.col, shared.row + part.start
            enough = shared.data > extra(np.minimum(of_index[ones], sizes[others]), threshold)
            enough &= order(of_index[ones], sizes[others])
            yield ones[enough], others[enough]


def are_near(threshold: float, pairs: tuple[Sequence[str], np.ndarray, np.ndarray]) -> np.ndarray:
    """Whether the similarity of each two texts reaches the threshold, (pairs,) bool.

    Args:
        pairs: texts, and the indices of the first and of the second one of each pair, (pairs,) each.
    """
    texts, ones, others = pairs
    values, rows = hashes(texts)
    sets = [distinct(of_text) for of_text in np.split(values, rows[1:])]
    return np.array([jaccard(sets[one], sets[other]) >= threshold for one, other in zip(ones, others, strict=True)])


def distinct(values: np.ndarray) -> np.ndarray:
    """The different ones of some values, sorted."""
    values, new = np.sort(values), np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return values[new]


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sets, each of them sorted."""
    both = np.concatenate([one, other])
    both.sort(kind="stable")  # merges what is sorted already
    shared = np.count_nonzero(both[1:] == both[:-1])
    return shared / (len(both) - shared)


def hashed(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The `hashes` of texts, chunk by chunk."""
    for chunk in parts([len(text) + SHINGLE for text in texts], CHUNK):
        yield hashes(texts[chunk])


def hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each shingle, (shingles,) uint64, text after text, and where each text's begin, (texts,).

    Multilinear hashing: the sum of the characters times random factors, of which the high bits are the more random
    ones (Thorup 2015, High Speed Hashing for Integers and Strings, section 4). As characters differ by less than 2**21,
    different shingles have the same 64 bits with a probability of at most 2**-44.
    """
    padded = [plain(text).ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    factors = np.random.default_rng(1).integers(2**64, size=SHINGLE, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    lengths = np.array([len(text) for text in padded])
    inside = np.ones(len(codes), dtype=bool)  # a window that begins here ends in the same text
    inside[(np.cumsum(lengths)[:, None] - np.arange(1, SHINGLE)).ravel()] = False
    counts = lengths - (SHINGLE - 1)
    return (windows @ factors)[inside[: len(windows)]], np.cumsum(counts) - counts


def parts(sizes: Sequence[int] | np.ndarray, most: int) -> list[slice]:
    """Items in parts, whose sizes are `most`, to within that of an item."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // most)) + 1
    return [slice(start, end) for start, end in pairwise([0, *ends.tolist(), len(sizes)]) if start < end]
