"""Pairs of texts, through every stage and out again."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import whole_run
from conftest import tiny_params
from datasets import ClassLabel, Dataset
from families import BAD, GOOD, LAYERS, described, labels_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from stages import encode, predict
from stages.backbone import prefix, store
from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common import errors, paths
from stages.encoding import template, tokens
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.serving.answers import logits

TEMPLATE = "First: {text}\nSecond: {text_pair}\nThe same:"


def pairs(count):
    """Pairs that say the same or not; neither text alone tells."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        one, other = (GOOD, BAD) if number % 2 else (BAD, GOOD)
        first, second = generator.choice(one, 2), generator.choice(one if number // 2 % 2 else other, 2)
        rows.append(
            {
                "id": number,
                "one": f"{' '.join(first)} {generator.integers(10**9)} film",
                "two": f"{' '.join(second)} {generator.integers(10**9)} story",
                "same": bool(number // 2 % 2),
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    """A folder in which every stage ran on pairs."""
    data = {"format": None, "text": "one", "text_pair": "two", "label": "same", "classes": None}
    sections = {"data": data, "encode": {"template": TEMPLATE, "max_length": "auto"}, "train": {"epochs": 1}}
    with whole_run.ran(tmp_path_factory.mktemp("pairs"), pairs(160), saved_model("llama"), **sections) as folder:
        yield folder


def test_the_length_that_auto_stands_for_is_in_all_that_reads_texts(ran, monkeypatch):
    monkeypatch.chdir(ran)
    made, window = whole_run.read(paths.ADAPTER / "run.json"), 128
    assert made["params"]["encode"]["max_length"] == "auto"
    for values, key in (
        (made, "max_length"),
        (whole_run.read(paths.ENCODED / "about.json"), "max_length"),
        (whole_run.read(paths.ENCODE_METRICS), "max_length"),
        (whole_run.read(paths.ADAPTER / "tokenizer_config.json"), "model_max_length"),
    ):
        assert values[key] == window
    assert "Every text was read to its end, within `encode.max_length`, 128 tokens." in paths.REPORT.read_text()


def predicted(arguments, patch, capsys):
    patch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    capsys.readouterr()
    predict.main()
    return capsys.readouterr().out


def test_predict_agrees_with_evaluate_on_pairs_from_a_file(ran, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ran)
    table = pd.read_csv(paths.TEST_PREDICTIONS)
    assert list(table.columns[:4]) == ["row", "text", "text_pair", "label"]
    table.rename(columns={"text": "one", "text_pair": "two"})[["one", "two"]].to_csv(tmp_path / "in.csv", index=False)
    predicted(["--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"], monkeypatch, capsys)
    answers = pd.read_csv(tmp_path / "out.csv")
    assert answers["label"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)


@pytest.mark.long
def test_in_onnx_and_without_this_project_pairs_have_the_same_answers(ran, monkeypatch, tmp_path):
    monkeypatch.chdir(ran)
    answers, printed = whole_run.in_onnx(monkeypatch, tmp_path, texts={"text": "one", "text_pair": "two"})
    assert [label for label, _ in printed] == answers["label"].tolist()
    np.testing.assert_allclose([float(probability) for _, probability in printed], answers["probability"], atol=1e-4)


def test_a_tab_parts_the_texts_of_a_pair_on_the_command_line(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran)
    header, row = predicted(["good film\tbad story"], monkeypatch, capsys).splitlines()
    assert header.startswith("text\ttext_pair\tlabel\t")
    assert row.startswith("good film\tbad story\t")
    assert "half \ufffd\tbad\t" in predicted(["half \udcff\tbad"], monkeypatch, capsys)
    with pytest.raises(errors.PipelineError, match="expected pairs of texts with a TAB between them, found 'good'"):
        predicted(["good"], monkeypatch, capsys)


def test_every_rival_is_scored_on_pairs(ran):
    scores = json.loads((ran / paths.BASELINE_METRICS).read_text())
    assert {"bag_of_words", "zero_shot", "linear_probe"} <= set(scores)


@pytest.mark.parametrize("top_layers", [2, "all"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_an_encoder_is_told_which_text_is_which_wherever_it_reads_pairs(
    family, top_layers, saved_model, tmp_path, monkeypatch
):
    base, names, problem = saved_model(family), ["False", "True"], PROBLEMS["single_label"]
    monkeypatch.setattr(paths, "BASE_MODEL", base)
    table = pairs(9)
    both, labels = list(zip(table["one"], table["two"], strict=True)), labels_of(names, pad_token_id=0)
    typed = AutoTokenizer.from_pretrained(base, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    set_seed(1)
    plain = AutoModelForSequenceClassification.from_pretrained(base, **labels).eval()
    with torch.inference_mode():
        batch = typed(both, padding=True, return_tensors="pt")
        expected = plain(**batch).logits.numpy()
        assert np.abs(plain(batch["input_ids"], batch["attention_mask"]).logits.numpy() - expected).max() > 1e-3

    rows = {"row": range(9), "text": table["one"], "text_pair": table["two"], "label": table["same"].astype(int)}
    prepared = Dataset.from_dict({name: list(values) for name, values in rows.items()})
    prepared.cast_column("label", ClassLabel(names=names)).to_parquet(tmp_path / "train.parquet")
    tokenizer = template.load_tokenizer(base, template=None, max_length=64, pairs=True)
    split = tokens.tokenize(tmp_path / "train.parquet", tokenizer, scratch=tmp_path / "scratch")
    store.save_tokens(
        tmp_path / "train", tokens.chunks(split, tokenizer, stride=None, problem=problem, class_names=names)
    )
    lower, depth = encode.load_frozen_blocks(top_layers)
    about = described(depth=depth, class_names=names)
    assert depth == (LAYERS - 2 if (family, top_layers) == ("bert", 2) else 0)
    if lower:
        encode.encode_states(lower, tmp_path, about, Params.model_validate(tiny_params()), tmp_path / "place")
    model = load_base(base, labels=labels, seed=1)
    prefix.splice(model, depth)
    found = inference.logits(model, store.load_rows(tmp_path / "train", about), batch_size=4, progress="test")
    np.testing.assert_allclose(found, expected, atol=1e-5)

    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    found = logits(load_base(base, labels=labels, seed=1), both, tokenizer=saved)
    np.testing.assert_allclose(found, expected, atol=1e-5)
