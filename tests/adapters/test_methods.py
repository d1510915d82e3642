"""Every method of PEFT: it learns, its file holds all that it learned, and every way of running it agrees."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_run
import torch
from conftest import tiny_params
from families import unlabelled
from ruamel.yaml import YAML
from transformers import AutoModelForSequenceClassification

from stages import evaluate, export, train
from stages.adapters import methods
from stages.adapters.options import CONFIGS
from stages.adapters.run import Run
from stages.backbone import precision, store
from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import ParamsError, PipelineError
from stages.params import Params
from stages.training import head, recipe

CASES = [
    *(("llama", method) for method in [*CONFIGS, "full"] if method != "qlora"),
    *(("gpt2", method) for method in ("vera", "ia3", "prompt", "full")),
    *(("bert", method) for method in ("ln_tuning", "prompt", "prefix", "full")),
]
"""What differs by family: GPT-2's transposed projections, BERT's deeper head, where virtual tokens stand."""

LOADED = [("gpt2", "prompt"), ("gpt2", "full"), ("bert", "ln_tuning"), ("bert", "prompt"), ("bert", "full")]
"""Those that tests/adapters/test_load.py saves and loads, too; that they learn, the long tests show."""


@pytest.fixture
def encoded(saved_model, tmp_path, monkeypatch):
    """Enters a folder in which `encode` has run on a tiny model of a family."""

    def enter(family: str) -> dict[str, store.Rows]:
        monkeypatch.chdir(tmp_path)
        return tiny_run.encode_rows(saved_model(family))

    return enter


class Unread:
    """Stored states that nobody may read."""

    def __getitem__(self, span: slice) -> None:
        raise AssertionError("stored states were read")


def add(params: Params, base: Path, *, depth: int) -> torch.nn.Module:
    """The base model with the method's adapters."""
    return methods.add(
        load_base(base, labels=tiny_run.LABELS, seed=0),
        peft=params.peft,
        lora=params.lora,
        max_length=params.encode.max_length,
        depth=depth,
        base=base,
    )


@pytest.mark.parametrize(
    ("family", "method"), [pytest.param(*case, marks=pytest.mark.long) if case in LOADED else case for case in CASES]
)
def test_a_method_learns_and_every_way_of_running_what_it_saved_agrees(family, method, encoded, monkeypatch):
    test = encoded(family)["test"]
    tiny_run.write_params(method)
    model = tiny_run.train_and_keep(monkeypatch)
    losses = pd.read_csv(paths.TRAIN_CURVES / "loss.csv").query("split == 'training'")["loss"]
    assert losses[-5:].mean() < losses[:5].mean() or (family, method) == ("bert", "prompt"), "too slow to show"
    depth = Run.load(paths.ADAPTER).depth
    assert depth == (0 if method in (*methods.PROMPTS, "full") else 2)
    rows = test if depth else replace(test, states=None)
    expected = tiny_run.one_by_one(tiny_run.load_plainly(), test)
    tiny_run.assert_close(inference.logits(model, rows, batch_size=4, progress=""), expected)
    tiny_run.assert_close(
        evaluate.tuned_logits(paths.ADAPTER, test if depth else replace(test, states=Unread()), 4), expected
    )
    if method in methods.PROMPTS:
        with pytest.raises(PipelineError, match="expected an adapter that can be merged into the base model, found"):
            export.merge(paths.ADAPTER, paths.MERGED)
        return
    export.merge(paths.ADAPTER, paths.MERGED)
    merged = AutoModelForSequenceClassification.from_pretrained(paths.MERGED).eval()
    tiny_run.assert_close(tiny_run.one_by_one(merged, test), expected)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"encode": {"dtype": "bfloat16"}}])
