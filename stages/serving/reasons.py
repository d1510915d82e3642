"""Why a classifier answered as it did: how much each word of a text speaks for the answer.

A word's weight is what the answer loses when the word is left out (Li, Monroe and Jurafsky 2016, "Understanding neural
networks through representation erasure", section 3). It takes a pass for each word and nothing but the logits, so that
it says the same of every classifier, whatever computes these.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.common.texts import clean
from stages.problems.problem import Problem
from stages.serving.answers import Classifier, Inputs

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""A word: what stands between white space; where words are not parted so (Chinese, Japanese, Korean), a character."""

MOST = 64
"""Parts of which an input is made at most: in a longer one neighbouring words are left out together."""

SHOWN = 5
"""Words that a table shows."""

LEAST = 0.2
"""The weight from which a word is said to speak for an answer, as a share of the largest one."""

AROUND = re.compile(r"^\W+|\W+$")
"""Punctuation before and after a word."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a text."""

    text: str
    weight: float = 0.0
    """How much it speaks for the answer, or if negative against it; 0 for white space."""


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """What speaks for an answer."""

    about: str | None
    """The name of the most probable class or label; None: the answer is a number."""
    texts: list[list[Piece]]
    """For the text, or each text of a pair, the pieces that make it."""

    def words(self) -> list[tuple[str, float]]:
        """Those with the largest weights, up to `SHOWN`."""
        weighty = [piece for text in self.texts for piece in text if piece.weight]
        weighty.sort(key=lambda piece: -abs(piece.weight))
        return [(piece.text, round(piece.weight, 3)) for piece in weighty[:SHOWN]]

    def speaking(self, direction: float = 1.0) -> list[str]:
        """The words that speak most for the answer, up to `SHOWN`, without the punctuation around them; with a negative
        direction, against it."""
        weighty = [(direction * piece.weight, piece.text) for text in self.texts for piece in text]
        weighty.sort(key=lambda one: -one[0])
        least = max(weighty[0][0], 0) * LEAST if weighty else 0
        return [AROUND.sub("", word) or word for weight, word in weighty[:SHOWN] if weight > least]


def reasons_for(classifier: Classifier, inputs: Inputs) -> list[Reasons]:
    """The reasons for the answer to each text or pair."""
    return [reasons_for_one(classifier, given) for given in inputs]


def reasons_for_one(classifier: Classifier, given: str | tuple[str, str], *, most: int = MOST) -> Reasons:
    """The reasons for one answer.

    Args:
        most: see `MOST`; each part takes a pass of the model.
    """
    texts = [given] if isinstance(given, str) else list(given)
    parts = spans(texts, most)
    logits = classifier.logits([given, *(without(texts, [part]) for part in parts)])
    best = int(logits[0].argmax())
    held = support(classifier.problem, logits, best)
    weights = {part: float(held[0] - left) for part, left in zip(parts, held[1:], strict=True)}
    name = None if classifier.problem.numeric else list(classifier.names)[best]
    return Reasons(about=name, texts=[pieces(text, number, weights) for number, text in enumerate(texts)])


Span = tuple[int, int, int]
"""A part of an input: the number of its text, and where it begins and ends there."""


def spans(texts: Sequence[str], most: int = MOST) -> list[Span]:
    """The words of texts, or where there are more than `most`, as few neighbouring ones together as will do."""
    words = [[found.span() for found in WORD.finditer(text)] for text in texts]
    size = 1
    while sum(-(-len(some) // size) for some in words) > max(most, len(texts)):
        size += 1
    return [
        (number, some[start][0], some[start : start + size][-1][1])
        for number, some in enumerate(words)
        for start in range(0, len(some), size)
    ]


def without(texts: Sequence[str], parts: Sequence[Span]) -> str | tuple[str, str]:
    """An input without some of its parts."""
    left = list(texts)
    for number, start, end in sorted(parts, reverse=True):
        left[number] = left[number][:start] + " " + left[number][end:]
    cleaned = [clean(text) for text in left]
    return cleaned[0] if len(cleaned) == 1 else tuple(cleaned)


def support(problem: Problem, logits: np.ndarray, best: int) -> np.ndarray:
    """How much logits, (rows, classes), speak for the output `best`, (rows,): the log odds of the class or label,
    or the number."""
    logits = logits.astype(np.float64)
    if problem.numeric or problem.several_answers:
        return logits[:, best]
    others = np.delete(logits, best, axis=1)
    return logits[:, best] - np.logaddexp.reduce(others, axis=1)


def pieces(text: str, number: int, weights: dict[Span, float]) -> list[Piece]:
    """The pieces of the text of a number."""
    found, end = [], 0
    for (_, start, stop), weight in ((part, weight) for part, weight in weights.items() if part[0] == number):
        found += [Piece(text=text[end:start])] if start > end else []
        found.append(Piece(text=text[start:stop], weight=weight))
        end = stop
    return found + ([Piece(text=text[end:])] if end < len(text) else [])
