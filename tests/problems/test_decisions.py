"""Several labels per row: their probabilities, and which of them a row is given."""

import itertools

import numpy as np
import pytest

from stages.problems.kinds import PROBLEMS
from stages.problems.multi_label import Decisions

MULTI = PROBLEMS["multi_label"]


def test_the_probability_of_an_answer_is_that_of_all_its_labels():
    probabilities = np.array([[0.9, 0.2], [0.6, 0.7]])
    predictions = MULTI.decide(probabilities, [0.5, 0.8])
    np.testing.assert_allclose(MULTI.confidence(predictions)["probability"], [0.9 * 0.8, 0.6 * 0.3])


def test_predictions_survive_as_a_column_and_are_taken_by_row():
    decided = MULTI.decide(np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.3]]), [0.5, 0.25])
    again = MULTI.predictions(MULTI.column(decided))
    assert isinstance(again, Decisions)
    for found in (again, decided[np.arange(3)]):
        np.testing.assert_array_equal(found.probabilities, decided.probabilities)
        np.testing.assert_array_equal(found.given, [[True, False], [True, True], [False, True]])
    assert len(decided[np.array([2, 2])]) == 2


@pytest.mark.parametrize(
    "names", [["Food", "Food, drinks", "Rooms"], ["a", "a, b", "b"], ["a, b", "b, c", "c"], ["(none)", 'say "x"', '"']]
)
def test_labels_are_found_in_an_answer_whatever_their_names(names):
    every = np.array(list(itertools.product([0, 1], repeat=3)))
    answers = MULTI.truth(every, names)
    assert len(set(answers)) == 8
    assert MULTI.labels_of(answers, names).tolist() == every.tolist()
    assert MULTI.labels_of(list(answers), names).tolist() == every.tolist()


def test_a_plain_name_stands_in_an_answer_as_it_is():
    assert MULTI.truth(np.array([[1, 1, 0], [0, 0, 0]]), ["Food", "Bed & bath", "x"]).tolist() == [
        "Food, Bed & bath",
        "(none)",
    ]