def test_a_model_is_judged_by_its_answers_in_float32_whatever_it_was_trained_in(changes, encoded):
    test = encoded("llama")["test"]
    sections = {"lora": {"r": 4, "head_init": "random"}, "train": {"epochs": 1}}
    YAML().dump(tiny_params(**sections, **changes), paths.PARAMS)
    train.main()
    found = evaluate.tuned_logits(paths.ADAPTER, replace(test, states=Unread()), 4)
    tiny_run.assert_close(found, tiny_run.one_by_one(tiny_run.load_plainly(), test))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_qlora_trains_on_layers_in_four_bits_and_saves_a_plain_adapter(family, encoded, monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    test = encoded(family)["test"]
    sizes = []
    for method in ("lora", "qlora"):
        tiny_run.write_params(method)
        model = tiny_run.train_and_keep(monkeypatch)
        sizes.append(json.loads(paths.TRAIN_METRICS.read_text()))
    frozen = [layer for layer in model.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert frozen
    assert {layer.weight.quant_type for layer in frozen} == {"nf4"}
    assert all(8 * layer.weight.numel() == layer.in_features * layer.out_features for layer in frozen)
    for key in ("trainable_parameters", "total_parameters"):
        assert sizes[0][key] == sizes[1][key]
    assert sizes[1]["validation"]["accuracy"] > 0.9
    expected = tiny_run.one_by_one(tiny_run.load_plainly(), test)
    assert "quant" not in (paths.ADAPTER / "adapter_config.json").read_text()
    tiny_run.assert_close(evaluate.tuned_logits(paths.ADAPTER, test, 4), expected)
    np.testing.assert_allclose(inference.logits(model, test, batch_size=4, progress=""), expected, rtol=0, atol=0.5)
    export.merge(paths.ADAPTER, paths.MERGED)
    merged = AutoModelForSequenceClassification.from_pretrained(paths.MERGED).eval()
    tiny_run.assert_close(tiny_run.one_by_one(merged, test), expected)


def test_qlora_without_bitsandbytes_says_what_to_install(encoded, monkeypatch):
    encoded("llama")
    tiny_run.write_params("qlora")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"peft\.method: qlora: expected bitsandbytes, found it not installed"):
        train.main()


@pytest.mark.parametrize(("method", "weights"), [("adalora", "adapter_model"), ("full", "model")])
def test_a_method_writes_exactly_its_files_and_a_second_training_the_same_bytes(method, weights, encoded):
    encoded("llama")
    tiny_run.write_params(method, train={"epochs": 1})
    runs = []
    for _ in range(2):
        train.main()
        runs.append({path.name: path.read_bytes() for path in paths.ADAPTER.iterdir()})
    assert runs[0] == runs[1]
    names = {
        "README.md",
        "labels.json",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
        f"{weights}.safetensors",
    }
    assert set(runs[0]) == names | {"config.json" if method == "full" else "adapter_config.json"}
    assert f"import {'AutoModelFor' if method == 'full' else 'AutoPeftModelFor'}" in runs[0]["README.md"].decode()


@pytest.mark.parametrize("method", ["adalora", "p_tuning"])
def test_the_best_epoch_is_saved_though_later_ones_are_worse(method, encoded, monkeypatch):
    validation = encoded("llama")["validation"]
    flipped = 1 - np.load(paths.ENCODED / "validation/labels.npy")  # learning makes it worse
    np.save(paths.ENCODED / "validation/labels.npy", flipped)
    tiny_run.write_params(method, train={"epochs": 4})
    monkeypatch.setattr(head, "scale", lambda *_: None)
    train.main()
    scores = json.loads(paths.TRAIN_METRICS.read_text())
    assert scores["best_epoch"] < 4
    logits = torch.from_numpy(tiny_run.one_by_one(tiny_run.load_plainly(), validation))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(flipped)).item()
    assert loss == pytest.approx(scores["validation"]["loss"], abs=1e-4)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balancing_brings_a_rare_class_into_the_answers(balance, encoded):
    rows = encoded("llama")
    rare = np.where(np.arange(48) % 6 == 1, 1, 0)  # of the rows that start like the rare class, one in three is of it
    for split in ("train", "validation"):
        np.save(paths.ENCODED / split / "labels.npy", rare[: len(rows[split])])
    found = []
    for chosen in (None, balance):
        tiny_run.write_params("lora", train={"balance": chosen})
        train.main()
        found.append(int((evaluate.tuned_logits(paths.ADAPTER, rows["train"], 10).argmax(axis=1) == 1).sum()))
    assert found[0] == 0 < found[1]


