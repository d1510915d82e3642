"""The scores by which models can be compared: each as scikit-learn has it, and which one is chosen."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics
from sklearn.utils.class_weight import compute_sample_weight

from stages.problems.kinds import PROBLEMS

SINGLE, MULTI, NUMBER = (PROBLEMS[name] for name in ("single_label", "multi_label", "regression"))
AREA = {"multi_class": "ovr", "average": "macro"}

OF_CLASSES = {
    "accuracy": lambda labels, p: metrics.accuracy_score(labels, p.argmax(axis=1)),
    "f1_macro": lambda labels, p: metrics.f1_score(
        labels, p.argmax(axis=1), labels=np.unique(labels), average="macro", zero_division=0
    ),
    "mcc": lambda labels, p: metrics.matthews_corrcoef(labels, p.argmax(axis=1)),
    "roc_auc": lambda labels, p: metrics.roc_auc_score(labels, p[:, 1] if p.shape[1] == 2 else p, **AREA),
    "log_loss": lambda labels, p: metrics.log_loss(labels, p, labels=np.arange(p.shape[1])),
}

OF_LABELS = {
    "f1_samples": lambda has, p, given: metrics.f1_score(has, given, average="samples", zero_division=1),
    "accuracy": lambda has, p, given: metrics.accuracy_score(has, given),
    "f1_macro": lambda has, p, given: metrics.f1_score(has[:, :-1], given[:, :-1], average="macro", zero_division=0),
    "roc_auc": lambda has, p, given: metrics.roc_auc_score(has[:, :-1], p[:, :-1]),  # no row has the last
    "log_loss": lambda has, p, given: metrics.log_loss(has.ravel(), p.ravel(), labels=[0, 1]),
}


def test_every_kind_of_problem_has_the_scores_that_are_checked_here():
    assert list(SINGLE.main_scores) == list(OF_CLASSES)
    assert list(MULTI.main_scores) == list(OF_LABELS)
    assert list(NUMBER.main_scores) == ["mae"]
    for problem in PROBLEMS.values():
        assert all(key == main.key for key, main in problem.main_scores.items())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("key", OF_CLASSES)
def test_a_score_of_classes_is_scikit_learns(key, classes, seed):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(classes, size=50)])
    logits = generator.normal(size=(len(labels), classes)).round(1) + np.eye(classes)[labels]  # with ties
    logits[:, -1] -= 9 * (seed % 2)  # in some cases the last class is never the answer
    probabilities = softmax(logits, axis=1)
    found = SINGLE.main_scores[key].value(labels, probabilities)
    assert found == pytest.approx(OF_CLASSES[key](labels, probabilities), abs=1e-12)
    assert isinstance(found, float)


@pytest.mark.parametrize("key", OF_CLASSES)
@pytest.mark.parametrize("classes", [2, 4])
def test_what_each_row_adds_is_found_as_by_leaving_it_out(key, classes):
    generator = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), np.arange(1, classes), generator.integers(1, classes, size=40)])
    probabilities = softmax(generator.normal(size=(len(labels), classes)).round(1) + np.eye(classes)[labels], axis=1)
    main, rows = SINGLE.main_scores[key], np.arange(len(labels))
    left = [main.value(labels[rows != row], probabilities[rows != row]) for row in rows]  # one class has a single row
    each = len(rows) * main.value(labels, probabilities) - (len(rows) - 1) * np.array(left)
    np.testing.assert_allclose(main.of_each(labels, probabilities), each, atol=1e-9)
    if key in ("accuracy", "log_loss"):
        np.testing.assert_allclose(each, main.of_rows(labels, probabilities), atol=1e-9)


def test_what_each_row_adds_varies_as_the_score_does():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=300)
    probabilities = softmax(generator.normal(size=(300, 3)) + np.eye(3)[labels], axis=1)
    main, picks = SINGLE.main_scores["f1_macro"], generator.integers(300, size=(400, 300))
    found = main.of_each(labels, probabilities)
    assert found.mean() == pytest.approx(main.value(labels, probabilities), abs=0.02)
    resampled = [main.value(labels[rows], probabilities[rows]) for rows in picks]
    assert found.std() / np.sqrt(300) == pytest.approx(np.std(resampled), rel=0.2)


def test_a_class_without_rows_counts_only_as_a_wrong_answer():
    labels, probabilities = np.array([0, 0, 1, 1]), np.eye(3)[[0, 2, 1, 1]]
    for key in ("f1_macro", "mcc"):
        assert SINGLE.main_scores[key].value(labels, probabilities) == pytest.approx(
            OF_CLASSES[key](labels, probabilities)
        )


def test_a_constant_answer_and_an_answer_that_is_certain_and_wrong_have_finite_scores():
    labels, probabilities = np.array([0, 1, 1]), np.tile([1.0, 0.0], (3, 1))
    scores = {key: main.value(labels, probabilities) for key, main in SINGLE.main_scores.items()}
    assert (scores["mcc"], scores["roc_auc"]) == (0, 0.5)
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities))
    assert SINGLE.main_scores["roc_auc"].value(labels[1:], probabilities[1:]) == 0.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("key", OF_LABELS)
def test_a_score_of_several_labels_is_scikit_learns(key, seed):
    generator = np.random.default_rng(seed)
    has = (generator.random((40, 4)) < 0.4).astype(np.float32)
    has[:, -1] = 0
    probabilities = expit(generator.normal(size=has.shape).round(1) + has)
    predictions = MULTI.decide(probabilities, generator.random(4).tolist())
    expected = OF_LABELS[key](has, probabilities, predictions.given)
    assert MULTI.main_scores[key].value(has, predictions) == pytest.approx(expected, abs=1e-12)


def test_the_error_of_numbers_is_scikit_learns():
    labels, found = np.array([1, 2.5, -3], dtype=np.float32), np.array([2, 2.5, 1.25])
    assert NUMBER.main_scores["mae"].value(labels, found) == metrics.mean_absolute_error(labels, found)
    assert NUMBER.main_scores["mae"].sign == -1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([50, 50], "accuracy"),
        ([299, 100], "accuracy"),
        ([300, 100], "f1_macro"),
        ([100, 80, 34], "accuracy"),
        ([100, 80, 33], "f1_macro"),
        ([2000, 1], "f1_macro"),
    ],
)
def test_auto_is_accuracy_or_macro_f1_from_three_times_the_rows_on(rows, expected):
    labels = np.repeat(np.arange(len(rows)), rows)
    assert SINGLE.main_score("auto", labels).key == expected
    why = SINGLE.why_main({str(index): count for index, count in enumerate(rows)})
    assert f"has {max(rows):,} training rows, the rarest {min(rows):,}; from 3 times" in why


def test_a_named_score_is_taken_whatever_the_rows_and_other_problems_have_one_default():
    unbalanced = np.repeat([0, 1], [90, 10])
    assert SINGLE.main_score("mcc", unbalanced) is SINGLE.main_scores["mcc"]
    assert MULTI.main_score("auto", np.eye(4)).key == "f1_samples"
    assert NUMBER.main_score("auto", np.arange(4.0)).key == "mae"
    assert MULTI.why_main({"a": 9, "b": 1}) == NUMBER.why_main({"mean": 3.0}) == ""


@pytest.mark.parametrize("key", OF_CLASSES)
def test_the_validation_rows_are_scored_by_the_main_score(key):
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(3, size=30), generator.normal(size=(30, 3)).astype(np.float32)
    found = SINGLE.validate(logits, labels, unit=1.0, main=SINGLE.main_scores[key])
    assert set(found) == {key, "temperature", "log_loss"} | ({"weighted_log_loss"} if key == "f1_macro" else set())
    probabilities = softmax(logits.astype(float) / found["temperature"], axis=1)
    if key == "f1_macro":
        weights = np.sqrt(compute_sample_weight("balanced", labels))
        weighted = metrics.log_loss(labels, probabilities, sample_weight=weights)
        assert found["weighted_log_loss"] == pytest.approx(weighted)
    assert found[key] == pytest.approx(OF_CLASSES[key](labels, probabilities))


def test_macro_f1_of_single_labels_alone_weighs_rare_classes():
    weigh = [
        (problem, key)
        for problem in PROBLEMS.values()
        for key in problem.main_scores
        if problem.weighs_rare_classes(problem.main_scores[key])
    ]
    assert weigh == [(SINGLE, "f1_macro")]


@pytest.mark.parametrize("absent", [0, 1, 6])
def test_macro_f1_is_over_the_labels_that_rows_have(absent):
    generator, macro_f1 = np.random.default_rng(absent), MULTI.main_scores["f1_macro"]
    labels = (generator.random((40, 6)) < 0.4).astype(np.float32)
    given, labels[:, 6 - absent :] = labels.copy(), 0
    perfect, worse = (MULTI.decide(one.astype(float), []) for one in (labels, given))
    assert macro_f1.value(labels, perfect) == (absent < 6)
    assert macro_f1.value(labels, worse) == (absent < 6)  # a label that no row has is left out, given or not
    assert np.isfinite(macro_f1.of_each(labels, perfect)).all()
