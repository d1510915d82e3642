"""baseline: what the tuned model has to beat, on the same test rows, with the same metrics.

    python -m stages.baseline

Reads models/base, data/prepared and data/encoded. Writes metrics/baseline.json, and each rival's predictions for the
test rows to data/predictions/baseline.parquet (one column a rival; in each row a list of probabilities, or a number):

    majority              the class shares of the training rows, whatever the text; of numbers, the `median`
    bag_of_words          TF-IDF and a linear model on the text: logistic regression, one for each of several labels, or
                          ridge regression
    untrained             the model before tuning, with a fresh random head or the one that it was saved with
    zero_shot             the same, its head filled with the language-model head's rows of the label words
    zero_shot_calibrated  zero_shot with threshold and scale fitted on the validation rows
    linear_probe          a linear model on what the lowest `model.layers`, untuned, make of the text

Whatever a rival can choose, it chooses on the validation rows; so every label's threshold.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel

from stages.backbone import precision, prefix, store
from stages.backbone.base import load_config, lowest
from stages.classifier import model as classifier
from stages.common import errors, files, paths, texts
from stages.params import Baseline, Params
from stages.scoring import significance as scoring
from stages.scoring.problem import Problem
from stages.scoring.problems import PROBLEMS

BySplit = dict[str, np.ndarray]
"""Labels, inputs or predictions of a split's rows, by its name."""


def main() -> None:
    params = Params.load()
    about = store.About.load(paths.ENCODED)
    problem = PROBLEMS[about.problem]
    prepared = {name: pd.read_parquet(paths.PREPARED / f"{name}.parquet") for name in paths.SPLITS}
    words = {name: texts.joined(table).to_numpy() for name, table in prepared.items()}
    rows = {name: store.load_rows(paths.ENCODED / name, about, params.precision) for name in paths.SPLITS}
    labels = {name: split.text_labels for name, split in rows.items()}

    name, constant = problem.constant()
    rivals = {
        name: predicted(problem, constant.fit(words["train"], labels["train"]), words),
        "bag_of_words": bag_of_words(problem, words, labels, params.baseline),
        **model_rivals(problem, rows, labels, about, params),
    }
    decided = {name: decide(problem, labels, rival) for name, rival in rivals.items()}
    table = pd.DataFrame({name: list(rival) for name, rival in decided.items()})
    files.write_bytes(paths.BASELINE_PREDICTIONS, table.to_parquet())
    metrics = {name: measure(problem, labels["test"], rival) for name, rival in decided.items()}
    files.write_json(paths.BASELINE_METRICS, metrics)


def bag_of_words(problem: Problem, words: BySplit, labels: BySplit, options: Baseline) -> BySplit:
    """Predictions of TF-IDF with a linear model."""
    candidates = (
        make_pipeline(TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True), problem.linear(strength))
        for longest in options.ngrams
        for strength in options.regularization
    )
    return predicted(problem, best(problem, candidates, words, labels), words)


def model_rivals(
    problem: Problem, rows: dict[str, store.Rows], labels: BySplit, about: store.About, params: Params
) -> dict[str, BySplit]:
    """Predictions of the rivals that use the frozen model; zero-shot needs a language-model head.

    The linear probe reads what the lowest `model.layers` make of a text, as the tuned model's head does. The others are
    the model as it came, with all of its layers, and need no training rows.
    """
    every = load_config(paths.BASE_MODEL).num_hidden_layers
    used = about.layers or every
    scored, trained = {name: rows[name] for name in ("validation", "test")}, {"train": rows["train"]}
    model, logits, (features, final) = run(scored, about, params, layers=every, after=(used, every))
    # one layer more than is read: what a model's last layer makes is had through the final norm alone
    _, _, (train_features,) = run(trained, about, params, layers=min(used + 1, every), after=(used,))

    rivals = {"untrained": {name: problem.predictions(values) for name, values in logits.items()}}
    if classifier.scores_words(model):
        head = classifier.array(classifier.label_word_head(model, paths.BASE_MODEL, params.encode.label_words))
        zero_shot = {name: pooled @ head.T for name, pooled in final.items()}
        rivals["zero_shot"] = {name: problem.predictions(values) for name, values in zero_shot.items()}
        rivals["zero_shot_calibrated"] = calibrated(problem, zero_shot, labels)
    rivals["linear_probe"] = linear_probe(problem, train_features | features, labels, params.baseline)
    return rivals


