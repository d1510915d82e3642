"""baseline: what the tuned model has to beat, on the same test rows, with the same metrics.

    python -m stages.baseline

Reads models/base, data/prepared and data/encoded. Writes metrics/baseline.json, and each rival's probabilities for the
test rows to data/predictions/baseline.parquet (one column a rival, one list of class probabilities a row):

    majority              the class shares of the training rows, whatever the text
    bag_of_words          TF-IDF and logistic regression on the text
    untrained             the model before tuning, with a fresh random head
    zero_shot             the same, its head filled with the language-model head's rows of the label words
    zero_shot_calibrated  zero_shot with threshold and scale fitted on the validation rows
    linear_probe          logistic regression on the model's final hidden states

Whatever a rival can choose, it chooses on the validation rows.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.common import classifier, errors, output, paths, prefix, scoring, store, texts
from stages.common.params import Baseline, Params


def main() -> None:
    params = Params.load()
    about = store.About.load(paths.ENCODED)
    prepared = {name: pd.read_parquet(paths.PREPARED / f"{name}.parquet") for name in paths.SPLITS}
    words = {name: texts.joined(table).to_numpy() for name, table in prepared.items()}
    rows = {name: store.load_rows(paths.ENCODED / name, about) for name in paths.SPLITS}
    labels = {name: split.labels for name, split in rows.items()}

    rivals = {
        "majority": DummyClassifier(strategy="prior").fit(words["train"], labels["train"]).predict_proba(words["test"]),
        "bag_of_words": bag_of_words(words, labels, params.baseline),
        **model_rivals(rows, labels, about, params),
    }
    metrics = {
        name: scoring.score(labels["test"], probabilities)
        | {"interval": {"accuracy": scoring.accuracy_interval(labels["test"], probabilities)}}
        for name, probabilities in rivals.items()
    }
    table = pd.DataFrame({name: list(rival) for name, rival in rivals.items()})
    output.write_bytes(paths.BASELINE_PREDICTIONS, table.to_parquet())
    output.write_json(paths.BASELINE_METRICS, metrics)


def bag_of_words(words: dict[str, np.ndarray], labels: dict[str, np.ndarray], options: Baseline) -> np.ndarray:
    """Test probabilities of TF-IDF with logistic regression."""
    candidates = (
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True), LogisticRegression(C=c, max_iter=1000)
        )
        for longest in options.ngrams
        for c in options.regularization
    )
    return best(candidates, words, labels).predict_proba(words["test"])


def model_rivals(
    rows: dict[str, store.Rows], labels: dict[str, np.ndarray], about: store.About, params: Params
) -> dict[str, np.ndarray]:
    """Test probabilities of the rivals that use the frozen model; zero-shot needs a language-model head."""
    arguments = classifier.label_arguments(about.class_names, about.pad_token_id)
    model = classifier.load_base(paths.BASE_MODEL, labels=arguments, seed=params.seed)
    prefix.splice(model, about.depth)
    untrained, features = {}, {}
    for name, split in rows.items():
        untrained[name], features[name] = classifier.logits_and_features(
            model, split, batch_size=params.baseline.batch_size, progress=f"baseline, {name} rows"
        )
        features[name] = features[name].astype(np.float64)  # in float32, scikit-learn's probabilities miss a sum of 1
    rivals = {"untrained": scoring.softmax(untrained["test"])}
    if classifier.scores_words(model):
        words = classifier.label_words(about.class_names, params.encode.label_words)
        head = classifier.label_word_rows(paths.BASE_MODEL, words=words).numpy()
        zero_shot = {name: pooled @ head.T for name, pooled in features.items()}
        rivals["zero_shot"] = scoring.softmax(zero_shot["test"])
        rivals["zero_shot_calibrated"] = calibrated(zero_shot, labels)
    rivals["linear_probe"] = linear_probe(features, labels, params.baseline)
    return rivals


def calibrated(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> np.ndarray:
    """Test probabilities from logistic regression on the validation logits.

    With two classes that is a threshold and a scale (Platt 1999), with more a matrix (Guo et al. 2017, section 4.2).
    """
    model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=1000))
    centred = {name: values - values.mean(axis=1, keepdims=True) for name, values in logits.items()}
    return model.fit(centred["validation"], labels["validation"]).predict_proba(centred["test"])


def linear_probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray], options: Baseline) -> np.ndarray:
    """Test probabilities of logistic regression on standardised pooled features (Alain & Bengio 2016)."""
    candidates = (
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)) for c in options.regularization
    )
    return best(candidates, features, labels).predict_proba(features["test"])


def best(
    candidates: Iterable[ClassifierMixin], inputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> ClassifierMixin:
    """The candidate, fitted on the training rows, with the lowest log loss on the validation rows."""
    fitted = [candidate.fit(inputs["train"], labels["train"]) for candidate in candidates]
    return min(fitted, key=lambda model: log_loss(labels["validation"], model.predict_proba(inputs["validation"])))


if __name__ == "__main__":
    errors.run(main)
