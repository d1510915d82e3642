"""Texts with several labels, or none, through every stage and out again."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import whole_run
from conftest import tiny_params
from datasets import ClassLabel, Dataset, Features, List, Value
from families import BAD, GOOD, NOUNS
from ruamel.yaml import YAML
from scipy.special import expit
from sklearn.metrics import f1_score

from stages import evaluate
from stages.backbone import store
from stages.classifier import inference, label_words
from stages.classifier.labels import load_labels
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import ParamsError, PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.rows import cleaning, reading, splits

MULTI = PROBLEMS["multi_label"]

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
    with whole_run.ran(tmp_path_factory.mktemp("multi"), tagged(400), saved_model("llama"), **SECTIONS) as folder:
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
    baseline, tuned = whole_run.read(paths.BASELINE_METRICS), whole_run.read(paths.EVALUATE_METRICS)
    assert list(baseline) == [
        "majority",
        "bag_of_words",
        "untrained",
        "zero_shot",
        "zero_shot_calibrated",
        "linear_probe",
    ]
    assert tuned["f1_samples"] > 0.75 > baseline["majority"]["f1_samples"]
    scores = set(tuned) - {"classes", "uncalibrated", "gain", "gain_low", "gain_high", "p_value", "run"}
    assert set(tuned["interval"]) == scores - {"interval", "calibration_error"}
    for name, rival in baseline.items():
        assert set(rival) - {"regularization"} == scores
        assert tuned["gain"][name] == pytest.approx(tuned["f1_samples"] - rival["f1_samples"], abs=2e-5)
        low, high = rival["interval"]["f1_samples"].values()
        assert low <= rival["f1_samples"] <= high
    assert set(tuned["uncalibrated"]) == {"log_loss", "brier", "calibration_error"}


def test_the_recorded_scores_are_those_of_the_recorded_answers(inside):
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    true, baseline, tuned = (
        sets(table["label"]),
        whole_run.read(paths.BASELINE_METRICS),
        whole_run.read(paths.EVALUATE_METRICS),
    )
    for name, scores in (baseline | {"tuned": tuned}).items():
        pairs = list(zip(true, sets(table[name]), strict=True))
        f1 = [2 * len(one & other) / (len(one) + len(other)) if one | other else 1 for one, other in pairs]
        assert scores["f1_samples"] == pytest.approx(np.mean(f1), rel=1e-4)
        assert scores["accuracy"] == pytest.approx(np.mean([one == other for one, other in pairs]), rel=1e-4)
        assert scores["hamming_loss"] == pytest.approx(
            np.mean([len(one ^ other) / 3 for one, other in pairs]), rel=1e-4
        )
    for name, scores in tuned["classes"].items():
        hits = sum(name in one & other for one, other in pairs)
        assert scores["recall"] == pytest.approx(hits / sum(name in one for one in true), rel=1e-4)


def test_the_saved_thresholds_are_the_best_on_validation_and_give_the_recorded_answers(inside):
    chosen = whole_run.read(paths.ADAPTER / "run.json")["metrics"]["thresholds"]
    assert list(chosen) == NAMES
    texts = pd.read_parquet(paths.PREPARED / "validation.parquet")["text"]
    probabilities, true = expit(whole_run.plain_logits(texts.tolist())), truth(paths.PREPARED / "validation.parquet")
    (threshold,) = {*chosen.values()}
    found, *tried = (row_f1(true, probabilities > at) for at in (threshold, *np.linspace(0.01, 0.99, 99)))
    assert found == pytest.approx(max(tried))
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    given = expit(whole_run.plain_logits(table["text"].tolist())) > np.array(list(chosen.values()))
    assert MULTI.truth(given, NAMES).tolist() == table["tuned"].tolist()


def row_f1(has, given):
    either = has.sum(axis=1) + given.sum(axis=1)
    return np.where(either > 0, 2 * (has & given).sum(axis=1) / np.maximum(either, 1), 1).mean()


def test_rows_keep_their_numbers_from_the_source_to_the_answers(inside):
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    prepared = pd.read_parquet(paths.PREPARED / "test.parquet")
    joined = table.merge(prepared, on="row", validate="one_to_one", suffixes=("", "_prepared"))
    assert len(joined) == len(table) == len(prepared)
    assert joined["text"].tolist() == joined["text_prepared"].tolist()
    source = pd.read_json("rows.jsonl", lines=True)
    assert table["text"].tolist() == source["text"][table["row"] - 1].tolist()
    rivals = pd.read_parquet(paths.BASELINE_PREDICTIONS)
    assert list(rivals) == ["row", *whole_run.read(paths.BASELINE_METRICS)]
    assert table.columns[0] == "row"
    assert rivals["row"].tolist() == table["row"].tolist() == np.load(paths.ENCODED / "test/rows.npy").tolist()


@pytest.mark.parametrize("change", [lambda rows: rows + 1, lambda rows: rows[::-1].to_numpy(), lambda rows: rows[0]])
def test_predictions_of_other_rows_are_refused_and_nothing_is_written(inside, change):
    content = paths.BASELINE_PREDICTIONS.read_bytes()
    written = {path: path.read_bytes() for path in (paths.EVALUATE_METRICS, paths.TEST_PREDICTIONS)}
    rivals = pd.read_parquet(paths.BASELINE_PREDICTIONS)
    try:
        rivals.assign(row=change(rivals["row"])).to_parquet(paths.BASELINE_PREDICTIONS)
        with pytest.raises(PipelineError, match=r"baseline.parquet: expected the rows of data/encoded, found others"):
            evaluate.main()
    finally:
        paths.BASELINE_PREDICTIONS.write_bytes(content)
    assert {path: path.read_bytes() for path in written} == written


def test_texts_of_other_rows_are_refused_and_nothing_is_written(inside):
    path = paths.PREPARED / "test.parquet"
    content, plots = path.read_bytes(), {plot: plot.stat().st_mtime_ns for plot in paths.EVALUATE_PLOTS.iterdir()}
    table = pd.read_parquet(path)
    try:
        table.assign(row=table["row"] + 1).to_parquet(path)
        with pytest.raises(PipelineError, match=r"test.parquet: expected the rows of data/encoded, found others"):
            evaluate.main()
    finally:
        path.write_bytes(content)
    assert {plot: plot.stat().st_mtime_ns for plot in paths.EVALUATE_PLOTS.iterdir()} == plots


def test_predict_agrees_with_evaluate_and_with_the_merged_model_in_a_pipeline(inside, monkeypatch, tmp_path):
    table = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)
    answers = whole_run.predicted(monkeypatch, tmp_path, "--compare")
    assert list(answers)[:6] == ["text", "labels", "probability", *NAMES]
    assert answers["labels"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)
    assert {"untouched_labels", "untouched_praise"} <= set(answers)
    classify = whole_run.piped(monkeypatch, tmp_path, top_k=None)
    for row, scores in zip(answers.to_dict("records"), classify(table["text"].tolist()), strict=True):
        assert {score["label"]: score["score"] for score in scores} == pytest.approx(
            {name: row[name] for name in NAMES}, abs=1e-4
        )


@pytest.mark.long
def test_in_onnx_and_without_this_project_the_labels_are_the_same(inside, monkeypatch, tmp_path):
    answers, printed = whole_run.in_onnx(monkeypatch, tmp_path, texts={"text": "text"})
    given = [", ".join(part.split()[0] for part in line if part) or "(none)" for line in printed]
    assert given == answers["labels"].tolist()
    for line, (_, row) in zip(printed, answers.iterrows(), strict=True):
        for name, probability in map(str.split, filter(None, line)):
            assert float(probability) == pytest.approx(row[name], abs=1e-4)


def test_the_untouched_model_says_how_a_label_word_compares_with_the_others(inside):
    arguments = load_labels(paths.ADAPTER)
    model = load_base(paths.BASE_MODEL, labels=arguments, seed=0, head="label_words")
    words = label_words.label_word_rows(model, paths.BASE_MODEL, label_words.label_words(NAMES, None))
    torch.testing.assert_close(model.score.weight.data, words - words.mean(dim=0))
    rows = store.load_rows(paths.ENCODED / "test", store.About.load(paths.ENCODED))
    logits = inference.logits(model, replace(rows, states=None), batch_size=16, progress="")
    rival = MULTI.predictions(pd.read_parquet(paths.BASELINE_PREDICTIONS)["zero_shot"])
    np.testing.assert_allclose(rival.probabilities, expit(logits), atol=1e-5)


def test_what_lies_beside_the_adapter_says_how_to_read_it(inside):
    assert whole_run.read(paths.ADAPTER / "labels.json")["problem_type"] == "multi_label_classification"
    card = paths.CARD.read_text()
    assert "# Multi-label text classifier: `blame`, `praise`, `topic`" in card
    chosen = whole_run.read(paths.ADAPTER / "run.json")["metrics"]["thresholds"]
    assert f"exceeds their threshold: `blame` {chosen['blame']:.3f}, `praise`" in card
    assert 'print(classify("A warm, funny and wise film.", top_k=None, truncation=True))' in card
    assert "| row F1 | " in card
    report = paths.REPORT.read_text()
    assert " points of row F1, 95 % interval " in report
    assert "(paired permutation test; one seed; p corrected for" in report
    assert "| tuned, by label | test rows |" in report
    assert "(none)" in set(pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)["label"])


def test_the_plots_that_dvc_draws_are_there(inside):
    assert whole_run.drawn() == {"roc", "precision_recall", "reliability", "by_class", "length", "errors"}
    models = {"bag_of_words", "zero_shot", "linear_probe", "tuned"}
    assert set(pd.read_csv(paths.EVALUATE_PLOTS / "roc.csv")["model"]) == models
    assert set(pd.read_csv(paths.EVALUATE_PLOTS / "reliability.csv")["model"]) == models | {"tuned_uncalibrated"}
    assert paths.SUMMARY.read_bytes().startswith(b"\x89PNG")
    errors = pd.read_csv(paths.EVALUATE_PLOTS / "errors.csv").groupby("model")["rows"].sum()
    missed = 60 * (1 - whole_run.read(paths.EVALUATE_METRICS)["f1_samples"])
    assert errors["tuned"] == pytest.approx(missed, rel=1e-3)
    by_class = pd.read_csv(paths.EVALUATE_PLOTS / "by_class.csv")
    answers = pd.read_csv(paths.TEST_PREDICTIONS, keep_default_na=False)[["label", *models]].apply(sets)
    assert by_class["class"].unique().tolist() == NAMES
    assert set(by_class["model"]) == models
    for model, label, score in by_class.itertuples(index=False):
        has, given = (np.array([label in names for names in answers[column]]) for column in ("label", model))
        assert score == pytest.approx(f1_score(has, given), rel=1e-3)


def test_the_counts_by_label_are_those_of_the_rows_and_the_rows_add_up(inside):
    counts = whole_run.read(paths.DATA_METRICS)
    assert counts["rows"]["source"] == 400
    assert sum(counts["rows"][split] for split in paths.SPLITS) + sum(counts["dropped"].values()) == 400
    for split in paths.SPLITS:
        assert list(counts[split].values()) == truth(paths.PREPARED / f"{split}.parquet").sum(axis=0).tolist()
    assert np.load(paths.ENCODED / "test/labels.npy").dtype == np.float32
    assert (np.load(paths.ENCODED / "test/labels.npy") == truth(paths.PREPARED / "test.parquet")).all()
    assert whole_run.read(paths.ENCODED / "about.json")["problem"] == "multi_label"


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
    found = [reading.read(tmp_path / f"lists.{kind}", options(), Counter()) for kind in ("jsonl", "parquet")]
    found += [
        reading.read(tmp_path / f"columns.{kind}", options(label=list(WORDS)), Counter()) for kind in ("csv", "parquet")
    ]
    assert found[0]["label"].tolist() == [json.dumps(sorted(tags)) for tags in given["tags"]]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])
    assert splits.class_names({"train": found[0]}, options(label=list(WORDS))) == list(WORDS)
    assert splits.class_names({"train": found[0]}, options()) == NAMES


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
            "'a, b' in row 1; correct it, or remove the row",
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
        reading.read(path, options(label=label), Counter())
    assert str(caught.value).startswith("rows.jsonl: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repetitions_and_contradictions_are_found_whatever_the_order_of_the_labels():
    dropped = Counter()
    given = table([["a"], ["a"], ["a", "b"], ["b"]])
    given["text"] = ["same", "SAME", "odd", "odd"]
    assert cleaning.clean_rows(given, MULTI, dropped)["text"].tolist() == ["same"]
    assert dropped == {"blank": 0, "conflicting_labels": 2, "duplicate": 1}
    assert MULTI.read(["b", "a", "b"], "tags") == MULTI.read({"a": "1", "b": True, "c": 0}, ["a", "b", "c"])


def test_rare_combinations_stop_nothing_and_are_spread_over_the_splits():
    names = [f"label {number}" for number in range(7)]
    rare = [list(some) for some in itertools.combinations(names, 3)]  # 35 combinations, three rows each
    prepared = splits.split({"train": table([*rare, *rare, *rare, *[["common"]] * 105])}, options())
    share = {name: (split["label"] != '["common"]').mean() for name, split in prepared.items()}
    assert share == pytest.approx(dict.fromkeys(paths.SPLITS, 0.5), abs=0.03)


@pytest.mark.parametrize("limit", [None, 60, 12])
def test_a_label_of_one_row_is_learnt_from_it_whatever_the_seed_and_the_limit(limit):
    rare = [f"rare {number}" for number in range(9)]
    rows = table([*([name] for name in rare[:5]), rare[5:], *[["common"], ["common", "other"], [], ["common"]] * 60])
    for seed in range(8):
        given = options(seed=seed, limit={"train": limit, "validation": None, "test": None})
        cut = splits.split({"train": rows}, given)
        assert sorted(itertools.chain(*(split["text"] for split in cut.values()))) == sorted(rows["text"])
        kept = splits.limit(cut, given, Counter())
        assert {*MULTI.names(kept["train"]["label"])} == {*rare, "common", "other"}
        assert (kept["train"]["label"] == "[]").any(), "texts without a label are there to learn from"
        assert len(kept["train"]) == (limit or len(cut["train"]))


@pytest.mark.parametrize(
    ("combinations", "changes", "message"),
    [
        ([["a"]] * 9, {}, "expected at least two labels, found a"),
        ([[]] * 9, {}, "expected at least two labels, found no row with one"),
        (
            [["a"], ["b"], []] * 9,
            {"label": ["a", "b", "never"]},
            "split 'train': expected rows of every label, found none of never among 19; take them out of data.label",
        ),
        (
            [["a"], ["b"], []] * 9,
            {"split": {"validation": 0.01, "test": 0.2, "calibration": 0.0}},
            "'validation': expected rows, found none",
        ),
    ],
)
def test_a_label_without_rows_to_learn_from_is_one_clear_line(combinations, changes, message):
    with pytest.raises(PipelineError) as caught:
        splits.limit(splits.split({"train": table(combinations)}, options(**changes)), options(**changes), Counter())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "data",
            {"classes": {"a": 0, "b": 1}},
            "data.classes: expected None with data.problem: multi_label, which has no",
        ),
        ("data", {"label": ["a"]}, "data.label: expected string or at least 2 items"),
        ("data", {"label": ["a", "a"]}, "data.label: expected distinct columns, found ['a', 'a']: take one out"),
        (
            "data",
            {"label": ["a", "text"]},
            "data.label: expected a different column from data.text and data.text_pair, found",
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
        (
            "evaluate",
            {"main": "mcc"},
            "evaluate.main: expected auto or f1_samples or accuracy or f1_macro or roc_auc or log_loss with "
            "data.problem: multi_label, found 'mcc'",
        ),
        ("gate", {"min_gain": 1.5}, "gate.min_gain: expected a share below 1, found 1.5"),
    ],
)
def test_what_has_no_meaning_here_is_refused_before_anything_runs(tmp_path, section, changes, message):
    params = tiny_params(data=DATA)
    params[section] |= changes
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert f"has 1 problem(s):\n  {message}" in str(caught.value)


def test_suspect_labels_are_listed_by_row_with_the_sets_of_labels(inside):
    listed = pd.read_csv(paths.SUSPECTS, keep_default_na=False)
    columns = ["row", "split", "text", "label", "likely", "quality", "label_probability", "likely_probability"]
    assert list(listed) == columns
    assert listed["quality"].is_monotonic_increasing
    assert len(listed)
    assert (listed["label"] != listed["likely"]).all()
