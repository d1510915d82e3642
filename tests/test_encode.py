"""encode: what it says, what it refuses, and the layers that it runs."""

import numpy as np
import pytest
from conftest import tiny_params
from datasets import Dataset, Features
from families import LAYERS, described
from ruamel.yaml import YAML
from transformers import AutoModelForSequenceClassification

from stages import encode
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.encoding import template, tokens
from stages.encoding.length import Lengths
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.reporting import tables


@pytest.mark.parametrize(("cut", "warns"), [(5, False), (6, True)])
def test_a_line_says_where_more_than_a_twentieth_of_the_tokens_is_cut(cut, warns):
    whole = {"tokens": 0, "truncated_rows": 0, "truncated_tokens": 0}
    train = {"tokens": 100 - cut, "truncated_rows": 3, "truncated_tokens": cut}
    splits = {"train": train, "validation": whole, "test": whole}
    warning = encode.cut_warning({"max_length": 64, "choices": {"windows": {}}} | splits)
    assert (
        warning.startswith("warning: 6.0% of the tokens were cut off, from 3 texts; metrics/encode.json has") == warns
    )


@pytest.mark.parametrize(
    ("family", "text", "share"),
    [("bert", "😀 😡", "50.0%"), ("bert", "good film", None), ("gpt2", "😀 😡", None), ("llama", "😀 😡", None)],
)
def test_a_line_says_where_the_tokenizer_does_not_know_the_characters_of_the_texts(family, text, share, saved_model):
    tokenizer = template.load_tokenizer(saved_model(family), template="{text}", max_length=64)
    warning = tokens.unknown_warning(Dataset.from_dict({"tokens": tokenizer([text])["input_ids"]}), tokenizer)
    assert warning.startswith(f"warning: {share} of the training texts' tokens are [UNK]" if share else "")
    assert bool(warning) == bool(share)


SHORT, LONG = np.full(19, 30), np.array([*[30] * 18, 500])
"""Tokens of the texts of a split."""


def lengths(**changes):
    splits = {"train": LONG, "validation": SHORT, "test": LONG}
    return Lengths(**{"splits": splits, "template": 5, "window": 400, "pairs": False} | changes)


def params_of(**section):
    return Params.model_validate(tiny_params(encode=section))


@pytest.mark.parametrize(
    ("section", "depth", "expected"),
    [
        ({"max_length": 70}, 2, 70),
        ({}, 2, 400),
        ({"max_gb": 1e-6}, 2, 256),
        ({"max_gb": 1e-6}, 0, 400),
        ({"max_gb": 1e-6, "truncation": "windows"}, 2, 400),
    ],
    ids=["a number stays", "auto", "the states must fit the disk", "nothing is stored", "windows read all anyway"],
)
def test_a_length_is_chosen_by_what_it_costs(saved_model, monkeypatch, section, depth, expected):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model("llama"))
    assert encode.choose_length(lengths(), params_of(**{"max_length": "auto"} | section), depth) == expected


def test_what_other_choices_would_cost_is_written_where_texts_were_cut():
    about, saved = described(max_length=256), {"train": 796, "validation": 570, "test": 796}
    options = params_of(stride=8).encode
    metrics = encode.what_was_read(lengths(), saved, about, options)
    assert metrics["train"] == {"tokens": 796, "truncated_rows": 1, "truncated_tokens": 244}
    assert metrics["validation"] == {"tokens": 570, "truncated_rows": 0, "truncated_tokens": 0}
    assert {name: choice["tokens"] for name, choice in metrics["choices"].items()} == {
        "128": 2650 - 2 * 372,
        "256": 2650 - 2 * 244,
        "400": 2650 - 2 * 100,
        "windows": 2650 + 2 * (5 + 8),
    }
    assert metrics["choices"]["256"]["share_read"] == (2650 - 488) / 2650
    assert metrics["choices"]["256"]["gigabytes"] == pytest.approx(2162 * 32 * 4 / 1e9)
    assert metrics["choices"]["windows"]["share_read"] == 1
    assert encode.cut_warning(metrics).endswith("and encode.truncation: windows, which cuts nothing off")
    table = tables.what_was_read(metrics, dict.fromkeys(paths.SPLITS, 19), windows=False)
    assert "What other lengths and `encode.truncation: windows` would read and cost:" in table
    assert "2 of 57 texts were cut to `encode.max_length`, 256 tokens" in table
    assert "\n| **256** | 81.6% | 1.00 |" in table
    nothing_stored = encode.what_was_read(lengths(), saved, described(max_length=256, depth=0), options)["choices"]
    assert {choice["gigabytes"] for choice in nothing_stored.values()} == {0}


