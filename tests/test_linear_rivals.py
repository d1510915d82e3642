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

SINGLE = SCORED["single_label"]
OPTIONS = Baseline(batch_size=8, regularization=[0.001, 0.1], ngrams=[1])
ROWS = {"train": 600, "validation": 300, "test": 300}


def drawn(share, seed):
    """Inputs, and labels of which this share is 1 and is told apart by chance only in part."""
    generator = np.random.default_rng(seed)
    labels = {name: (generator.permutation(rows) < share * rows).astype(int) for name, rows in ROWS.items()}
    inputs = {name: generator.normal(size=(len(of), 10)) + 0.6 * of[:, None] for name, of in labels.items()}
    return inputs, labels


def task(labels, main):
    return baseline.Task(problem=SINGLE, names=["no", "yes"], main_score=SINGLE.main_scores[main], labels=labels)


def models(inputs, labels, weight):
    """A logistic regression for each strength, and its loss on the validation rows, weighted alike."""
    scaler = StandardScaler().fit(inputs["train"])
    for strength in OPTIONS.regularization:
        model = LogisticRegression(C=strength, class_weight=weight, solver="newton-cg", max_iter=1000)
        model.fit(scaler.transform(inputs["train"]), labels["train"])
        outputs = {name: model.predict_proba(scaler.transform(rows)) for name, rows in inputs.items()}
        losses = log_losses(labels["validation"], outputs["validation"])
        weights = compute_sample_weight(weight, labels["validation"])
        yield np.average(losses, weights=weights), outputs


def lowest(inputs, labels, weight):
    return min(models(inputs, labels, weight), key=lambda model: model[0])[1]


@pytest.mark.parametrize(("seed", "better"), [(0, None), (1, "balanced")])
def test_where_macro_f1_decides_a_rival_counts_every_class_alike_if_its_macro_f1_is_then_better(seed, better):
    inputs, labels = drawn(0.08, seed)
    by_weight = {weight: lowest(inputs, labels, weight) for weight in (None, "balanced")}

    def macro_f1(weight):
        return f1_score(labels["validation"], by_weight[weight]["validation"].argmax(axis=1), average="macro")

    assert max(by_weight, key=macro_f1) == better
    chosen = baseline.linear_probe(task(labels, "f1_macro"), inputs, OPTIONS)
    np.testing.assert_allclose(chosen.outputs["test"], by_weight[better]["test"])


@pytest.mark.parametrize("main", ["accuracy", "mcc", "log_loss"])
def test_where_another_score_decides_every_row_counts_alike(main):
    inputs, labels = drawn(0.08, seed=1)
    chosen = baseline.linear_probe(task(labels, main), inputs, OPTIONS)
    np.testing.assert_allclose(chosen.outputs["test"], lowest(inputs, labels, None)["test"])
