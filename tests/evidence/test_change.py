"""What changed since another revision, from the answers to each row."""

import numpy as np
import pandas as pd
import pytest

from stages.evidence import change, significance
from stages.problems.kinds import PROBLEMS

CASES = [(problem, key) for problem in PROBLEMS for key, main in PROBLEMS[problem].main_scores.items()]
NAMES = ["a", "b, c", "d"]
"""One with a comma, as those that separate the labels of a row."""


def predicted(problem: str, seed: int) -> tuple[np.ndarray, object]:
    """Labels, always the same, and predictions for 60 rows."""
    generator = np.random.default_rng(seed)
    labels = {
        "single_label": lambda: np.arange(60) % 3,
        "multi_label": lambda: (np.arange(180).reshape(60, 3) % 7 < 3).astype(np.float32),
        "regression": lambda: np.linspace(0, 9, 60).astype(np.float32),
    }[problem]()
    kind = PROBLEMS[problem]
    if problem == "regression":
        return labels, labels + generator.normal(size=60)
    true = np.eye(3)[labels] if problem == "single_label" else labels
    return labels, kind.decide(kind.outputs(generator.normal(size=(60, 3)) + 2 * true), [])


def table(problem: str, seed: int) -> pd.DataFrame:
    """data/predictions/test.csv, all of it as text."""
    kind, (labels, predictions) = PROBLEMS[problem], predicted(problem, seed)
    answers = kind.truth(labels, NAMES), kind.answers(predictions, NAMES)
    rows = {"row": range(60), "text": "some text", "label": answers[0], "tuned": answers[1]}
    return pd.DataFrame(rows).astype(str)


def between(problem: str, key: str, answers: pd.DataFrame | None, *, same_file: bool = True) -> change.Change:
    """The change from these answers to those of seed 1."""
    metrics = {key: 0.5, "interval": {key: {"low": 0.4, "high": 0.6}}, "classes": dict.fromkeys(NAMES)}
    return change.between(
        PROBLEMS[problem],
        PROBLEMS[problem].main_scores[key],
        before=metrics,
        after=metrics | {key: 0.7},
        answers=(answers, table(problem, 1)),
        same_file=same_file,
    )


@pytest.mark.parametrize(("problem", "key"), CASES)
def test_readable_answers_give_the_test_that_predictions_give_where_probabilities_do_not_count(problem, key):
    main, (labels, after), (_, before) = (
        PROBLEMS[problem].main_scores[key],
        predicted(problem, 1),
        predicted(problem, 2),
    )
    found = between(problem, key, table(problem, 2).sample(frac=1, random_state=0))
    assert (found.before, found.after, found.rows, found.same_rows) == (0.5, 0.7, 60, True)
    if key in ("log_loss", "roc_auc"):
        assert found.paired is None
    else:
        expected = significance.gain(main, labels=labels, tuned=after, rival=before)
        assert expected["gain"] != 0
        assert found.paired == pytest.approx(expected)


@pytest.mark.parametrize("column", ["row", "text", "label"])
def test_answers_to_other_rows_are_not_compared(column):
    earlier = table("single_label", 2)
    earlier.loc[3, column] = {"row": "70", "text": "another", "label": "d"}[column]
    for answers in (earlier, table("single_label", 2).iloc[1:]):
        found = between("single_label", "accuracy", answers)
        assert (found.same_rows, found.paired) == (False, None)


@pytest.mark.parametrize("same", [True, False])
def test_without_the_answers_the_file_of_the_rows_decides_whether_there_is_a_comparison(same):
    found = between("single_label", "accuracy", None, same_file=same)
    assert (found.same_rows, found.paired) == (same, None)
