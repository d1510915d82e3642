"""The words behind an answer: what speaks for it comes first, and without it the answer changes most."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks.reasons import deletion_area
from stages import evaluate
from stages.problems.kinds import PROBLEMS
from stages.scoring.kinds import SCORED
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
    (found,) = reasons.reasons_for(made(), ["An awful but fine film with a shortcut."])
    assert found.about == "good"
    assert found.words() == [("shortcut.", 9.0), ("awful", -3.0), ("fine", 1.0)]
    assert "".join(piece.text for piece in found.texts[0]) == "An awful but fine film with a shortcut."


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_every_kind_of_problem_has_reasons(kind):
    (found,) = reasons.reasons_for(made(kind), ["An awful film."])
    assert found.about == (None if kind == "regression" else "bad")
    assert found.words() == [("awful", 3.0)]


def test_both_texts_of_a_pair_characters_without_spaces_and_no_words_at_all():
    (found,) = reasons.reasons_for(made(), [("A fine film.", "awful")])
    assert [[piece.text for piece in text if piece.weight] for text in found.texts] == [["fine"], ["awful"]]
    (found,) = reasons.reasons_for(made(), ["这好的"])
    assert [(piece.text, piece.weight) for piece in found.texts[0]] == [("这", 0.0), ("好", 2.0), ("的", 0.0)]
    assert reasons.reasons_for(made(), [""])[0].texts == [[]]


def test_a_text_and_what_is_left_without_each_word_are_answered_at_once_so_that_every_core_has_a_batch():
    asked = []

    def noted(inputs):
        asked.append(len(inputs))
        return logits(inputs)

    classifier = Classifier(logits=noted, problem=PROBLEMS["single_label"], names=["bad", "good"])
    assert reasons.reasons_for(classifier, ["word " * 40 + "shortcut"])[0].words() == [("shortcut", 9.0)]
    assert asked == [42]


def test_of_a_long_text_neighbouring_words_are_left_out_together():
    words = [f"word{number}" for number in range(500)]
    words[321] = "shortcut"
    (found,) = reasons.reasons_for(made(), [" ".join(words)])
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
    for text, found in zip(texts, reasons.reasons_for(classifier, texts), strict=True):
        parts = reasons.spans([text])
        weights = [piece.weight for piece in found.texts[0] if piece.text.strip()]
        areas["weighty first"] += deletion_area(classifier, text, [parts[place] for place in np.argsort(weights)[::-1]])
        for _ in range(5):
            areas["any"] += (
                deletion_area(classifier, text, [parts[place] for place in generator.permutation(len(parts))]) / 5
            )
    assert areas["weighty first"] < areas["any"]


GIVEN = pd.DataFrame({"row": [3, 5, 8, 9], "text": ["fine", "A fine film.", "A fine but awful shortcut.", "awful"]})


def test_wrong_answers_have_the_words_that_speak_most_for_them_the_most_confident_first(monkeypatch):
    monkeypatch.setattr(Classifier, "tuned", lambda model: made())
    arrays = np.array([1, 0, 0, 1]), np.array([[0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.0, 1.0]])
    found = evaluate.words_of_errors(SCORED["single_label"], *arrays, GIVEN)
    assert found.tolist() == ["", "fine", "shortcut", ""]
    monkeypatch.setattr(evaluate, "EXPLAINED", 1)
    found = evaluate.words_of_errors(SCORED["single_label"], *arrays, GIVEN)
    assert found.tolist() == ["", "", "shortcut", ""]


@pytest.mark.parametrize(("label", "words"), [(1.0, "shortcut"), (9.0, "awful")])
def test_words_of_a_number_speak_for_it_being_too_high_or_too_low(label, words, monkeypatch):
    one = Classifier(
        logits=lambda inputs: logits(inputs) @ [[-1], [1]], problem=PROBLEMS["regression"], names=["stars"]
    )
    monkeypatch.setattr(Classifier, "tuned", lambda model: one)
    arrays = np.array([1.0, 1.0, label, 1.0]), np.array([1.0, 1.0, 5.0, 1.0])
    found = evaluate.words_of_errors(SCORED["regression"], *arrays, GIVEN)
    assert found.tolist() == ["", "", words, ""]


def test_words_that_speak_hardly_for_an_answer_are_left_out_and_punctuation_is_no_part_of_a_word():
    (found,) = reasons.reasons_for(made(), ["A shortcut, fine (好) but awful!"])
    assert found.speaking() == ["shortcut", "好"]
    assert found.speaking(-1) == ["awful"]
    assert reasons.reasons_for(made(), ["nothing"])[0].speaking() == []


def test_a_run_without_errors_asks_the_model_nothing(monkeypatch):
    monkeypatch.setattr(Classifier, "tuned", None)
    given, right = pd.DataFrame({"text": ["a", "b"]}), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert evaluate.words_of_errors(SCORED["single_label"], np.array([0, 1]), right, given).tolist() == ["", ""]


def test_the_words_of_a_finished_run_stand_beside_its_wrong_answers_alone(finished):
    table = pd.read_csv(finished / "data/predictions/test.csv", keep_default_na=False)
    wrong, explained = table["label"] != table["tuned"], table["words"] != ""
    assert explained.any()
    assert not (explained & ~wrong).any()
    assert explained.sum() <= min(evaluate.EXPLAINED, wrong.sum())