def test_pairs_have_no_windows_and_whole_texts_no_choices():
    saved, options = dict.fromkeys(paths.SPLITS, 100), params_of().encode
    cut = encode.what_was_read(lengths(pairs=True), saved, described(max_length=256), options)
    assert list(cut["choices"]) == ["128", "256", "400"]
    assert encode.cut_warning(cut).endswith("what other values of encode.max_length would read and cost")
    table = tables.what_was_read(cut, dict.fromkeys(paths.SPLITS, 19), windows=False)
    assert "What other lengths would read and cost:" in table
    whole = lengths(splits=dict.fromkeys(paths.SPLITS, SHORT))
    assert set(encode.what_was_read(whole, saved, described(), options)) == {"max_length", *paths.SPLITS}
    windows = params_of(truncation="windows").encode
    read = encode.what_was_read(lengths(), saved, described(), windows)
    assert read["train"]["truncated_rows"] == 0
    assert "choices" not in read


def test_states_may_fill_what_is_allowed_and_no_more():
    gigabytes = 1000 * 32 * 4 / 1e9
    encode.check_size(1000, described(), gigabytes)
    with pytest.raises(PipelineError, match=r"expected the stored states to fit encode.max_gb = .*, they need 0.00 GB"):
        encode.check_size(1001, described(), gigabytes)
    encode.check_size(2000, described(dtype="bfloat16"), gigabytes)


@pytest.mark.parametrize(
    ("problem", "values", "wanted"),
    [
        ("single_label", [1, 0], "the data's 2 classes bad, good, found one for 3: bad, so-so, good; give the data's"),
        (
            "multi_label",
            [[1], []],
            "the data's 2 classes bad, good, found one for 3: bad, so-so, good; give the data's",
        ),
        ("regression", [0.5, 2.0], "the data's 1 classes value, found one for 3: bad, so-so, good; give the data's"),
    ],
)
def test_a_saved_head_for_other_classes_is_refused_before_any_text_is_read(
    saved_model, tmp_path, monkeypatch, problem, values, wanted
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "load_frozen_blocks", None)
    names = dict(enumerate(["bad", "so-so", "good"]))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    AutoModelForSequenceClassification.from_pretrained(saved_model("bert"), **labels).save_pretrained(paths.BASE_MODEL)
    label = PROBLEMS[problem].feature(["bad", "good"])
    rows = Dataset.from_dict({"label": values}, features=Features({"label": label}))
    YAML().dump(tiny_params(data={"problem": problem, "classes": None}, evaluate={"main": "auto"}), paths.PARAMS)
    files.write_json(paths.DATASET, {})
    rows.to_parquet(paths.PREPARED / "train.parquet")
    with pytest.raises(
        PipelineError, match=f"^model.source: expected a model without a head, or with one for {wanted}"
    ):
        encode.main()
    assert not paths.ENCODED.exists()


@pytest.mark.parametrize(
    ("top_layers", "layers", "depth"), [(1, None, LAYERS - 1), (1, 3, 2), (3, 3, 0), (4, 3, 0), ("all", None, 0)]
)
def test_the_layers_in_use_below_the_top_ones_are_run(saved_model, monkeypatch, capsys, top_layers, layers, depth):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model("llama"))
    model, found = encode.load_frozen_blocks(top_layers, layers=layers)
    assert found == depth
    assert (model is None) == (depth == 0)
    assert ("all layers have adapters, so only tokens are stored" in capsys.readouterr().err) == (depth == 0)
