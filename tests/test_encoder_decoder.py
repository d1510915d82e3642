"""An encoder-decoder through every stage and out again; what its head needs of a tokenizer, and what is adapted."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import whole_run
from conftest import ROOT
from families import adapted, labels_of, sentences, t5_tokenizer, unlabelled
from peft.tuners.lora import LoraLayer
from tokenizers import processors
from transformers import AutoTokenizer

from stages.backbone import precision
from stages.backbone.base import keep_lowest_layers, load_config
from stages.classifier import inference
from stages.classifier.model import is_causal, load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.encoding import template
from stages.params import Params
from stages.training import head, quantized

LABELS = labels_of(["bad", "good"])

SPECIAL = "A </s> film <pad> of </s>"
"""A text with special tokens written out."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    """A folder in which every stage ran with a T5."""
    data = {"format": None, "text": "text", "label": "good", "classes": None}
    texts = sentences(160)
    rows = pd.DataFrame({"text": [text for text, _ in texts], "good": [rating > 0 for _, rating in texts]})
    rows["text"] += np.where(rows.index % 5, "", f" {SPECIAL}")
    sections = {"data": data, "encode": {"template": "{text}", "max_length": 64}, "train": {"epochs": 4}}
    with whole_run.ran(tmp_path_factory.mktemp("t5"), rows, saved_model("t5"), **sections) as folder:
        yield folder


def test_its_answers_are_those_of_plain_peft_and_of_the_merged_model(ran, monkeypatch, tmp_path):
    monkeypatch.chdir(ran)
    table, found = pd.read_csv(paths.TEST_PREDICTIONS), whole_run.predicted(monkeypatch, tmp_path)
    given, likely = table["text"].tolist(), table["probability"]
    assert any("</s>" in text for text in given)
    np.testing.assert_allclose(found["probability"], likely, atol=1e-4)
    logits = torch.from_numpy(whole_run.plain_logits(given))
    np.testing.assert_allclose(logits.softmax(dim=1).amax(dim=1), likely, atol=1e-4)
    merged = whole_run.piped(monkeypatch, tmp_path)(given)
    np.testing.assert_allclose([one["score"] for one in merged], likely, atol=1e-4)
    assert [one["label"] for one in merged] == table["tuned"].astype(str).str.lower().tolist()
    assert likely.std() > 0.02


def test_it_has_the_rivals_of_an_encoder_and_nothing_is_stored(ran, monkeypatch):
    monkeypatch.chdir(ran)
    assert list(whole_run.read(paths.BASELINE_METRICS)) == ["majority", "bag_of_words", "untrained", "linear_probe"]
    assert not list(paths.ENCODED.rglob("states*"))
    assert whole_run.read(paths.ENCODED / "about.json")["depth"] == 0
    assert whole_run.read(paths.TRAIN_METRICS)["start"].keys() == {"probe"}


@pytest.mark.parametrize("family", ["t5", "mbart", "bart"])
def test_every_row_has_one_end_token_whatever_is_cut_off_or_written_out(saved_model, family):
    base = saved_model(family)
    end, text = load_config(base).eos_token_id, " ".join([SPECIAL] * 9)
    for form, truncation in (("{text}", "head"), ("{text}", "tail"), ("Review: {text}\nSentiment:", "windows")):
        tokenizer = template.load_tokenizer(base, template=form, max_length=24, truncation=truncation)
        stride = 4 if truncation == "windows" else None
        rows = template.token_rows(tokenizer, [text, "", "good"], stride)["tokens"]
        assert len(rows[0]) > 1 or stride is None
        for row in (row for of_text in rows for row in of_text):
            assert row.count(end) == 1
            assert tokenizer.pad_token_id not in row


def test_a_tokenizer_that_ends_no_text_is_refused(saved_model, tmp_path):
    shutil.copytree(saved_model("t5"), tmp_path, dirs_exist_ok=True)
    tokenizer = t5_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save_pretrained(tmp_path)
    expected = r"expected a tokenizer that ends each text with the token 1 .* t5's head reads, found \[\] around a text"
    with pytest.raises(PipelineError, match=expected):
        template.load_tokenizer(tmp_path, template="{text}", max_length=24)


def test_the_end_token_pads_no_row(saved_model, tmp_path):
    shutil.copytree(saved_model("bart"), tmp_path, dirs_exist_ok=True)
    change(tmp_path / "tokenizer_config.json", pad_token="</s>")
    change(tmp_path / "config.json", pad_token_id=2)
    assert template.load_tokenizer(tmp_path, template="{text}", max_length=24).pad_token == "<pad>"


def test_a_decoder_of_which_nothing_says_how_it_begins_is_refused(saved_model, tmp_path):
    shutil.copytree(saved_model("t5"), tmp_path, dirs_exist_ok=True)
    change(tmp_path / "config.json", decoder_start_token_id=None)
    with pytest.raises(
        PipelineError, match=r"expected decoder_start_token_id in config.json, .* with its pad token, 0"
    ):
        load_config(tmp_path)
    assert load_config(saved_model("mbart")).decoder_start_token_id is None


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("family", "layers", "targets", "encoder", "decoder"),
    [
        ("t5", None, "all-linear", 4 * 6, 2 * 10),
        ("t5", 2, "all-linear", 2 * 6, 2 * 10),
        ("t5", None, ["q", "SelfAttention.k"], 4 * 2, 2 * 3),
        ("t5", None, ["EncDecAttention.o"], 0, 2),
        ("bart", None, "all-linear", 4 * 6, 4 * 10),
        ("plbart", None, "all-linear", 4 * 6, 6 * 10),
        ("plbart", None, ["out_proj"], 4, 6 * 2),
    ],
)
def test_lora_adapts_all_layers_of_both_and_not_the_head(saved_model, family, layers, targets, encoder, decoder):
    base, settings = saved_model(family), params()
    labels = LABELS | keep_lowest_layers(base, layers)
    changed = settings.model_copy(update={"lora": settings.lora.model_copy(update={"target_modules": targets})})
    model = adapted(load_base(base, labels=labels, seed=1), changed, depth=0, base=base)
    found = [name for name, part in model.named_modules() if isinstance(part, LoraLayer)]
    counts = [sum(f".{part}." in name for name in found) for part in ("encoder", "decoder")]
    assert counts == [encoder, decoder]
    assert len(found) == sum(counts)
    saved = {name for name, part in model.named_parameters() if part.requires_grad and "lora_" not in name}
    assert saved == {
        f"base_model.model.classification_head.modules_to_save.default.{layer}.{part}"
        for layer in ("dense", "out_proj")
        for part in ("weight", "bias")
    }


def params():
    return Params.load(ROOT / paths.PARAMS)


@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning"])
def test_virtual_tokens_are_refused(saved_model, method):
    changed = params().model_copy(update={"peft": params().peft.model_copy(update={"method": method})})
    base = saved_model("bart")
    with pytest.raises(PipelineError, match=f"peft.method: {method}: expected an encoder or a decoder, found bart, bo"):
        adapted(load_base(base, labels=LABELS, seed=1), changed, depth=0, base=base)


@pytest.mark.parametrize("family", ["t5", "plbart"])
def test_features_are_the_mean_of_the_encoders_states_and_the_probe_reads_what_the_head_does(saved_model, family):
    base = saved_model(family)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = tokenizer([text for text, _ in sentences(8)])["input_ids"]
    rows = replace(unlabelled(tokens, tokenizer.pad_token_id), labels=np.arange(8) % 2)
    model = load_base(base, labels=labels_of(["bad", "good"], tokenizer.pad_token_id), seed=1)
    assert not is_causal(model.config)
    _, found = inference.logits_and_features(model, rows, after=(2, 4), batch_size=4, progress="test")
    with torch.inference_mode():
        for index, row in enumerate(tokens):
            states = model.get_encoder()(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
            for layer, features in zip((2, 4), found, strict=True):
                np.testing.assert_allclose(features[index], states[layer][0].mean(dim=0), atol=1e-5)
    head.put(model, head.fitted(model, rows, batch_size=4, precision="float32", seed=1))
    logits = inference.logits(model, rows, batch_size=4, progress="test")
    assert (logits.argmax(axis=1) == rows.labels).mean() > 0.9


@pytest.mark.parametrize(("family", "decoder"), [("t5", 2), ("plbart", 3)])
def test_the_lowest_layers_are_those_of_both(saved_model, family, decoder):
    base = saved_model(family)
    model = load_base(base, labels=LABELS | keep_lowest_layers(base, 3), seed=1)
    counts = [
        sum(name.endswith(("SelfAttention", "self_attn")) for name, _ in part.named_modules())
        for part in (model.get_encoder(), model.get_decoder())
    ]
    assert counts == [3, decoder]


IDS = {"input_ids": torch.tensor([[5, 6, 7, 8, 1], [9, 10, 1, 0, 0]])}
IDS |= {"attention_mask": (IDS["input_ids"] != 0).long()}


def test_t5_computes_in_16_bits_what_it_does_in_32(saved_model):
    model = load_base(saved_model("t5"), labels=LABELS, seed=1).eval()
    with torch.no_grad():
        expected = model(**IDS).logits
        precision.attend_in_float32(model)
        torch.testing.assert_close(model(**IDS).logits, expected)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(**IDS).logits.float(), expected, rtol=0.05, atol=0.05)


def test_t5_has_4_bit_layers_in_both_parts_but_none_whose_dtype_it_reads(saved_model):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = saved_model("t5")
    model = load_base(base, labels=LABELS, seed=1).eval()
    quantized.quantize(model, 0, "float32")
    names = {name for name, part in model.named_modules() if isinstance(part, bitsandbytes.nn.Linear4bit)}
    assert sum(".encoder." in name for name in names) == 4 * 5
    assert sum(".decoder." in name for name in names) == 2 * 9
    assert not any(name.endswith(".wo") for name in names)
    model = adapted(model, params(), depth=0, base=base)
    assert model(**IDS).logits.isfinite().all()
