"""How the rivals' linear models are chosen on the validation rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from stages import baseline
from stages.problems.single_label import log_losses
from stages.scoring.kinds import SCORED
from stages.scoring.params import Baseline
from stages.scoring.scored import fit

SINGLE = SCORED["single_label"]
OPTIONS = Baseline(batch_size=8, regularization=[0.03, 0.1, 0.3, 1.0], ngrams=[1])
ROWS = {"train": 120, "validation": 300, "test": 300}


def drawn(share, seed):
    """Inputs, and labels of which this share is 1 and is told apart by chance only in part."""
    generator = np.random.default_rng(seed)
    labels = {name: (generator.permutation(rows) < share * rows).astype(int) for name, rows in ROWS.items()}
    inputs = {name: generator.normal(size=(len(of), 10)) + 0.6 * of[:, None] for name, of in labels.items()}
    return inputs, labels


def task(labels, main):
    return baseline.Task(problem=SINGLE, names=["no", "yes"], main_score=SINGLE.main_scores[main], labels=labels)


def chosen(inputs, labels, main):
    """The linear probe that is chosen."""
    return baseline.best(task(labels, main), baseline.linear_probes(task(labels, main), inputs, OPTIONS))


def models(inputs, labels, power):
    """A logistic regression for each strength, and its loss on the validation rows, with classes weighted alike."""
    scaler = StandardScaler().fit(inputs["train"])
    for strength in OPTIONS.regularization:
        model = LogisticRegression(C=strength, solver="newton-cg", max_iter=1000)
        model.fit(scaler.transform(inputs["train"]), labels["train"], sample_weight=weights(labels["train"], power))
        outputs = {name: model.predict_proba(scaler.transform(rows)) for name, rows in inputs.items()}
        losses = log_losses(labels["validation"], outputs["validation"])
        yield np.average(losses, weights=weights(labels["validation"], power)), outputs


def weights(labels, power):
    return compute_sample_weight("balanced", labels) ** power


def lowest(inputs, labels, power):
    return min(models(inputs, labels, power), key=lambda model: model[0])[1]


@pytest.mark.parametrize(("share", "seed", "better"), [(0.15, 9, 0), (0.08, 5, 0.5), (0.15, 10, 1)])
def test_where_macro_f1_decides_rows_of_a_rare_class_weigh_as_it_is_best_on_the_validation_rows(share, seed, better):
    inputs, labels = drawn(share, seed)
    by_power = {power: lowest(inputs, labels, power) for power in (0, 0.5, 1)}

    def macro_f1(power):
        return f1_score(labels["validation"], by_power[power]["validation"].argmax(axis=1), average="macro")

    assert max(by_power, key=macro_f1) == better
    np.testing.assert_allclose(chosen(inputs, labels, "f1_macro").outputs["test"], by_power[better]["test"])


@pytest.mark.parametrize("main", ["accuracy", "mcc", "log_loss"])
def test_where_another_score_decides_every_row_counts_alike(main):
    inputs, labels = drawn(0.08, seed=1)
    np.testing.assert_allclose(chosen(inputs, labels, main).outputs["test"], lowest(inputs, labels, 0)["test"])


def test_of_the_models_those_that_count_every_row_alike_are_plain():
    inputs, labels = drawn(0.08, seed=1)
    probes = list(baseline.linear_probes(task(labels, "f1_macro"), inputs, OPTIONS))
    assert len(probes) == 3 * len(OPTIONS.regularization)
    assert all(probe.plain == (probe.weighting == 0) for probe in probes)


@pytest.mark.filterwarnings("error")
def test_a_label_that_all_rows_have_or_none_is_fitted_without_a_warning():
    inputs = np.random.default_rng(0).normal(size=(40, 3))
    labels = np.column_stack([inputs[:, 0] > 0, np.ones(40), np.zeros(40)]).astype(np.float32)
    found = SCORED["multi_label"].fitted(fit(SCORED["multi_label"].linear(1.0), inputs, labels), inputs, [])
    assert (found[:, 1:] == [1, 0]).all()


@pytest.mark.parametrize("which", [0, 1])
def test_numbers_near_the_largest_that_are_allowed_have_rivals(which):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(60, 3))
    numbers = (2.5e38 + 1e37 * inputs[:, 0]).astype(np.float32)
    model = fit(SCORED["regression"].candidates(1.0)[which], inputs, numbers)
    assert np.isfinite(model.predict(inputs)).all()
