"""The promise of `evaluate.target_accuracy` on made-up probabilities, and the sets of classes compared with MAPIE's."""

import json

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from scipy import stats
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from stages.common import files
from stages.common.errors import PipelineError
from stages.evidence import abstention
from stages.evidence.abstention import Abstention, answer_threshold, set_threshold

TARGET = 0.9


def drawn(generator: np.random.Generator, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities, (rows, classes), and labels that follow flatter ones: the model is too sure of itself."""
    logits = generator.normal(scale=2, size=(rows, classes))
    uniform = generator.random((rows, 1))
    labels = (softmax(0.7 * logits, axis=1).cumsum(axis=1) < uniform).sum(axis=1)
    return softmax(logits, axis=1), np.minimum(labels, classes - 1)


@pytest.mark.parametrize(
    ("rows", "noise", "least"), [(150, 0.0, 0.1), (400, 0.0, 0.5), (400, 0.04, 0.08), (1000, 0.02, 0.5)]
)
def test_at_most_one_promise_in_twenty_is_broken_and_answers_are_given(rows, noise, least):
    """Of an answer with the logit z, a share of expit(|z|) is right, less `noise`."""
    generator, simulations, everyone = np.random.default_rng(0), 400, np.random.default_rng(1)
    strengths = np.sort(np.abs(everyone.normal(scale=3, size=200_000)))
    accuracy_above = (np.cumsum((expit(strengths) * (1 - noise))[::-1]) / np.arange(1, 200_001))[::-1]
    broken = answered = 0
    for _ in range(simulations):
        strength = np.abs(generator.normal(scale=3, size=rows))
        correct = generator.random(rows) < expit(strength) * (1 - noise)
        threshold = answer_threshold(expit(strength), correct, TARGET)
        if threshold < 1:
            first = np.searchsorted(expit(strengths), threshold, side="right")
            answered += (len(strengths) - first) / len(strengths)
            broken += accuracy_above[first] < TARGET
    assert stats.binomtest(int(broken), simulations, 0.05, alternative="greater").pvalue > 0.01
    assert answered / simulations > least


def test_every_answer_is_given_where_all_are_right_and_none_where_all_are_wrong_or_rows_are_few():
    probability = np.linspace(0.5, 1, 200)
    assert answer_threshold(probability, np.ones(200, dtype=bool), TARGET) == abstention.EVERYTHING
    assert answer_threshold(probability, np.zeros(200, dtype=bool), TARGET) == abstention.NOTHING
    assert answer_threshold(probability[:20], np.ones(20, dtype=bool), TARGET) == abstention.NOTHING


def test_the_lowest_proven_threshold_is_the_one_of_the_binomial_bound():
    """The last 400 of 1,000 rows are wrong; every one that is let in makes the bound worse."""
    probability = np.linspace(1, 0.5, 1000)
    correct = np.arange(1000) < 600
    allowed = max(
        rows for rows in range(500, 1000) if stats.binom.cdf(rows - 600, rows, 1 - TARGET) <= 0.05 / 4 or rows <= 600
    )
    threshold = answer_threshold(probability, correct, TARGET)
    assert (probability > threshold).sum() == allowed
    bound = stats.binomtest(600, allowed, alternative="greater").proportion_ci(1 - 0.05 / 4, method="exact").low
    assert bound >= TARGET


def test_rows_of_equal_probability_are_answered_together_or_not_at_all():
    probability = np.repeat([0.9, 0.6], [300, 100])
    correct = np.r_[np.ones(300, dtype=bool), np.zeros(100, dtype=bool)]
    assert answer_threshold(probability, correct, TARGET) == 0.6
    assert answer_threshold(np.full(400, 0.9), correct, TARGET) == abstention.NOTHING


class Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its probabilities, for MAPIE."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> "Given":
        self.classes_, self.n_features_in_ = np.arange(self.classes), self.classes
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return inputs.argmax(axis=1)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("rows", "classes"), [(21, 3), (99, 4), (1000, 20)])
def test_the_sets_are_those_of_mapie(rows, classes, target):
    generator = np.random.default_rng(rows)
    probabilities, labels = drawn(generator, rows, classes)
    others, _ = drawn(generator, 500, classes)
    model = Given(classes).fit(probabilities, labels)
    conformal = SplitConformalClassifier(model, confidence_level=target, conformity_score="lac", prefit=True)
    conformal.conformalize(probabilities, labels)
    expected = conformal.predict_set(others)[1][:, :, 0]
    assert np.array_equal(others >= set_threshold(probabilities, labels, target), expected)


def test_sets_have_the_true_class_as_often_as_promised_and_no_more_often_than_needed():
    generator, shares = np.random.default_rng(0), []
    for _ in range(300):
        probabilities, labels = drawn(generator, 600, 5)
        threshold = set_threshold(probabilities[:200], labels[:200], TARGET)
        shares.append((probabilities[200:] >= threshold)[np.arange(400), labels[200:]].mean())
    assert TARGET - 0.005 < np.mean(shares) < TARGET + 1 / 201 + 0.005


def test_with_too_few_rows_every_class_is_in_the_set():
    probabilities, labels = drawn(np.random.default_rng(0), 18, 4)
    assert set_threshold(probabilities, labels, 0.95) == 0


@pytest.fixture
def adapter(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    return tmp_path


def test_what_is_saved_is_loaded_for_the_same_adapter_and_refused_for_another(adapter):
    path = adapter / "abstention.json"
    assert Abstention.load(path, adapter) is None
    abstention.save(path, None)
    assert json.loads(path.read_text()) == {}
    assert Abstention.load(path, adapter) is None
    probabilities, labels = drawn(np.random.default_rng(0), 300, 3)
    found = Abstention.calibrated(probabilities, labels, target=TARGET, adapter=adapter)
    abstention.save(path, found)
    assert Abstention.load(path, adapter) == found
    for number in ("NaN", "-Infinity", "1e999"):
        path.write_text(json.dumps(vars(found) | {"threshold": 7777}).replace("7777", number))
        with pytest.raises(PipelineError, match=r"abstention.json: expected what .* damaged \(Out of range float"):
            Abstention.load(path, adapter)
    abstention.save(path, found)
    (adapter / "run.json").write_text('{"trained": "again"}')
    with pytest.raises(PipelineError, match=r"found those for another one; .* dvc repro"):
        Abstention.load(path, adapter)


def made(**values: float | None) -> Abstention:
    known = {"target": 0.9, "confidence": 0.95, "rows": 300, "run": ""}
    return Abstention(**known | {"threshold": 0.7, "set_threshold": None} | values)


def test_the_columns_say_where_to_abstain_and_which_classes_are_possible():
    probabilities = np.array([[0.8, 0.15, 0.05], [0.5, 0.4, 0.1], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]])
    columns = made(set_threshold=0.4).columns(probabilities, ["a", "b", "c"])
    assert columns["abstain"].tolist() == [False, True, True, True]
    assert columns["set"] == ["a", "a, b", "a", "a"]
    assert made(set_threshold=0.75).columns(probabilities, ["a", "b", "c"])["set"][1] == "(none)"
    quoted = made(set_threshold=0.4).columns(probabilities, ['a, "b"', "(none)", "c"])["set"]
    assert quoted[:2] == ['"a, ""b"""', '"a, ""b""", "(none)"']
    assert list(made().columns(probabilities[:, :2], ["a", "b"])) == ["abstain"]


def test_the_promises_are_measured_on_the_answered_rows_alone():
    probabilities = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.4, 0.35, 0.25], [0.2, 0.2, 0.6]])
    labels = np.array([0, 0, 1, 2])
    values = made(set_threshold=0.35).measured(probabilities, labels)
    assert values["sets"] == {"coverage": 0.75, "mean_size": 1.25}
    low, high = stats.binomtest(1, 2).proportion_ci(method="wilson")
    expected = {"target": 0.9, "rows": 300, "threshold": 0.7, "answered": 0.5, "accuracy": 0.5}
    assert values["abstention"] == pytest.approx(expected | {"low": low, "high": high})
    nearly = made(threshold=1 - 1e-7, set_threshold=None).measured(np.array([[1.0, 0.0], [0.5, 0.5]]), labels[:2])
    assert files.rounded(nearly)["abstention"]["threshold"] < abstention.NOTHING
    assert nearly["abstention"]["answered"] == 0.5
    nothing = made(threshold=abstention.NOTHING).measured(probabilities, labels)
    assert nothing == {"abstention": {"target": 0.9, "rows": 300, "threshold": 1.0, "answered": 0.0}}
