"""Suspect labels: those that were planted, and no others."""

import warnings

import numpy as np
import pandas as pd
import pytest

from stages.evidence import suspects
from stages.evidence.suspects import FOLDS, Labelled
from stages.scoring.kinds import SCORED

SINGLE, MULTI, REGRESSION = (SCORED[name] for name in ("single_label", "multi_label", "regression"))
NAMES = ["bad", "fine", "good"]
WIDTH = 6


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(classes, seed=0):
    """Features, (rows, WIDTH), that give each row's class away, most of the time."""
    noise = np.random.default_rng(seed).normal(size=(len(classes), WIDTH))
    noise[np.arange(len(classes)), classes] += 8
    return noise


def judged(problem, names, features, labels, *, others=None, seed=0):
    """What is said of the rows, and of other rows."""
    known = Labelled(features=features, labels=labels)
    return suspects.judge(problem, names, known=known, others=others or known, strength=1.0, seed=seed)


def first(table, count):
    """The positions of the most suspect labels."""
    return table[table["suspect"]].sort_values("quality").index[:count].tolist()


@pytest.fixture
def flipped():
    """Rows of three classes, of whose labels six are wrong."""
    classes = np.arange(300) % 3
    wrong = np.random.default_rng(1).choice(300, 6, replace=False)
    labels = classes.copy()
    labels[wrong] = (classes[wrong] + 1) % 3
    return drawn(classes), classes, labels, wrong


def test_planted_wrong_labels_come_first_with_the_right_label_beside_them(flipped):
    features, classes, labels, wrong = flipped
    table, _ = judged(SINGLE, NAMES, features, labels)
    assert len(table) == 300
    assert {*table["quality"].nsmallest(6).index} == {*wrong}
    assert set(first(table, 6)) <= {*wrong}
    assert 5 <= table["suspect"].sum() <= 9
    assert table.loc[wrong, "likely"].tolist() == [NAMES[label] for label in classes[wrong]]
    assert table["label"].tolist() == [NAMES[label] for label in labels]
    suspect = table[table["suspect"]]
    assert (suspect["likely_probability"] > suspect["label_probability"]).all()
    assert (suspect["quality"] < 0.5).all()
    assert table["quality"].between(0, 1).all()


def test_no_row_is_judged_by_a_model_that_was_trained_on_it():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 200)), np.arange(40) % 2  # any labels fit so many features
    known = Labelled(features=features, labels=labels)
    table, others = suspects.judge(SINGLE, NAMES[:2], known=known, others=known, strength=10.0, seed=0)
    assert (table["likely"] == table["label"]).mean() < 0.75
    assert (others["likely"] == others["label"]).mean() > 0.95, "four of five models have seen each of these rows"


def test_the_labels_of_other_rows_say_nothing_of_the_rows_that_are_known(flipped):
    features, classes, labels, _ = flipped
    others = drawn(classes[:60], seed=2)
    as_they_are, beside = judged(SINGLE, NAMES, features, labels, others=Labelled(features=others, labels=classes[:60]))
    changed = (classes[:60] + (np.arange(60) < 3)) % 3
    same, changed_beside = judged(SINGLE, NAMES, features, labels, others=Labelled(features=others, labels=changed))
    pd.testing.assert_frame_equal(same, as_they_are)
    assert not beside["suspect"].any()
    assert first(changed_beside, 4) == sorted(first(changed_beside, 4), key=changed_beside["quality"].get)
    assert set(first(changed_beside, 4)) == {0, 1, 2}


