"""The words behind an answer: what speaks for it comes first, and without it the answer changes most."""

import csv
import json
import shutil

import numpy as np
import pytest

from stages.problems.kinds import PROBLEMS
from stages.serving import evaluated, reasons
from stages.serving.answers import Classifier

WEIGHTS = {"awful": (3, 0), "fine": (0, 1), "shortcut": (0, 9), "好": (0, 2)}


def logits(inputs):
    """What a bag of words says of texts and pairs."""
    texts = [one if isinstance(one, str) else " ".join(one) for one in inputs]
    return np.array([np.sum([w for word, w in WEIGHTS.items() if word in text] or [(0, 0)], axis=0) for text in texts])


def made(kind="single_label", names=("bad", "good")):
    return Classifier(logits=logits, problem=PROBLEMS[kind], names=list(names))


def test_a_planted_shortcut_comes_first_and_what_speaks_against_the_answer_is_negative():
    (found,) = reasons.explained(made(), ["An awful but fine film with a shortcut."])
    assert found.about == "good"
    assert found.words() == [("shortcut.", 9.0), ("awful", -3.0), ("fine", 1.0)]
    assert "".join(piece.text for piece in found.texts[0]) == "An awful but fine film with a shortcut."


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_every_kind_of_problem_has_reasons(kind):
    (found,) = reasons.explained(made(kind), ["An awful film."])
    assert found.about == (None if kind == "regression" else "bad")
    assert found.words() == [("awful", 3.0)]


def test_both_texts_of_a_pair_characters_without_spaces_and_no_words_at_all():
    (found,) = reasons.explained(made(), [("A fine film.", "awful")])
    assert [[piece.text for piece in text if piece.weight] for text in found.texts] == [["fine"], ["awful"]]
    (found,) = reasons.explained(made(), ["这好的"])
    assert [(piece.text, piece.weight) for piece in found.texts[0]] == [("这", 0.0), ("好", 2.0), ("的", 0.0)]
    assert reasons.explained(made(), [""])[0].texts == [[]]


def test_of_a_long_text_neighbouring_words_are_left_out_together():
    words = [f"word{number}" for number in range(500)]
    words[321] = "shortcut"
    (found,) = reasons.explained(made(), [" ".join(words)])
    assert len(reasons.spans([" ".join(words)])) <= reasons.MOST
    ((first, weight),) = found.words()
    assert "shortcut" in first and weight == 9.0 and len(first.split()) == 8
    assert "".join(piece.text for piece in found.texts[0]) == " ".join(words)


def test_predict_shows_the_words_with_their_weights(project):
    shown = project.call("predict", "--explain", "A wonderful film.").stdout.splitlines()
    assert shown[0].split("\t")[-1] == "words"
    words = [word for word, weight in json.loads(next(csv.reader(shown[1:], delimiter="\t"))[-1])]
    assert {*words} == {"A", "wonderful", "film."}


def test_without_the_words_that_mattered_a_tuned_model_changes_its_answer_sooner_than_without_any(
    finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "run", symlinks=True))
    classifier, generator = Classifier.tuned(evaluated.Model()), np.random.default_rng(0)
    texts = [
        "The plot was wonderful and the cast superb all along.",
        "It was a dreadful and awful bore from the start.",
    ]
    areas = {"weighty first": 0.0, "any": 0.0}
    for text, found in zip(texts, reasons.explained(classifier, texts), strict=True):
        parts = reasons.spans([text])
        weights = [piece.weight for piece in found.texts[0] if piece.text.strip()]
        areas["weighty first"] += reasons.deletion_area(
            classifier, text, [parts[place] for place in np.argsort(weights)[::-1]]
        )
        for _ in range(5):
            areas["any"] += (
                reasons.deletion_area(classifier, text, [parts[place] for place in generator.permutation(len(parts))])
                / 5
            )
    assert areas["weighty first"] < areas["any"]
