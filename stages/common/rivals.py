"""The names of the models that are compared: keys of metrics/baseline.json, columns of answers, names of curves."""

from collections.abc import Container

MAJORITY = "majority"
"""The class shares of the training rows, whatever the text."""
MEDIAN = "median"
"""For regression: the median of the training rows, whatever the text."""
BAG_OF_WORDS = "bag_of_words"
"""A linear model on TF-IDF weights."""
BAG_OF_CHARACTERS = "bag_of_characters"
"""The same on strings of characters, in place of `BAG_OF_WORDS` where the texts have no words that a pattern finds."""
UNTRAINED = "untrained"
"""The model before tuning, with a random head or the head that it was saved with."""
ZERO_SHOT = "zero_shot"
"""The model before tuning, its head made of the language-model head's rows for the label words."""
ZERO_SHOT_CALIBRATED = "zero_shot_calibrated"
"""Logistic regression on the logits of `ZERO_SHOT`, fitted on the validation rows: of two classes a threshold and a
scale, of more, or of several labels, a matrix."""
LINEAR_PROBE = "linear_probe"
"""A linear model on the untuned model's pooled hidden states."""

TUNED = "tuned"
"""The model that this pipeline trains: not a rival, but compared with each of them."""
TUNED_UNCALIBRATED = "tuned_uncalibrated"
"""The tuned model without temperature scaling."""
STRONGEST_RIVAL = "strongest_rival"
"""The rival over which the gain is smallest."""


def bag(names: Container[str]) -> str:
    """Which of the two bags is among the names of the models; each run has one."""
    return BAG_OF_CHARACTERS if BAG_OF_CHARACTERS in names else BAG_OF_WORDS


def constant(names: Container[str]) -> str:
    """Which of the two rivals that do not read the text is among the names of the models; each run has one."""
    return MEDIAN if MEDIAN in names else MAJORITY
