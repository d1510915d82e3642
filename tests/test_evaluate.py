"""Accuracy and errors by length."""

import numpy as np
import pandas as pd
import pytest

from stages import evaluate


@pytest.mark.parametrize("lengths", [[256] * 6, [255, 256] * 3, [3, 4, 5, 60, 70, 80], [1, 1, 1, 1, 1, 9]])
def test_every_row_is_counted_by_length_however_alike_the_lengths_are(lengths):
    lengths = np.array(lengths)
    right = pd.DataFrame({"tuned": [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]})
    fifths, errors = evaluate.by_length(right, lengths), evaluate.errors_by_length(1 - right, lengths)
    assert fifths["rows"].sum() == errors["rows"].sum() == 6
    assert (fifths["tuned"] * fifths["rows"]).sum() == pytest.approx(4)
    assert errors["tuned"].sum() == 2
    assert fifths.index.max() == errors.index.max() == lengths.max()


def test_fifths_are_named_by_their_longest_row():
    fifths = evaluate.by_length(pd.DataFrame({"tuned": np.arange(10.0)}), np.arange(1, 11))
    assert fifths.index.tolist() == [2, 4, 6, 8, 10]
    assert fifths["tuned"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
