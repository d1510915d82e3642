"""Long texts in windows: every token is read, each window within the template, and a text has one answer."""

import json

import numpy as np
import pandas as pd
import pytest
import whole_run
from families import BAD, GOOD

from stages import evaluate
from stages.backbone import store
from stages.common import errors, paths
from stages.encoding import template

TEMPLATE = "Review: {text}\nSentiment:"
LENGTH, STRIDE = 32, 8


def reviews(count):
    """Texts of one to five windows, whose words tell the class."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        words = (GOOD, BAD)[number % 2]
        text = " ".join(f"{generator.choice(words)} {generator.integers(1000)}" for _ in range(1 + number % 24))
        rows.append({"text": f"film {number} {text}", "label": ("good", "bad")[number % 2]})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    """A folder in which every stage ran on long texts."""
    data = {"format": None, "text": "text", "label": "label", "classes": None, "near_duplicate": 1.0}
    windows = {"truncation": "windows", "max_length": LENGTH, "stride": STRIDE}
    sections = {"data": data, "encode": windows, "train": {"epochs": 3}}
    with whole_run.ran(tmp_path_factory.mktemp("windows"), reviews(240), saved_model("llama"), **sections) as folder:
        yield folder


@pytest.fixture
def rows(ran, monkeypatch):
    monkeypatch.chdir(ran)
    return store.load_rows(paths.ENCODED / "test", store.About.load(paths.ENCODED))


def test_every_token_is_read_each_window_stands_in_the_template_and_neighbours_overlap(rows, ran, saved_model):
    tokenizer = template.load_tokenizer(saved_model("llama"), template=TEMPLATE, max_length=LENGTH)
    around = tokenizer("")["input_ids"]
    whole = [tokenizer(text)["input_ids"] for text in pd.read_parquet(paths.PREPARED / "test.parquet")["text"]]
    before = next(place for place, token in enumerate(around) if token != whole[0][place])
    after = len(around) - before
    assert len(rows.windows) - 1 == len(whole) < len(rows)
    for text, tokens in enumerate(whole):
        read = []
        for row in range(rows.windows[text], rows.windows[text + 1]):
            window = rows.tokens[rows.offsets[row] : rows.offsets[row + 1]].tolist()
            assert len(window) <= LENGTH
            assert (window[:before], window[-after:]) == (around[:before], around[before:])
            inside = window[before:-after]
            assert not read or read[-STRIDE:] == inside[:STRIDE]
            read += inside[STRIDE if read else 0 :]
        assert read == tokens[before:-after]
    assert json.loads(paths.ENCODE_METRICS.read_text())["test"]["truncated_tokens"] == 0


def test_a_text_has_one_answer_in_all_that_is_written(rows):
    table = pd.read_csv(paths.TEST_PREDICTIONS)
    assert len(table) == len(rows.windows) - 1
    tuned = json.loads(paths.EVALUATE_METRICS.read_text())
    assert tuned["accuracy"] == pytest.approx((table["tuned"] == table["label"]).mean(), rel=1e-4)
    assert tuned["accuracy"] > 0.8
    assert pd.read_csv(paths.EVALUATE_PLOTS / "length.csv").query("model == 'tuned'")["rows"].sum() == len(table)
    numbers = pd.read_parquet(paths.PREPARED / "test.parquet")["row"].tolist()
    rivals, features = pd.read_parquet(paths.BASELINE_PREDICTIONS), pd.read_parquet(paths.FEATURES / "test.parquet")
    assert table["row"].tolist() == rivals["row"].tolist() == features["row"].tolist() == numbers
    validation = json.loads(paths.TRAIN_METRICS.read_text())["validation"]
    texts = len(pd.read_parquet(paths.PREPARED / "validation.parquet"))
    assert validation["accuracy"] * texts == pytest.approx(round(validation["accuracy"] * texts), rel=1e-4)


def test_validation_accuracy_is_that_of_texts_whatever_the_order_of_their_windows(rows):
    about = store.About.load(paths.ENCODED)
    validation = store.load_rows(paths.ENCODED / "validation", about)
    made = json.loads((paths.ADAPTER / "run.json").read_text())
    logits = evaluate.tuned_logits(paths.ADAPTER, validation, 16)
    found = (logits.argmax(axis=1) == validation.text_labels).mean()
    assert found == pytest.approx(made["metrics"]["validation"]["accuracy"])


def test_predict_agrees_with_evaluate(rows, tmp_path, monkeypatch):
    table, answers = pd.read_csv(paths.TEST_PREDICTIONS), whole_run.predicted(monkeypatch, tmp_path)
    assert answers["label"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)


@pytest.mark.long
def test_in_onnx_and_without_this_project_the_windows_are_the_same(rows, tmp_path, monkeypatch):
    answers, printed = whole_run.in_onnx(monkeypatch, tmp_path, texts={"text": "text"})
    assert [label for label, _ in printed] == answers["label"].tolist()
    np.testing.assert_allclose([float(probability) for _, probability in printed], answers["probability"], atol=1e-4)


def test_a_stride_without_room_for_more_text_is_refused(saved_model):
    tokenizer = template.load_tokenizer(saved_model("llama"), template=TEMPLATE, max_length=LENGTH)
    room = LENGTH - len(tokenizer("")["input_ids"])
    assert len(template.token_rows(tokenizer, ["good film " * 50], room - 1)["tokens"][0]) > 1
    with pytest.raises(errors.PipelineError, match=rf"encode.stride: expected less than the {room} tokens .* {room}$"):
        template.token_rows(tokenizer, ["good film " * 50], room)["tokens"]
