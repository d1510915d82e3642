"""How many tokens of a text are read: the choice behind `encode.max_length: auto`, and what others would cost."""

import math
from dataclasses import dataclass

import numpy as np

SHORTEST = 256
"""Tokens of a text that `auto` reads in any case. Short texts are not cut, so a high number costs them nothing."""

LONGEST = 1024
"""Tokens of a text that `auto` reads at most: a training step of the default run, on 16 rows, takes 4.7 GB with rows of
this length and 2.1 GB with 256 tokens."""

BUDGET = 1_500_000
"""Tokens that `auto` lets `encode` run: 17 minutes at the default model's 1,490 tokens/s (benchmarks/RESULTS.md)."""

STEP = 64
"""Tokens between the lengths that are tried where the budget decides: small changes of the data then change nothing."""

OTHERS = (128, 256, 512)
"""Lengths whose cost is given for comparison."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The texts' numbers of tokens, and what bounds the choice."""

    splits: dict[str, np.ndarray]
    """The tokens of each whole text, template included, by split."""
    template: int
    """How many of them are the template's."""
    window: float
    """The most tokens that the model takes."""
    pairs: bool
    """Whether the texts are pairs, which cannot be read in windows."""

    def choose(self, budget: float) -> int:
        """The tokens of a text to read: all of the longest training text, or else the 95th percentile of the training
        texts, or else what the budget allows.

        Never less than `SHORTEST`, or than a text as long as the template; never more than `LONGEST`, or than the model
        takes.

        Args:
            budget: the most tokens of all splits together.
        """
        least = max(SHORTEST, 2 * self.template)
        most = int(min(self.window, max(LONGEST, least)))
        quantiles = np.quantile(self.splits["train"], [1, 0.95])
        longest, common = (min(max(math.ceil(tokens), least), most) for tokens in quantiles)
        shorter = range(common - common % STEP, least, -STEP)
        affordable = (length for length in (longest, common, *shorter) if self.read(length) <= budget)
        return next(affordable, min(least, most))

    def read(self, length: float = math.inf) -> int:
        """The tokens of all splits, of each text at most `length`."""
        return int(sum(np.minimum(split, length).sum() for split in self.splits.values()))

    def in_windows(self, length: int, stride: int) -> int:
        """The tokens of all splits in windows of at most `length` tokens, of which neighbours share `stride`."""
        inside, room = np.concatenate([*self.splits.values()]) - self.template, length - self.template
        windows = 1 + np.ceil(np.maximum(inside - room, 0) / (room - stride))
        return int((inside + (windows - 1) * stride + windows * self.template).sum())

    def cut(self, split: str, length: float) -> dict[str, int]:
        """How many texts of a split are longer than `length`, and by how many tokens in all."""
        beyond = np.maximum(self.splits[split] - length, 0)
        return {"truncated_rows": int((beyond > 0).sum()), "truncated_tokens": int(beyond.sum())}

    def alternatives(self, chosen: int) -> list[int]:
        """The lengths to compare: the chosen one, usual ones, and that of the longest text, if the model takes it."""
        longest = int(min(self.window, max(split.max() for split in self.splits.values())))
        return sorted({chosen, longest, *(length for length in OTHERS if length < longest)})
