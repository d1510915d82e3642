"""The bag that a run is compared with: of words, or of characters where the training texts have no words to find."""

import numpy as np
import pytest
from conftest import sentences

from stages import baseline
from stages.common import rivals
from stages.reporting import verdict
from stages.scoring import plots
from stages.scoring.kinds import SCORED
from stages.scoring.params import Baseline

SINGLE = SCORED["single_label"]
OPTIONS = Baseline(batch_size=8, regularization=[1.0, 10.0], ngrams=[1, 2])


def drawn(*kinds, count=60, length=8, between=""):
    """Texts, each of some of the characters or words of its kind; the kinds take turns."""
    generator = np.random.default_rng(0)
    return [between.join(generator.choice(list(kinds[number % len(kinds)]), size=length)) for number in range(count)]


ENGLISH = [text for text, _ in sentences(40)]
HINDI = (["अच्छी", "सुंदर", "बढ़िया", "फ़िल्म", "कहानी"], ["बुरी", "ख़राब", "बेकार", "फ़िल्म", "कहानी"])
TEXTS = {
    "English": (ENGLISH, rivals.BAG_OF_WORDS),
    "English, eight different texts": (
        [
            "A warm and funny film about growing old in a small town",
            "The acting is so wooden that a chair would have been the better lead",
            "It is a pity that such a good idea is buried in such a dull film",
            "Everything in this story feels true, and the end is a surprise",
            "Two hours of noise, and not one moment that I will remember",
            "The director trusts the audience, and it is a pleasure to be trusted",
            "I have seen better jokes on the back of a box of cereal",
            "A small and quiet film which is over too soon",
        ],
        rivals.BAG_OF_WORDS,
    ),
    "Russian": (drawn(["хорошо", "очень", "фильм"], ["плохо", "скучно", "фильм"], between=" "), rivals.BAG_OF_WORDS),
    "Korean": (drawn(["재미있는", "영화"], ["지루한", "영화"], between=" "), rivals.BAG_OF_WORDS),
    "one word again and again": (["good", "bad", "good film", "bad film"] * 5, rivals.BAG_OF_WORDS),
    "Chinese": (drawn("好美棒喜爱电影", "坏丑差恨烂电影"), rivals.BAG_OF_CHARACTERS),
    "Chinese phrases": (["很好。不错", "太差了。失望"] * 20, rivals.BAG_OF_CHARACTERS),
    "Japanese": (drawn("おもしろい映画", "つまらない映画"), rivals.BAG_OF_CHARACTERS),
    "Thai": (drawn(["สนุก", "ดีมาก", "หนัง"], ["น่าเบื่อ", "แย่", "หนัง"]), rivals.BAG_OF_CHARACTERS),
    "Hindi": (drawn(*HINDI, between=" "), rivals.BAG_OF_CHARACTERS),
    "Tamil": (drawn(["நன்றாக", "படம்"], ["மோசமாக", "படம்"], between=" "), rivals.BAG_OF_CHARACTERS),
    "DNA": (drawn("ACGT", "AACCGT", length=80), rivals.BAG_OF_CHARACTERS),
    "short DNA": (drawn("ACGT", "AACCGT", length=20), rivals.BAG_OF_CHARACTERS),
    "emoji": (drawn("😀😍🎉", "😡👎💩"), rivals.BAG_OF_CHARACTERS),
    "punctuation": (drawn("!?", ".;"), rivals.BAG_OF_CHARACTERS),
    "letters": (drawn("abc", "xyz", between=" "), rivals.BAG_OF_CHARACTERS),
    "mostly emoji": ([*ENGLISH[:10], *drawn("😀😍🎉", "😡👎💩", count=30)], rivals.BAG_OF_CHARACTERS),
}