def run(
    rows: dict[str, store.Rows], about: store.About, params: Params, *, layers: int, after: tuple[int, ...]
) -> tuple[PreTrainedModel, BySplit, list[BySplit]]:
    """The model of the lowest `layers` with a random head; its logits and pooled states for the texts of each split.

    Args:
        after: which states, see `classifier.logits_and_features`.
    """
    arguments = classifier.label_arguments(about.class_names, about.pad_token_id, about.problem)
    model = classifier.load_base(
        paths.BASE_MODEL, labels=arguments | lowest(paths.BASE_MODEL, layers), seed=params.seed
    )
    prefix.splice(model, about.depth)
    precision.lower(model, params.precision)
    logits, features = {}, [{} for _ in after]
    for name, split in rows.items():
        outputs, pooled = classifier.logits_and_features(
            model,
            split,
            batch_size=params.baseline.batch_size,
            progress=f"baseline, {name} rows",
            precision=params.precision,
            after=after,
        )
        logits[name] = split.pooled(outputs)
        for kept, values in zip(features, pooled, strict=True):
            kept[name] = split.pooled(values.astype(np.float64))  # float32 is too inexact for scikit-learn's sums
    return model, logits, features


def calibrated(problem: Problem, logits: BySplit, labels: BySplit) -> BySplit:
    """Predictions of logistic regression on the validation logits.

    With two classes that is a threshold and a scale (Platt 1999), with more, or with labels, a matrix (Guo et al. 2017,
    section 4.2).
    """
    model = make_pipeline(StandardScaler(with_mean=False), problem.linear(1.0))
    centred = {name: values - values.mean(axis=1, keepdims=True) for name, values in logits.items()}
    return predicted(problem, model.fit(centred["validation"], labels["validation"]), centred)


def linear_probe(problem: Problem, features: BySplit, labels: BySplit, options: Baseline) -> BySplit:
    """Predictions of a linear model on standardised pooled features (Alain & Bengio 2016)."""
    candidates = (make_pipeline(StandardScaler(), problem.linear(strength)) for strength in options.regularization)
    return predicted(problem, best(problem, candidates, features, labels), features)


def best(problem: Problem, candidates: Iterable[BaseEstimator], inputs: BySplit, labels: BySplit) -> BaseEstimator:
    """The candidate, fitted on the training rows, with the lowest loss on the validation rows."""
    fitted = [candidate.fit(inputs["train"], labels["train"]) for candidate in candidates]
    return min(fitted, key=lambda one: problem.loss(labels["validation"], problem.fitted(one, inputs["validation"])))


def predicted(problem: Problem, model: BaseEstimator, inputs: BySplit) -> BySplit:
    """What a fitted model says of the validation rows, from which `decide` takes thresholds, and of the test rows."""
    return {name: problem.fitted(model, inputs[name]) for name in ("validation", "test")}


def decide(problem: Problem, labels: BySplit, rival: BySplit) -> np.ndarray:
    """A rival's final predictions for the test rows, with what its validation rows let it choose."""
    return problem.decide(rival["test"], problem.choose(labels["validation"], rival["validation"]))


def measure(problem: Problem, labels: np.ndarray, rival: np.ndarray) -> dict[str, float | dict]:
    """A rival's scores on the test rows, and the interval of the main one."""
    interval = {problem.MAIN.key: scoring.main_interval(problem, labels, rival)}
    return scoring.score(problem, labels, rival) | {"interval": interval}


if __name__ == "__main__":
    errors.run(main)