def test_a_run_whose_rows_are_repeated_has_the_steps_and_the_evaluations_of_one_with_as_many_rows(encoded, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 40)
    monkeypatch.setattr(recipe, "FEW_STEPS", 1)
    encoded("llama")
    np.save(paths.ENCODED / "train/labels.npy", np.where(np.arange(48) % 6 == 1, 1, 0))  # 40 and 8 rows
    tiny_run.write_params("lora", train={"balance": "sampling", "epochs": "auto", "batch_size": 4})
    train.main()
    logged = pd.read_csv(paths.TRAIN_CURVES / "loss.csv")
    assert logged["step"].max() == 40, "two passes over 80 rows"
    assert (logged["split"] == "validation").sum() - 1 == recipe.evaluations(2, rows=80, validation_rows=16)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "lora",
            {"rank_patern": {}},
            "peft.options.rank_patern: unknown with peft.method: lora; did you mean 'rank_patt",
        ),
        ("full", {"r": 4}, "peft.options: expected none with peft.method: full, found {'r': 4}"),
        (
            "lora",
            {"rank_pattern": {"query": 4}},
            "PEFT rejects these settings: The following rank_pattern keys did",
        ),
        ("boft", {"boft_block_size": 5}, "peft.method: boft: PEFT rejects these settings: "),
        (
            "prompt",
            {"num_virtual_tokens": 65},
            "encode.max_length: expected at most 63, as the model takes 128 tokens and 65 of them are virtual",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_one_clear_line(method, options, message, saved_model):
    params = Params.model_validate(tiny_params(peft={"method": method, "options": options}))
    refused(message, params, saved_model("llama"))


@pytest.mark.parametrize("method", ["loha", "lokr", "oft", "boft"])
def test_a_method_that_cannot_adapt_gpt2s_projections_says_so(method, saved_model):
    params = Params.model_validate(tiny_params(peft={"method": method}))
    refused(f"peft.method: {method}: PEFT rejects these settings: Target module", params, saved_model("gpt2"))


def test_olora_is_refused_where_peft_starts_it_wrongly(saved_model):
    params = Params.model_validate(tiny_params(lora={"init": "olora"}))
    refused("found Conv1D layers in gpt2, whose outputs OLoRA in PEFT would change", params, saved_model("gpt2"))
    assert add(params, saved_model("llama"), depth=2)


@pytest.mark.parametrize(("family", "takes"), [("gpt2", 128), ("roberta", 129)])
@pytest.mark.parametrize("method", methods.PROMPTS)
def test_virtual_tokens_leave_room_for_the_longest_text_and_no_longer_one_is_allowed(
    family, takes, method, saved_model
):
    most = takes - methods.VIRTUAL_TOKENS
    sections = [{"peft": {"method": method}, "encode": {"max_length": length}} for length in (most, most + 1)]
    fitting, longer = (Params.model_validate(tiny_params(**section)) for section in sections)
    refused(
        f"encode.max_length: expected at most {most}, as the model takes {takes} tokens", longer, saved_model(family)
    )
    model = add(fitting, saved_model(family), depth=0).eval()
    in_16_bits = {"multiple": precision.multiple_of_tokens("bfloat16"), "max_length": most}
    rows = replace(unlabelled([np.arange(5, 5 + length) for length in (most, most - 1)], pad_token_id=0), **in_16_bits)
    assert inference.logits(model, rows, batch_size=1, progress="logits").shape == (2, 2)


def refused(message: str, params: Params, base: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        add(params, base, depth=2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "section", "changes", "message"),
    [
        ("ia3", "lora", {"use_dora": True}, "lora.use_dora: expected False with peft.method: ia3, which has no such"),
        (
            "prompt",
            "lora",
            {"target_modules": ["q"]},
            "lora.target_modules: expected 'all-linear' with peft.method: prompt",
        ),
        ("loha", "lora", {"dropout": 0.1}, "lora.dropout: expected 0.0 with peft.method: loha"),
        ("vera", "train", {"lora_plus_ratio": 16.0}, "train.lora_plus_ratio: expected None with peft.method: vera"),
        ("prefix", "train", {"activation_checkpointing": True}, "train.activation_checkpointing: expected False with"),
        ("lorra", "lora", {}, "peft.method: expected 'lora', 'qlora', 'adalora', "),
    ],
)
def test_a_setting_that_the_method_lacks_is_refused_before_anything_runs(method, section, changes, message, tmp_path):
    params = tiny_params(peft={"method": method})
    params[section] |= changes
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert f"has 1 problem(s):\n  {message}" in str(caught.value)


def test_options_reach_peft(saved_model):
    options = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 1}}
    params = Params.model_validate(tiny_params(peft={"options": options}))
    model = add(params, saved_model("llama"), depth=3)
    layers = {name.rpartition(".")[2]: part for name, part in model.named_modules() if hasattr(part, "lora_A")}
    assert (layers["q_proj"].r["default"], layers["k_proj"].r["default"]) == (2, 8)
    assert layers["v_proj"].scaling["default"] == 1 / 8


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("method", ["lora", "qlora", "adalora", "vera", "oft", "boft"])
def test_the_section_lora_sets_the_fields_by_pefts_names(method, bias):
    lora = Params.model_validate(tiny_params(lora={"bias": bias})).lora
    fields = methods.lora_fields(method, lora)
    own = method in ("vera", "oft", "boft") and bias == "lora_only"
    assert fields["bias"] == (f"{method}_only" if own else bias)
    if method == "lora":
        assert (fields["r"], fields["lora_alpha"], fields["init_lora_weights"]) == (8, 16, True)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [("attn.q_proj", "q_proj", True), ("q_proj", "q_proj", True), ("attn.q_proj", "proj", False), ("q", "a.q", False)],
)
def test_a_target_is_a_modules_whole_path_or_its_last_parts(path, name, expected):
    assert methods.ends_with(path, name) == expected
