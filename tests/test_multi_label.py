"""Texts with several labels, or none, through every stage and out again."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import problems
import pytest
import torch
from conftest import tiny_params
from datasets import ClassLabel, Dataset, Features, List, Value
from families import BAD, GOOD, NOUNS
from ruamel.yaml import YAML
from scipy.special import expit

from stages.backbone import store
from stages.classifier import model as classifier
from stages.common import paths
from stages.common.errors import ParamsError, PipelineError
from stages.params import Params
from stages.rows import labels
from stages.rows import splits as rows
from stages.scoring import multi_label, thresholds
from stages.scoring import significance as scoring
from stages.training import calibration

WORDS = {"praise": GOOD, "blame": BAD, "topic": NOUNS}
NAMES = ["blame", "praise", "topic"]
DATA = {"problem": "multi_label", "format": None, "label": "tags", "classes": None}
SECTIONS = {
    "data": DATA | {"limit": {"train": 150, "validation": 40, "test": 60}},
    "encode": {"template": "{text}"},
    "train": {"epochs": 6, "lr": 1e-2},
}


def tagged(count):
    """Texts whose words give away which of three labels they have."""
    generator = np.random.default_rng(0)
    texts = []
    for number in range(count):
        tags = [tag for tag in WORDS if generator.random() < 0.4]
        words = [word for tag in tags for word in generator.choice(WORDS[tag], 2)]
        texts.append({"text": " ".join(["Number", str(number), "says:", *words, "and that is", *words]), "tags": tags})
    return pd.DataFrame(texts)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    with problems.ran(tmp_path_factory.mktemp("multi"), tagged(400), saved_model("llama"), **SECTIONS) as folder:
        yield folder


@pytest.fixture
def inside(ran, monkeypatch):
    monkeypatch.chdir(ran)


def sets(column):
    """Answers as people read them, as sets."""
    return [set() if text == "(none)" else set(text.split(", ")) for text in column]


def truth(split):
    """Which labels each prepared row has, (rows, labels) bool."""
    return np.array([[index in row for index in range(3)] for row in pd.read_parquet(split)["label"]])


def test_the_model_learns_and_every_rival_is_scored_alike(inside):
    baseline, tuned = problems.read(paths.BASELINE_METRICS), problems.read(paths.EVALUATE_METRICS)
    assert list(baseline) == [
        "majority",
        "bag_of_words",
        "untrained",
        "zero_shot",
        "zero_shot_calibrated",
        "linear_probe",
    ]
    assert tuned["f1_samples"] > 0.75 > baseline["majority"]["f1_samples"]
    scores = set(tuned) - {"classes", "uncalibrated", "gain", "gain_low", "gain_high", "p_value"}
    assert set(tuned["interval"]) == scores - {"interval"}
    for name, rival in baseline.items():
        assert set(rival) == scores
        assert tuned["gain"][name] == pytest.approx(tuned["f1_samples"] - rival["f1_samples"])
        low, high = rival["interval"]["f1_samples"].values()
        assert low <= rival["f1_samples"] <= high
    assert set(tuned["uncalibrated"]) == {"log_loss", "brier", "calibration_error"}


def test_the_recorded_scores_are_those_of_the_recorded_answers(inside):
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    true, baseline, tuned = (
        sets(table["label"]),
        problems.read(paths.BASELINE_METRICS),
        problems.read(paths.EVALUATE_METRICS),
    )
    for name, scores in (baseline | {"tuned": tuned}).items():
        pairs = list(zip(true, sets(table[name]), strict=True))
        f1 = [2 * len(one & other) / (len(one) + len(other)) if one | other else 1 for one, other in pairs]
        assert scores["f1_samples"] == pytest.approx(np.mean(f1))
        assert scores["accuracy"] == np.mean([one == other for one, other in pairs])
        assert scores["hamming_loss"] == pytest.approx(np.mean([len(one ^ other) / 3 for one, other in pairs]))
    for name, scores in tuned["classes"].items():
        hits = sum(name in one & other for one, other in pairs)
        assert scores["recall"] == pytest.approx(hits / sum(name in one for one in true))


def test_the_saved_thresholds_are_the_best_on_validation_and_give_the_recorded_answers(inside):
    chosen = problems.read(paths.ADAPTER / "run.json")["metrics"]["thresholds"]
    assert list(chosen) == NAMES
    texts = pd.read_parquet(paths.PREPARED / "validation.parquet")["text"]
    probabilities, true = expit(problems.plain_logits(texts.tolist())), truth(paths.PREPARED / "validation.parquet")
    for index, threshold in enumerate(chosen.values()):
        scores, has = probabilities[:, index], true[:, index]
        tried = [f1(has, scores > at) for at in np.sort(scores) - 1e-5]
        assert f1(has, scores > threshold) == pytest.approx(max(tried))
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    given = expit(problems.plain_logits(table["text"].tolist())) > np.array(list(chosen.values()))
    assert multi_label.truth(given, NAMES).tolist() == table["tuned"].tolist()


def f1(has, given):
    return 2 * (has & given).sum() / max(1, has.sum() + given.sum())


def test_predict_agrees_with_evaluate_and_with_the_merged_model_in_a_pipeline(inside, monkeypatch, tmp_path):
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    answers = problems.predicted(monkeypatch, tmp_path, "--compare")
    assert list(answers)[:6] == ["text", "labels", "probability", *NAMES]
    assert answers["labels"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)
    assert {"untouched_labels", "untouched_praise"} <= set(answers)
    classify = problems.piped(monkeypatch, tmp_path, top_k=None)
    for row, scores in zip(answers.to_dict("records"), classify(table["text"].tolist()), strict=True):
        assert {score["label"]: score["score"] for score in scores} == pytest.approx(
            {name: row[name] for name in NAMES}, abs=1e-4
        )


def test_the_probability_of_an_answer_is_that_of_all_its_labels():
    probabilities = np.array([[0.9, 0.2], [0.6, 0.7]])
    predictions = multi_label.decide(probabilities, [0.5, 0.8])
    np.testing.assert_allclose(multi_label.confidence(predictions)["probability"], [0.9 * 0.8, 0.6 * 0.3])


def test_the_untouched_model_says_how_a_label_word_compares_with_the_others(inside):
    arguments = classifier.load_labels(paths.ADAPTER)
    model = classifier.load_base(paths.BASE_MODEL, labels=arguments, seed=0, head="label_words")
    words = classifier.label_word_rows(model, paths.BASE_MODEL, classifier.label_words(NAMES, None))
    torch.testing.assert_close(model.score.weight.data, words - words.mean(dim=0))
    rows_ = store.load_rows(paths.ENCODED / "test", store.About.load(paths.ENCODED))
    logits = classifier.logits(model, replace(rows_, states=None), batch_size=16, progress="")
    rival = np.stack(pd.read_parquet(paths.BASELINE_PREDICTIONS)["zero_shot"])
    np.testing.assert_allclose(multi_label.parted(rival)[0], expit(logits), atol=1e-5)


def test_what_lies_beside_the_adapter_says_how_to_read_it(inside):
    assert problems.read(paths.ADAPTER / "labels.json")["problem_type"] == "multi_label_classification"
    card = paths.CARD.read_text()
    assert "# Text classifier of several labels: blame, praise, topic" in card
    chosen = problems.read(paths.ADAPTER / "run.json")["metrics"]["thresholds"]
    assert f"exceeds their threshold: blame {chosen['blame']:.3f}, praise" in card
    assert 'print(classify("A warm, funny and wise film.", top_k=None, truncation=True))' in card
    assert "| row F1 | " in card
    told = paths.REPORT.read_text()
    assert " points of row F1, 95 % interval " in told
    assert "(exact sign test)" in told
    assert "| tuned, by label | test rows |" in told
    assert "(none)" in set(pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)["label"])


def test_the_plots_that_dvc_draws_are_there(inside):
    names = {path.stem for path in paths.EVALUATE_PLOTS.iterdir()}
    for kind in ("roc", "precision_recall", "reliability"):
        assert {f"{kind}_{model}" for model in ("bag_of_words", "zero_shot", "linear_probe", "tuned")} <= names
    assert {"answers", "length", "errors", "reliability_tuned_uncalibrated"} <= names
    assert paths.SUMMARY.read_bytes().startswith(b"\x89PNG")
    errors = pd.read_csv(paths.EVALUATE_PLOTS / "errors.csv")
    missed = 60 * (1 - problems.read(paths.EVALUATE_METRICS)["f1_samples"])
    assert errors["tuned"].sum() == pytest.approx(missed)


def test_the_counts_by_label_are_those_of_the_rows_and_the_rows_add_up(inside):
    counts = problems.read(paths.DATA_METRICS)
    assert counts["rows"]["source"] == 400
    assert sum(counts["rows"][split] for split in paths.SPLITS) + sum(counts["dropped"].values()) == 400
    for split in paths.SPLITS:
        assert list(counts[split].values()) == truth(paths.PREPARED / f"{split}.parquet").sum(axis=0).tolist()
    assert np.load(paths.ENCODED / "test/labels.npy").dtype == np.float32
    assert (np.load(paths.ENCODED / "test/labels.npy") == truth(paths.PREPARED / "test.parquet")).all()
    assert problems.read(paths.ENCODED / "about.json")["problem"] == "multi_label"


def options(**changes):
    return Params.model_validate(tiny_params(data=DATA | changes)).data


def table(combinations):
    """Rows with these labels."""
    texts = [f"text {number}" for number in range(len(combinations))]
    return pd.DataFrame({"row": range(1, len(texts) + 1), "text": texts, "label": list(map(json.dumps, combinations))})


def test_lists_columns_and_datasets_own_lists_are_read_alike(tmp_path):
    given = tagged(30)
    given.to_json(tmp_path / "lists.jsonl", orient="records", lines=True)
    for tag in WORDS:
        given[tag] = [tag in tags for tags in given["tags"]]
    given.drop(columns="tags").to_csv(tmp_path / "columns.csv", index=False)
    given.astype(dict.fromkeys(WORDS, int)).drop(columns="tags").to_parquet(tmp_path / "columns.parquet")
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=list(WORDS)))})
    Dataset.from_pandas(given[["text", "tags"]], features=features).to_parquet(tmp_path / "lists.parquet")
    found = [rows.read(tmp_path / f"lists.{kind}", options()) for kind in ("jsonl", "parquet")]
    found += [rows.read(tmp_path / f"columns.{kind}", options(label=list(WORDS))) for kind in ("csv", "parquet")]
    assert found[0]["label"].tolist() == [json.dumps(sorted(tags)) for tags in given["tags"]]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])
    assert rows.class_names({"train": found[0]}, options(label=list(WORDS))) == list(WORDS)
    assert rows.class_names({"train": found[0]}, options()) == NAMES


@pytest.mark.parametrize(
    ("content", "label", "message"),
    [
        (
            '{"tags": ["a", 2.5]}',
            "tags",
            "expected the names of labels in the list of column 'tags', found 2.5 in row 1",
        ),
        ('{"tags": ["a", ""]}', "tags", "expected the names of labels in the list of column 'tags', found '' in row 1"),
        (
            '{"tags": "a, b"}',
            "tags",
            "expected a list of labels in column 'tags', or a column for each label named in data.label: [a, b], found "
            "'a, b' in row 1; correct it, or take the row out",
        ),
        ('{"tags": null}', "tags", "expected a label in every row, found 1 without one, the first in row 1 of column"),
        ('{"a": 1, "b": 2}', ["a", "b"], "expected 0, 1, true or false in column 'b', found 2 in row 1; correct it"),
        ('{"a": "yes", "b": 0}', ["a", "b"], "expected 0, 1, true or false in column 'a', found 'yes' in row 1"),
        (
            '{"a": 1, "b": null}',
            ["a", "b"],
            "expected a label in every row, found 1 without one, the first in row 1 of",
        ),
        ('{"a": 1}', ["a", "b"], "expected a column 'b' (data.label), found text, a"),
        (
            '{"a": 1, "b": [1]}',
            ["a", "b"],
            "expected 0, 1, true or false in column 'b', found [1] in row 1; correct it",
        ),
        ('{"tags": {"a": 1}}', "tags", "expected text, numbers or booleans in column 'tags' (data.label), found dict"),
    ],
)
def test_labels_of_another_kind_are_one_clear_line(tmp_path, content, label, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", ' + content[1:])
    with pytest.raises(PipelineError) as caught:
        rows.read(path, options(label=label))
    assert str(caught.value).startswith("rows.jsonl: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repetitions_and_contradictions_are_found_whatever_the_order_of_the_labels():
    dropped = Counter()
    given = table([["a"], ["a"], ["a", "b"], ["b"]])
    given["text"] = ["same", "SAME", "odd", "odd"]
    assert rows.clean_rows(given, dropped)["text"].tolist() == ["same"]
    assert dropped == {"blank": 0, "conflicting_labels": 2, "duplicate": 1}
    kind = labels.KINDS["multi_label"]
    assert kind.read(["b", "a", "b"], "tags") == kind.read({"a": "1", "b": True, "c": 0}, ["a", "b", "c"])


def test_rare_combinations_stop_nothing_and_are_spread_over_the_splits():
    names = [f"label {number}" for number in range(7)]
    rare = [list(some) for some in itertools.combinations(names, 3)]  # 35 combinations, three rows each
    splits = rows.split({"train": table([*rare, *rare, *rare, *[["common"]] * 105])}, options())
    share = {name: (split["label"] != '["common"]').mean() for name, split in splits.items()}
    assert share == pytest.approx(dict.fromkeys(paths.SPLITS, 0.5), abs=0.03)


@pytest.mark.parametrize(
    ("combinations", "changes", "message"),
    [
        ([["a"]] * 9, {}, "expected at least two labels, found a"),
        ([[]] * 9, {}, "expected at least two labels, found no row with one"),
        (
            [["a"], ["b"], []] * 9,
            {"label": ["a", "b", "never"]},
            "split 'train': expected rows of every label, found none of never among 19; raise data.limit.train or",
        ),
        (
            [["a"], ["b"], []] * 9,
            {"split": {"validation": 0.01, "test": 0.2}},
            "'validation': expected rows, found none",
        ),
    ],
)
def test_a_label_without_rows_to_learn_from_is_one_clear_line(combinations, changes, message):
    with pytest.raises(PipelineError) as caught:
        rows.limit(rows.split({"train": table(combinations)}, options(**changes)), options(**changes), Counter())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "data",
            {"classes": {"a": 0, "b": 1}},
            "data.classes: expected None with data.problem: multi_label, which has no",
        ),
        ("data", {"label": ["a"]}, "data.label: expected string or List should have at least 2 items"),
        ("data", {"label": ["a", "a"]}, "data.label: expected distinct columns, found ['a', 'a']: take one out"),
        (
            "data",
            {"label": ["a", "text"]},
            "data.label: expected another column than data.text and data.text_pair, found",
        ),
        (
            "data",
            {"label": ["a", "b"], "problem": "single_label"},
            "data.label: expected one column with data.problem: single_label, found ['a', 'b']",
        ),
        (
            "data",
            {"problem": "multilabel"},
            "data.problem: expected 'single_label', 'multi_label' or 'regression', found",
        ),
        (
            "train",
            {"balance": "weights"},
            "train.balance: expected None with data.problem: multi_label, which",
        ),
        (
            "train",
            {"label_smoothing": 0.1},
            "train.label_smoothing: expected 0.0 with data.problem: multi_label, which",
        ),
        ("evaluate", {"gate": {"min_gain": 1.5}}, "evaluate.gate.min_gain: expected a share below 1, found 1.5"),
    ],
)
def test_what_has_no_meaning_here_is_refused_before_anything_runs(tmp_path, section, changes, message):
    params = tiny_params(data=DATA)
    if "gate" in changes:
        changes = {"gate": params["evaluate"]["gate"] | changes["gate"]}
    params[section] |= changes
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert f"has 1 problem(s):\n  {message}" in str(caught.value)


def drawn(seed, columns=4):
    """Labels, probabilities on which a model is right more often than not, and thresholds."""
    generator = np.random.default_rng(seed)
    has = (generator.random((50, columns)) < generator.random(columns)).astype(np.float32)
    has[:, -1] = seed % 2  # one label tells nothing about ranking
    probabilities = expit(generator.normal(size=has.shape) + 2 * has - 1)
    return has, probabilities, generator.random(columns).tolist()


def ratio(part, whole):
    return part / whole if whole else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_every_score_agrees_with_its_definition_on_random_cases(seed):
    has, p, chosen = drawn(seed)
    true, given = has.astype(bool), p > np.array(chosen)
    by_row, by_label = [], []
    for one, other in zip(true, given, strict=True):
        by_row.append(2 * (one & other).sum() / (one.sum() + other.sum()) if (one | other).any() else 1.0)
    for one, other in zip(true.T, given.T, strict=True):
        by_label.append([ratio((one & other).sum(), other.sum()), ratio((one & other).sum(), one.sum())])
    f1s = [ratio(2 * precision * recall, precision + recall) for precision, recall in by_label]
    areas, averages = [], []
    for one, scores in zip(true.T[:-1], p.T[:-1], strict=True):
        pairs = scores[one][:, None] - scores[~one][None, :]
        areas.append(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
        ranked = one[np.argsort(-scores)]
        averages.append((np.cumsum(ranked) / np.arange(1, 51))[ranked].mean())
    y, q = true.ravel(), p.ravel()
    confidence, right = np.maximum(q, 1 - q), (q > 0.5) == y
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = {
        "f1_samples": np.mean(by_row),
        "accuracy": (true == given).all(axis=1).mean(),
        "f1_micro": 2 * (true & given).sum() / (true.sum() + given.sum()),
        "f1_macro": np.mean(f1s),
        "hamming_loss": (true != given).mean(),
        "log_loss": -np.log(np.where(y, q, 1 - q)).mean(),
        "brier": np.square(q - y).mean(),
        "calibration_error": sum(abs((right - confidence)[bins == one].sum()) for one in range(15)) / len(y),
        "roc_auc": np.mean(areas),
        "average_precision": np.mean(averages),
    }
    predictions = multi_label.decide(p, chosen)
    assert scoring.score(multi_label, has, predictions) == pytest.approx(expected)
    np.testing.assert_allclose(multi_label.row_scores(has, predictions), by_row)
    found = multi_label.class_scores(has, predictions, list("abcd"))
    for name, (precision, recall), value in zip("abcd", by_label, f1s, strict=True):
        assert found[name] == pytest.approx({"precision": precision, "recall": recall, "f1": value})


def test_scores_stay_finite_where_no_label_varies(recwarn):
    for has in (0, 1):
        labels_ = np.full((3, 2), has, dtype=np.float32)
        scores = multi_label.scores(labels_, multi_label.decide(np.full((3, 2), 0.3), []))
        assert np.isfinite(list(scores.values())).all()
        assert not multi_label.complete(labels_, labels_)
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(6))
def test_a_gain_is_the_mean_difference_and_its_test_counts_rows(seed):
    has, p, chosen = drawn(seed)
    tuned, rival = multi_label.decide(p, chosen), multi_label.decide(drawn(seed + 50)[1], chosen)
    difference = multi_label.row_scores(has, tuned) - multi_label.row_scores(has, rival)
    values = scoring.gain(multi_label, has, tuned, rival, 200)
    assert values["gain"] == pytest.approx(difference.mean())
    assert values["gain_low"] <= values["gain"] <= values["gain_high"]
    better, worse = (difference > 0).sum(), (difference < 0).sum()
    tail = sum(np.prod([(better + worse - i) / (i + 1) for i in range(k)]) for k in range(min(better, worse) + 1))
    agree = (better - worse) * difference.mean() > 0
    assert values["p_value"] == pytest.approx(min(1, 2 * tail / 2.0 ** (better + worse)) if agree else 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_threshold_is_the_best_of_all_and_of_equals_the_highest(seed):
    has, probabilities, _ = drawn(seed)
    probabilities = probabilities.round(1)  # with ties
    for one, scores, found in zip(has.T, probabilities.T, thresholds.best(has, probabilities), strict=True):
        if not one.any():
            assert found == thresholds.UNSEEN
            continue
        tried = np.unique(scores) - 0.01
        values = [f1(one > 0, scores > at) for at in tried]
        highest = max(at for at, value in zip(tried, values, strict=True) if value == pytest.approx(max(values)))
        assert ((scores > found) == (scores > highest)).all()


def test_a_model_that_knows_nothing_gives_every_label():
    has = (np.arange(10) < 3).astype(float)[:, None]
    constant = np.full((10, 1), 0.3)
    assert (constant > thresholds.best(has, constant)).all()


@pytest.mark.parametrize("factor", [0.5, 4])
def test_one_temperature_undoes_an_exaggeration_of_all_labels(factor):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4000, 3))
    has = (generator.random(logits.shape) < expit(logits)).astype(np.float32)
    assert calibration.temperature(factor * logits, has) == pytest.approx(factor, rel=0.1)
