"""The main score and errors by length."""

import numpy as np
import pandas as pd
import pytest

from stages import evaluate
from stages.problems.kinds import PROBLEMS

SINGLE = PROBLEMS["single_label"]
ACCURACY, MAE = SINGLE.main_scores["accuracy"], PROBLEMS["regression"].main_scores["mae"]


@pytest.mark.parametrize("lengths", [[256] * 6, [255, 256] * 3, [3, 4, 5, 60, 70, 80], [1, 1, 1, 1, 1, 9]])
def test_every_row_is_counted_by_length_however_alike_the_lengths_are(lengths):
    lengths = np.array(lengths)
    right = np.array([1, 0, 1, 1, 0, 1])
    fifths = evaluate.by_length(ACCURACY, np.zeros(6, dtype=int), {"tuned": np.eye(2)[1 - right]}, lengths)
    errors = evaluate.errors_by_length(pd.DataFrame({"tuned": 1 - right}), lengths)
    assert fifths["rows"].sum() == errors["rows"].sum() == 6
    assert (fifths["tuned"] * fifths["rows"]).sum() == pytest.approx(4)
    assert errors["tuned"].sum() == 2
    assert fifths.index.max() == errors.index.max() == lengths.max()


def test_fifths_are_named_by_their_longest_row_and_have_the_main_score_of_their_rows():
    lengths, found = np.arange(1, 11), np.arange(10.0)
    fifths = evaluate.by_length(MAE, np.zeros(10), {"tuned": found, "median": -2 * found}, lengths)
    assert fifths.index.tolist() == [2, 4, 6, 8, 10]
    assert fifths["tuned"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert fifths["median"].tolist() == [1.0, 5.0, 9.0, 13.0, 17.0]
    assert fifths["rows"].tolist() == [2] * 5


@pytest.mark.parametrize("key", SINGLE.main_scores)
def test_every_main_score_is_finite_even_in_a_fifth_of_one_class(key):
    labels, lengths = np.repeat([0, 1], 5), np.arange(10)
    predictions = SINGLE.outputs(np.random.default_rng(0).normal(size=(10, 2)))
    fifths = evaluate.by_length(SINGLE.main_scores[key], labels, {"tuned": predictions}, lengths)
    assert np.isfinite(fifths["tuned"]).all()