def test_the_same_seed_gives_the_same_table_and_another_one_other_folds(flipped):
    features, _, labels, _ = flipped
    (once, _), (again, _) = (judged(SINGLE, NAMES, features, labels) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    other, _ = judged(SINGLE, NAMES, features, labels, seed=1)
    assert not once["quality"].equals(other["quality"])


@pytest.mark.parametrize("sizes", [[50, 30, 20], [7, 3, 2], [4, 1], [1] * 9])
def test_folds_share_every_stratum_and_all_rows_evenly(sizes):
    strata = pd.Series(np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    folds = suspects.stratified_folds(strata, seed=0)
    assert np.ptp(np.bincount(folds, minlength=FOLDS)) <= 1
    for stratum in strata.unique():
        assert np.ptp(np.bincount(folds[strata == stratum], minlength=FOLDS)) <= 1


def test_labels_of_a_class_with_too_few_rows_are_not_judged(flipped):
    features, _, labels, _ = flipped
    labels = np.concatenate([labels, [3, 3]])
    features = np.concatenate([features, drawn(np.array([0, 1]), seed=3)])
    table, others = judged(SINGLE, [*NAMES, "rare"], features, labels)
    for part in (table, others):
        assert part.index[~part["judged"]].tolist() == [300, 301]
        assert not part.loc[[300, 301], "suspect"].any()
        assert (part.loc[[300, 301], "quality"] < 0.4).all()


def test_a_label_among_several_that_is_missing_or_too_much_is_found():
    has = np.random.default_rng(0).random((300, 3)) < 0.4
    features = np.random.default_rng(1).normal(size=(300, WIDTH))
    features[:, :3] += 8 * has
    labels = has.astype(np.float32)
    labels[7, 0], labels[20, 1] = 1 - labels[7, 0], 1 - labels[20, 1]
    rare = np.zeros((300, 1), dtype=np.float32)
    rare[5] = 1  # in four folds no row that is trained on lacks or has it
    table, _ = judged(MULTI, [*NAMES, "rare"], features, np.hstack([labels, rare]))
    assert {*table["quality"][table["judged"]].nsmallest(2).index} == {7, 20}
    assert first(table, 1) == [7]
    assert table["suspect"].sum() < 15
    assert table.loc[7, "likely"] == MULTI.truth(has[[7]], NAMES)[0]
    assert table["quality"].between(0, 1).all()
    assert (table["label_probability"] <= 1).all()


def test_a_number_far_from_what_models_of_other_rows_say_is_found():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, WIDTH))
    numbers = (100 * features[:, 0] + 10 * generator.normal(size=200)).astype(np.float32)
    right = numbers[[3, 90]].copy()
    numbers[[3, 90]] += [400, -250]
    table, _ = judged(REGRESSION, [], features, numbers)
    assert first(table, 2) == [3, 90]
    assert table["suspect"].sum() <= 6
    np.testing.assert_allclose(table.loc[[3, 90], "likely"], right, atol=60)
    assert not {"label_probability", "likely_probability"} & {*table}


def test_a_label_that_too_few_rows_have_to_learn_from_makes_no_row_suspect():
    generator, rare = np.random.default_rng(0), np.zeros((400, 12), dtype=np.float32)
    for column in range(12):
        rare[generator.choice(400, FOLDS - 1, replace=False), column] = 1
    frequent = (generator.random((400, 2)) < 0.5).astype(np.float32)
    features = np.hstack([8 * frequent, 2 * rare]) + generator.normal(size=(400, 14))
    labels = np.hstack([frequent, rare])
    names = [f"label {number:02}" for number in range(14)]
    table, others = judged(MULTI, names, features, labels)
    assert not table["suspect"].any() and not others["suspect"].any()
    assert table["judged"].all()
    learnt = np.full(14, True)
    assert MULTI.label_quality(labels, np.clip(0.9 * frequent.repeat(7, axis=1), 0.05, 1), learnt)["suspect"].any()


def test_all_numbers_are_judged_however_few():
    table, _ = judged(REGRESSION, [], drawn(np.arange(25) % 3), np.arange(25, dtype=np.float32) % 3)
    assert table["judged"].all()


@pytest.mark.parametrize("everywhere", [1, 0])
def test_a_label_that_all_rows_have_or_none_is_not_judged(everywhere):
    labels = (np.arange(80)[:, None] % 2 == [0, 1]).astype(np.float32)
    features = drawn(labels.argmax(axis=1))
    labels[7] = 1 - labels[7]
    known = np.hstack([labels, np.full((80, 1), everywhere, dtype=np.float32)])
    table, _ = judged(MULTI, NAMES, features, known)
    assert first(table, 1) == [7]
    assert table["suspect"].sum() < 5
    quality = MULTI.label_quality(known[:, 2:], np.full((80, 1), 0.5), np.array([True]))
    assert (quality["quality"] == 1).all()
    assert not quality["suspect"].any()


def test_where_a_single_label_can_be_judged_it_is():
    labels = (np.arange(80)[:, None] % 2 == [0]).astype(np.float32)
    features = drawn(labels[:, 0].astype(int))
    labels[7] = 1 - labels[7]
    known = np.hstack([labels, np.zeros((80, 1), dtype=np.float32)])
    table, _ = judged(MULTI, NAMES, features, known)
    assert first(table, 1) == [7]
    assert table["suspect"].sum() < 5


def test_numbers_that_are_predicted_exactly_are_not_suspect():
    numbers = np.arange(10, dtype=np.float32)
    quality = REGRESSION.label_quality(numbers, numbers.astype(np.float64), np.array([True]))
    assert not quality["suspect"].any()
    assert (quality["quality"] == 1).all()


def test_a_class_with_a_single_row_to_learn_from_is_not_judged():
    classes = np.array([0, 1] * 20 + [2])
    table, _ = judged(SINGLE, NAMES, drawn(classes), classes)
    assert table["judged"].tolist() == [True] * 40 + [False]
    assert not table["suspect"].iloc[-1]
