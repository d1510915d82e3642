"""baseline: what the tuned model has to beat, on the same test rows, with the same metrics.

    python -m stages.baseline

Reads models/base, data/prepared and data/encoded. Writes metrics/baseline.json; data/predictions/baseline.parquet, each
rival's predictions for the test rows (`row`, then one column per rival); and data/features, each text's pooled hidden
states after the lowest `model.layers` layers of the untuned model, a Parquet file per split (`row` and `features`,
(hidden,) float32).

    majority              the class shares of the training rows, whatever the text; regression has `median` instead
    bag_of_words          TF-IDF and a linear model: logistic regression (multi-label: one per label), or ridge
                          regression for numbers; where the training texts have hardly any words that a pattern finds,
                          as in Chinese, Hindi or DNA, it is bag_of_characters instead
    untrained             the model before tuning, with a random head or the head that it was saved with
    zero_shot             the model before tuning, its head made of the language-model head's rows for the label words
    zero_shot_calibrated  logistic regression on the logits of zero_shot, fitted on the validation rows
    linear_probe          a linear model on the features

Every choice that a rival has, such as regularization or the labels' thresholds, is made on the validation rows. Where
macro-F1 is the main score of single labels, the linear models may weigh the rows of rare classes, as
`train.balance: weights` does.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel

from stages.backbone import base, parallel, precision, prefix, store
from stages.classifier import inference, label_words
from stages.classifier.labels import label_arguments
from stages.classifier.model import load_base
from stages.common import errors, files, paths, progress, rivals, texts
from stages.compute import engine
from stages.evidence import intervals
from stages.params import Params
from stages.problems.main_score import MainScore
from stages.problems.single_label import WEIGHTING, row_weights
from stages.scoring.kinds import SCORED
from stages.scoring.params import Baseline
from stages.scoring.scored import ScoredProblem, fit, score

LONGEST_WORD = 30
"""Characters of a word, at most: a longer string is a sequence, a key or a sentence."""

LEAST_IN_WORDS = 0.7
"""Share of a text's characters, spaces and punctuation left out, that are in words, on average, where texts have words:
0.98 in the default data, 0.3 in Hindi and 0.5 in Tamil, whose vowel signs end a word for the pattern."""

LEAST_IN_KNOWN_WORDS = 0.1
"""The same for words that another training text has, too: 0.28 in 20 texts of the default data, about 0 in a list of
names."""

CHARACTERS = (3, 5)
"""The longest strings of the bag of characters that are tried."""

MOST_STRINGS = 100_000
"""The most strings that a bag has: words and their neighbours, or strings of characters; the most frequent are kept."""

WEIGHTINGS = (0, WEIGHTING, 1)
"""Weightings of the rows that are tried where rare classes weigh, see `row_weights`."""

BySplit = dict[str, np.ndarray]
"""Labels, inputs or outputs of the rows of each split, by the split's name."""