@pytest.mark.parametrize("name", TEXTS)
def test_words_are_counted_where_there_are_some_and_characters_elsewhere_which_is_said(name, capsys):
    given, expected = TEXTS[name]
    found, vectorizers = baseline.bag_vectorizers(given, OPTIONS)
    assert found == expected
    line = f"baseline: {rivals.BAG_OF_CHARACTERS} in place of {rivals.BAG_OF_WORDS}, as of the characters of a training"
    assert capsys.readouterr().err.startswith(line if found == rivals.BAG_OF_CHARACTERS else "")
    assert all(("analyzer" in settings) == (found == rivals.BAG_OF_CHARACTERS) for settings in vectorizers)
    assert len(vectorizers) == 2


def task(labels):
    main_score = SINGLE.main_scores["accuracy"]
    return baseline.Task(problem=SINGLE, names=["bad", "good"], main_score=main_score, labels=labels)


@pytest.mark.parametrize("name", ["Chinese", "Thai", "Hindi", "emoji", "punctuation", "letters"])
def test_the_bag_of_characters_learns_what_is_there_to_learn(name):
    given = np.array(TEXTS[name][0])
    texts, labels = (
        {split: rows[part::3] for part, split in enumerate(("train", "validation", "test"))}
        for rows in (given, np.arange(len(given)) % 2)
    )
    _, vectorizers = baseline.bag_vectorizers(texts["train"], OPTIONS)
    outputs = baseline.bag_of(task(labels), texts, vectorizers, OPTIONS).outputs
    assert (outputs["test"].argmax(axis=1) == labels["test"]).mean() > 0.9


@pytest.mark.parametrize("analyzer", ["word", "char"])
def test_a_bag_has_no_more_strings_than_may_be(analyzer, monkeypatch):
    texts = {name: [f"good film {row} {'x' * row}" for row in range(12)] for name in ("train", "validation", "test")}
    labels = dict.fromkeys(texts, np.arange(12) % 2)
    read, linear_models = [], baseline.linear_models
    monkeypatch.setattr(baseline, "linear_models", lambda *given: read.append(given[1]) or linear_models(*given))
    monkeypatch.setattr(baseline, "MOST_STRINGS", 5)
    settings = [{"analyzer": analyzer, "ngram_range": (1, 2)}]
    baseline.bag_of(task(labels), texts, settings, OPTIONS)
    assert {split: weights.shape[1] for split, weights in read[0].items()} == dict.fromkeys(texts, 5)


def test_words_are_those_that_are_whole_and_known_those_of_another_text():
    assert baseline.in_words(["ab, ab!", "ab cd"]) == (1, 0.75)
    assert baseline.in_words(["ab a", "😀"]) == pytest.approx((1 / 3, 0))
    assert baseline.in_words(["a" * 30, "a" * 31]) == (0.5, 0)


def test_the_charts_and_the_warning_name_the_bag_that_there_is():
    assert plots.drawn({rivals.BAG_OF_CHARACTERS: 0, rivals.UNTRAINED: 0})[0] == rivals.BAG_OF_CHARACTERS
    assert plots.drawn({rivals.BAG_OF_WORDS: 0, rivals.UNTRAINED: 0})[0] == rivals.BAG_OF_WORDS
    scores = {"accuracy": 0.75, "interval": {"accuracy": {"low": 0.7, "high": 0.8}}}
    constant = {"accuracy": 0.5, "interval": {"accuracy": {"low": 0.45, "high": 0.55}}}
    over = dict.fromkeys((rivals.BAG_OF_CHARACTERS, rivals.STRONGEST_RIVAL), 0.01)
    tuned = dict.fromkeys(("gain", "gain_low", "gain_high"), over) | {"p_value": dict.fromkeys(over, 0.5)}
    baseline = {rivals.BAG_OF_CHARACTERS: scores, rivals.MAJORITY: constant}
    warning = verdict.leak_warning(baseline, tuned, SINGLE.main_scores["accuracy"])
    assert warning.startswith("Warning: bag_of_characters, which only counts strings of characters, scores 75.0%, and")
    assert warning.endswith("single strings of characters decide this task, or they reveal the label.")