def main() -> None:
    base.quiet_transformers()
    about = store.About.load(paths.ENCODED)
    params = Params.load().filled(about.dataset)
    problem = SCORED[about.problem]
    rows = {name: store.load_rows(paths.ENCODED / name, about, params.precision) for name in paths.SPLITS}
    given = {name: read_texts(name, split) for name, split in rows.items()}
    labels = {name: split.text_labels for name, split in rows.items()}
    main_score = problem.main_score(params.evaluate.main, labels["train"])
    progress.say(f"baseline: {', '.join(f'{len(split):,} {name}' for name, split in labels.items())} texts")

    task = Task(problem=problem, names=about.class_names, main_score=main_score, labels=labels)
    name, constant = problem.constant()
    bag, vectorizers = bag_vectorizers(given["train"], params.baseline)
    models, features = model_rivals(task, rows, about, params)
    probes = list(linear_probes(task, features, params.baseline))
    outputs = {
        name: task.predicted(fit(constant, given["train"], labels["train"]), given),
        bag: bag_of(task, given, vectorizers, params.baseline).outputs,
        **models,
        rivals.LINEAR_PROBE: best(task, probes).outputs,
    }
    predictions = {name: task.decided(rival, "test") for name, rival in outputs.items()}
    save_features(rows, features, paths.FEATURES)
    save_predictions(problem, rows["test"], predictions)
    metrics = {name: measure(task, one) for name, one in predictions.items()}
    metrics[rivals.LINEAR_PROBE]["regularization"] = best(task, (probe for probe in probes if probe.plain)).strength
    files.write_metrics(paths.BASELINE_METRICS, metrics)
    found = ", ".join(f"{name} {scores[main_score.key]:.4g}" for name, scores in metrics.items())
    progress.say(f"baseline: {main_score.name}: {found}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the rivals have to predict."""

    problem: ScoredProblem
    names: list[str]
    """Of all outputs, see `Problem.output_names`."""
    main_score: MainScore
    labels: BySplit

    def predicted(self, model: BaseEstimator, inputs: BySplit) -> BySplit:
        """A fitted model's outputs for the validation rows, by which choices are made, and for the test rows."""
        return {name: self.problem.fitted(model, inputs[name], self.names) for name in ("validation", "test")}

    def decided(self, outputs: BySplit, split: str) -> Any:
        """A rival's predictions for the rows of a split, with thresholds chosen on the validation rows."""
        thresholds = self.problem.thresholds(self.labels["validation"], outputs["validation"], self.main_score)
        return self.problem.decide(outputs[split], thresholds)

    def weights(self, split: str, weighting: float) -> np.ndarray | None:
        """The weights of a split's rows, (rows,); None: all count alike."""
        return row_weights(self.labels[split], weighting) if weighting else None


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A fitted linear model."""

    weighting: float
    """Of the rows, one of `WEIGHTINGS`."""
    strength: float
    """Inverse regularization strength."""
    plain: bool
    """Whether it is `ScoredProblem.linear`, fitted with every row counting alike."""
    loss: float
    """On the validation rows, weighted alike."""
    outputs: BySplit


def read_texts(split: str, rows: store.Rows) -> np.ndarray:
    """Each row's text, or both texts of a pair, (texts,); checked to be the rows that were encoded."""
    path = paths.PREPARED / f"{split}.parquet"
    table = files.load(path, pd.read_parquet)
    rows.check_same_rows(table["row"], path)
    return texts.joined(table).to_numpy()


def bag_vectorizers(given: Sequence[str], options: Baseline) -> tuple[str, list[dict[str, Any]]]:
    """Which bag suits the training texts, and the settings of TF-IDF to try; what is no bag of words is printed.

    Characters take the place of words where few are in words, or where hardly any word comes again, see
    `LEAST_IN_WORDS` and `LEAST_IN_KNOWN_WORDS`.
    """
    whole, known = in_words(given)
    if whole >= LEAST_IN_WORDS and known >= LEAST_IN_KNOWN_WORDS:
        return rivals.BAG_OF_WORDS, [{"ngram_range": (1, longest)} for longest in options.ngrams]
    progress.say(
        f"baseline: {rivals.BAG_OF_CHARACTERS} in place of {rivals.BAG_OF_WORDS}, as of the characters of a training "
        f"text {whole:.0%} are in words, {known:.0%} in words that another text has"
    )
    return rivals.BAG_OF_CHARACTERS, [{"analyzer": "char", "ngram_range": (1, longest)} for longest in CHARACTERS]


def in_words(given: Sequence[str]) -> tuple[float, float]:
    """The share of a text's characters, spaces and punctuation left out, that are in words as TF-IDF's pattern finds
    them, and in words that another of the texts has; means over the texts, of which one without characters has 0."""
    find = TfidfVectorizer().build_analyzer()
    words = [
        [word for word in find(text) if len(word) <= LONGEST_WORD and not texts.UNSPACED.search(word)] for text in given
    ]
    texts_with = Counter(word for found in words for word in set(found))
    shares = []
    for text, found in zip(given, words, strict=True):
        characters = sum(unicodedata.category(character)[0] in "LMNS" for character in text.lower()) or 1
        known = [word for word in found if texts_with[word] > 1]
        shares.append([len("".join(kept)) / characters for kept in (found, known)])
    whole, known = np.mean(shares, axis=0)
    return float(whole), float(known)


def bag_of(task: Task, given: BySplit, vectorizers: list[dict[str, Any]], options: Baseline) -> Linear:
    """The best linear model on TF-IDF with any of the settings in `vectorizers`."""

    def models() -> Iterator[Linear]:
        for settings in vectorizers:
            vectorizer = TfidfVectorizer(**settings, max_features=MOST_STRINGS, sublinear_tf=True).fit(given["train"])
            vectors = {name: vectorizer.transform(split) for name, split in given.items()}
            yield from linear_models(task, vectors, options.regularization)

    return best(task, models())


def model_rivals(
    task: Task, rows: dict[str, store.Rows], about: store.About, params: Params
) -> tuple[dict[str, BySplit], BySplit]:
    """Outputs of the rivals that are the frozen model, and each split's features for the linear probe; zero-shot needs
    a language-model head.

    The features are the states after the lowest `model.layers` layers, of a decoder's last token, or their mean in an
    encoder. The rivals use all layers of the model, and need no training rows.
    """
    every = base.load_config(paths.BASE_MODEL).num_hidden_layers
    used = about.layers or every
    scored, trained = {name: rows[name] for name in ("validation", "test")}, {"train": rows["train"]}
    with parallel.spread_over(engine.workers(params.compute)):
        model, logits, (features, final) = read_model(scored, about, params, layers=every, after=(used, every))
        # one layer more than is read: transformers returns the last layer's output only after the final norm
        _, _, (train_features,) = read_model(trained, about, params, layers=min(used + 1, every), after=(used,))

    found = {rivals.UNTRAINED: {name: task.problem.outputs(values) for name, values in logits.items()}}
    if label_words.has_label_word_head(model):
        words = label_words.label_word_head(model, paths.BASE_MODEL, params.encode.label_words)
        head = inference.array(words)
        zero_shot = {name: pooled @ head.T for name, pooled in final.items()}
        found[rivals.ZERO_SHOT] = {name: task.problem.outputs(values) for name, values in zero_shot.items()}
        found[rivals.ZERO_SHOT_CALIBRATED] = calibrated(task, zero_shot).outputs
    return found, train_features | features


def read_model(
    rows: dict[str, store.Rows], about: store.About, params: Params, *, layers: int, after: tuple[int, ...]
) -> tuple[PreTrainedModel, BySplit, list[BySplit]]:
    """The model's lowest `layers` layers with a random head; its logits and pooled states for the texts of each split.

    Args:
        after: the numbers of layers after which states are read, see `inference.logits_and_features`.
    """
    labels = label_arguments(SCORED[about.problem], about.class_names, about.pad_token_id)
    labels |= base.keep_lowest_layers(paths.BASE_MODEL, layers)
    how = {"labels": labels, "seed": params.seed, "depth": about.depth, "matmul_precision": params.precision}
    model = parallel.loaded(partial(frozen_model, paths.BASE_MODEL, **how))
    logits, features = {}, [{} for _ in after]
    for name, split in rows.items():
        outputs, pooled = inference.logits_and_features(
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


def frozen_model(folder: Path, *, labels: dict, seed: int, depth: int, matmul_precision: str) -> PreTrainedModel:
    """The base model in a folder with a random head, spliced at the depth of the stored states."""
    model = load_base(folder, labels=labels, seed=seed)
    prefix.splice(model, depth)
    precision.convert_linear_weights(model, matmul_precision)
    return model


def calibrated(task: Task, logits: BySplit) -> Linear:
    """Logistic regression on the logits, fitted on the validation rows.

    For two classes this fits a threshold and a scale (Platt 1999); for more classes, or for several labels, a matrix
    (Guo et al. 2017, section 4.2).
    """
    centred = {name: values - values.mean(axis=1, keepdims=True) for name, values in logits.items()}
    scaler = StandardScaler(with_mean=False).fit(centred["validation"])
    scaled = {name: scaler.transform(values) for name, values in centred.items()}
    return best(task, linear_models(task, scaled, [1.0], fitted_on="validation"))


def linear_probes(task: Task, features: BySplit, options: Baseline) -> Iterator[Linear]:
    """Linear models on standardised features (Alain & Bengio 2016)."""
    scaler = StandardScaler().fit(features["train"])
    scaled = {name: scaler.transform(values) for name, values in features.items()}
    return linear_models(task, scaled, options.regularization)


def linear_models(
    task: Task, inputs: BySplit, strengths: Iterable[float], *, fitted_on: str = "train"
) -> Iterator[Linear]:
    """The linear models of each strength, fitted on the rows of a split; with each weighting of them, where the main
    score weighs rare classes."""
    for weighting in WEIGHTINGS if task.problem.weighs_rare_classes(task.main_score) else (0,):
        fitting, validating = (task.weights(split, weighting) for split in (fitted_on, "validation"))
        weights = {} if fitting is None else {"sample_weight": fitting}  # not every linear model takes it
        for strength in strengths:
            for place, model in enumerate(task.problem.candidates(strength)):
                fit(model, inputs[fitted_on], task.labels[fitted_on], **weights)
                outputs = task.predicted(model, inputs)
                loss = task.problem.loss(task.labels["validation"], outputs["validation"], validating)
                plain = not weighting and not place
                yield Linear(weighting=weighting, strength=strength, plain=plain, loss=loss, outputs=outputs)


def best(task: Task, models: Iterable[Linear]) -> Linear:
    """The model with the lowest loss on the validation rows; of those with different weightings, whose losses are not
    alike, the one with the best main score there."""
    lowest: dict[float, Linear] = {}
    for model in models:
        if model.weighting not in lowest or model.loss < lowest[model.weighting].loss:
            lowest[model.weighting] = model

    def score(model: Linear) -> float:
        value = task.main_score.value(task.labels["validation"], task.decided(model.outputs, "validation"))
        return task.main_score.sign * value

    return max(lowest.values(), key=score)


def save_features(rows: dict[str, store.Rows], features: BySplit, folder: Path) -> None:
    """Write each split's features, (texts, hidden), with their row numbers."""
    with files.replacing(folder) as fresh:
        for name, values in features.items():
            states = pa.array(list(values.astype(np.float32)), pa.list_(pa.float32(), values.shape[1]))
            pq.write_table(pa.table({"row": rows[name].source_rows, "features": states}), fresh / f"{name}.parquet")


def save_predictions(problem: ScoredProblem, rows: store.Rows, predictions: dict[str, Any]) -> None:
    """Write every rival's predictions for the test rows."""
    columns = {name: problem.column(rival) for name, rival in predictions.items()}
    table = pd.DataFrame({"row": rows.source_rows} | columns)
    files.write_bytes(paths.BASELINE_PREDICTIONS, table.to_parquet())


def measure(task: Task, predictions: Any) -> dict[str, float | dict]:
    """A rival's scores on the test rows, with the confidence interval of the main score and of the area under the ROC
    curve, which is 0.5 for whatever knows nothing."""
    labels, main, problem = task.labels["test"], task.main_score, task.problem
    found = intervals.of_main_scores(problem, labels=labels, predictions=predictions)
    kept = {key: ends for key, ends in found.items() if key == "roc_auc"}
    kept[main.key] = intervals.interval(main, labels=labels, predictions=predictions)
    return score(problem, labels, predictions) | {"interval": kept}


if __name__ == "__main__":
    errors.run_script(main, __doc__)
