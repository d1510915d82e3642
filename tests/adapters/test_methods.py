"""Every method of PEFT: it learns, its file holds all that it learned, and every way of running it agrees."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_params
from peft import AutoPeftModelForSequenceClassification
from ruamel.yaml import YAML
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from stages import encode, evaluate, export, train
from stages.adapters import methods as adapters
from stages.backbone import store
from stages.classifier import model as classifier
from stages.common import files, paths
from stages.common.errors import ParamsError, PipelineError
from stages.params import Params
from stages.training import head
from stages.training import trainer as training

CASES = [
    *(("llama", method) for method in [*adapters.CONFIGS, "full"] if method != "qlora"),
    *(("gpt2", method) for method in ("vera", "ia3", "prompt", "full")),
    *(("bert", method) for method in ("ln_tuning", "prompt", "prefix", "full")),
]
"""What differs by family: GPT-2's transposed projections, BERT's deeper head, where virtual tokens stand."""
LABELS = classifier.label_arguments(["bad", "good"], pad_token_id=0)
RATES = {"prompt": 0.03, "prefix": 0.03, "ia3": 0.03, "vera": 0.03, "ln_tuning": 0.02, "head": 0.02, "full": 3e-3}


def write_params(method: str, **changes: dict) -> Params:
    """params.yaml for a tiny run of a method."""
    sections = {
        "peft": {"method": method, "options": {"num_virtual_tokens": 4} if method in adapters.PROMPTS else {}},
        "lora": {"r": 4, "head_init": "random"},
        "train": {"epochs": 3 if method in adapters.PROMPTS else 2, "lr": RATES.get(method, 1e-2), "logging_steps": 1},
    }
    for section, values in changes.items():
        sections[section] |= values
    params = tiny_params(**sections)
    YAML().dump(params, paths.PARAMS)
    return Params.model_validate(params)


@pytest.fixture
def encoded(saved_model, tmp_path, monkeypatch):
    """Enters a folder in which `encode` has run on a tiny model of a family; its first token gives the class away."""

    def enter(family: str) -> dict[str, store.Rows]:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(saved_model(family), paths.BASE_MODEL)
        source = {"source": "path:models/raw/tiny", "revision": None, "license": "MIT"}
        files.write_json(paths.BASE_MODEL / "source.json", source)
        about = store.About(class_names=["bad", "good"], depth=2, hidden_size=32, dtype="float32", pad_token_id=0)
        paths.ENCODED.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for name, count in (("train", 48), ("validation", 16), ("test", 10)):
            labels = np.arange(count) % 2
            tokens = [[10 + label, *generator.integers(20, 60, size=generator.integers(2, 9))] for label in labels]
            store.save_tokens(paths.ENCODED / name, [([[row] for row in tokens], labels)])
        lower, _ = encode.load_lower(paths.BASE_MODEL, 2)
        encode.encode_states(lower, paths.ENCODED, about, write_params("lora"))
        AutoTokenizer.from_pretrained(paths.BASE_MODEL).save_pretrained(paths.ENCODED / "tokenizer")
        about.save(paths.ENCODED)
        return {name: store.load_rows(paths.ENCODED / name, about) for name in paths.SPLITS}

    return enter


def plain() -> torch.nn.Module:
    """The saved model, loaded with nothing but PEFT and transformers."""
    whole = (paths.ADAPTER / "config.json").exists()
    kind = AutoModelForSequenceClassification if whole else AutoPeftModelForSequenceClassification
    set_seed(99)  # what is not in the file starts otherwise than in training
    return kind.from_pretrained(paths.ADAPTER, dtype=torch.float32, **classifier.load_labels(paths.ADAPTER)).eval()


def one_by_one(model: torch.nn.Module, rows: store.Rows) -> np.ndarray:
    """The logits of every row, each computed alone from its tokens."""
    with torch.inference_mode():
        batches = [classifier.inputs(replace(rows, states=None), [number]) for number in range(len(rows))]
        return np.concatenate([model(**batch).logits.numpy() for batch in batches])


class Unread:
    """Stored states that nobody may read."""

    def __getitem__(self, span: slice) -> None:
        raise AssertionError("stored states were read")


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def trained(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The model that `train` saves, as it is in memory, and after its whole run."""
    kept = []
    save = train.save
    with monkeypatch.context() as patched:
        patched.setattr(train, "save", lambda model, *rest: (kept.append(model), save(model, *rest)))
        train.main()
    return kept[0].eval()


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_method_learns_and_every_way_of_running_what_it_saved_agrees(family, method, encoded, monkeypatch):
    test = encoded(family)["test"]
    write_params(method)
    model = trained(monkeypatch)
    losses = pd.read_csv(paths.TRAIN_CURVES / "plots/metrics/loss.tsv", sep="\t")["loss"]
    assert losses[-5:].mean() < losses[:5].mean() or (family, method) == ("bert", "prompt"), "too slow to show"
    depth = json.loads((paths.ADAPTER / "run.json").read_text())["depth"]
    assert depth == (0 if method in (*adapters.PROMPTS, "full") else 2)
    rows = test if depth else replace(test, states=None)
    expected = one_by_one(plain(), test)
    close(classifier.logits(model, rows, batch_size=4, progress=""), expected)
    close(evaluate.tuned(test if depth else replace(test, states=Unread()), depth, 4), expected)
    if method in adapters.PROMPTS:
        with pytest.raises(PipelineError, match="expected an adapter that can be merged into the base model, found"):
            export.merge(paths.MERGED)
        return
    export.merge(paths.MERGED)
    close(one_by_one(AutoModelForSequenceClassification.from_pretrained(paths.MERGED).eval(), test), expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_qlora_trains_on_layers_in_four_bits_and_saves_a_plain_adapter(family, encoded, monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    test = encoded(family)["test"]
    sizes = []
    for method in ("lora", "qlora"):
        write_params(method)
        model = trained(monkeypatch)
        sizes.append(json.loads(paths.TRAIN_METRICS.read_text()))
    frozen = [layer for layer in model.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert frozen
    assert {(layer.weight.dtype, layer.weight.quant_type) for layer in frozen} == {(torch.uint8, "nf4")}
    for key in ("trainable_parameters", "total_parameters"):
        assert sizes[0][key] == sizes[1][key]
    assert sizes[1]["validation"]["accuracy"] > 0.9
    expected = one_by_one(plain(), test)
    assert "quant" not in (paths.ADAPTER / "adapter_config.json").read_text()
    close(evaluate.tuned(test, 2, 4), expected)
    np.testing.assert_allclose(classifier.logits(model, test, batch_size=4, progress=""), expected, rtol=0, atol=0.5)
    export.merge(paths.MERGED)
    close(one_by_one(AutoModelForSequenceClassification.from_pretrained(paths.MERGED).eval(), test), expected)


def test_qlora_without_bitsandbytes_says_what_to_install(encoded, monkeypatch):
    encoded("llama")
    write_params("qlora")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"peft\.method: qlora: expected bitsandbytes, found it not installed"):
        train.main()


@pytest.mark.parametrize(("method", "weights"), [("adalora", "adapter_model"), ("full", "model")])
def test_a_method_writes_exactly_its_files_and_a_second_training_the_same_bytes(method, weights, encoded):
    encoded("llama")
    write_params(method, train={"epochs": 1})
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
    write_params(method, train={"epochs": 4})
    monkeypatch.setattr(head, "scale", lambda *_: None)
    train.main()
    scores = json.loads(paths.TRAIN_METRICS.read_text())
    assert scores["best_epoch"] < 4
    logits = torch.from_numpy(one_by_one(plain(), validation))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(flipped)).item()
    assert loss == pytest.approx(scores["validation"]["loss"], abs=1e-4)


def test_adalora_ends_at_the_mean_rank_asked_for_and_its_penalty_is_pefts(encoded, monkeypatch):
    rows = encoded("llama")
    write_params("adalora")
    model = trained(monkeypatch).train()
    kept = [part for name, part in model.named_parameters() if "lora_E" in name]
    assert {part.numel() for part in kept} == {6}
    assert sum(int((part != 0).sum()) for part in kept) == 4 * len(kept)
    assert len({int((part != 0).sum()) for part in kept}) > 1, "some layers gave rank to others"
    plain = AutoPeftModelForSequenceClassification.from_pretrained(paths.ADAPTER, is_trainable=True, **LABELS)
    batch = rows["train"].batch(np.arange(4))
    states = batch.pop("states")
    ours, pefts = model(**batch, states=states).loss, plain.train()(**batch).loss
    torch.testing.assert_close(ours, pefts, rtol=0, atol=1e-4)
    model.eval()
    expected = torch.nn.functional.cross_entropy(model(**batch, states=states).logits, batch["labels"])
    torch.testing.assert_close(model(**batch, states=states).loss, expected)
    assert ours > expected + 0.1


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "lora",
            {"rank_patern": {}},
            "peft.options.rank_patern: unknown with peft.method: lora; did you mean 'rank_patt",
        ),
        (
            "ia3",
            {"rank_pattern": {}},
            "peft.options.rank_pattern: unknown with peft.method: ia3; ia3 has exclude_modules, ",
        ),
        ("lora", {"r": 4}, "peft.options.r: expected lora.r to set it, found 4"),
        (
            "vera",
            {"target_modules": []},
            "peft.options.target_modules: expected lora.target_modules to set it, found []",
        ),
        ("lora", {"inference_mode": True}, "peft.options.inference_mode: unknown with peft.method: lora"),
        ("prompt", {"num_virtual_tokens": "x"}, "peft.options.num_virtual_tokens: expected a valid integer, found 'x'"),
        ("oft", {"eps": float("nan")}, "peft.options.eps: expected a finite number, found nan"),
        ("head", {"r": 4}, "peft.options: expected none with peft.method: head, found {'r': 4}"),
        (
            "lora",
            {"rank_pattern": {"query": 4}},
            "PEFT does not take these settings: The following rank_pattern keys did",
        ),
        ("boft", {"boft_block_size": 5}, "peft.method: boft: PEFT does not take these settings: "),
        (
            "prompt",
            {"num_virtual_tokens": 65},
            "encode.max_length: expected at most 63, as the model has 128 positions",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_one_clear_line(method, options, message, saved_model):
    params = Params.model_validate(tiny_params(peft={"method": method, "options": options}))
    refused(message, params, saved_model("llama"))


@pytest.mark.parametrize("method", ["loha", "lokr", "oft", "boft"])
def test_a_method_that_cannot_adapt_gpt2s_projections_says_so(method, saved_model):
    params = Params.model_validate(tiny_params(peft={"method": method}))
    refused(f"peft.method: {method}: PEFT does not take these settings: Target module", params, saved_model("gpt2"))


def refused(message: str, params: Params, base: Path) -> None:
    model = classifier.load_base(base, labels=LABELS, seed=0)
    with pytest.raises(PipelineError) as caught:
        adapters.add(model, params, depth=2, base=base)
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
        (
            "adalora",
            "train",
            {"balance": "weights"},
            "train.balance: expected None with peft.method: adalora",
        ),
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
    model = classifier.load_base(saved_model("llama"), labels=LABELS, seed=0)
    model = adapters.add(model, params, depth=3, base=saved_model("llama"))
    layers = {name.rpartition(".")[2]: part for name, part in model.named_modules() if hasattr(part, "lora_A")}
    assert (layers["q_proj"].r["default"], layers["k_proj"].r["default"]) == (2, 8)
    assert layers["v_proj"].scaling["default"] == 1 / 8


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_and_smoothing_change_the_training_loss_alone(saved_model, smoothing):
    model = classifier.load_base(saved_model("llama"), labels=LABELS, seed=0)
    options = Params.model_validate(tiny_params(train={"balance": "weights", "label_smoothing": smoothing})).train
    loss = training.loss_function(model.train(), np.array([0, 0, 0, 1]), options)
    output, labels = SimpleNamespace(logits=torch.tensor([[2.0, 0.0], [0.0, 1.0]])), torch.tensor([0, 1])
    entropy, log = torch.nn.functional.cross_entropy, files.logits.log_softmax(dim=1)
    weights = torch.tensor([4 / 6, 4 / 2])
    plain = -(weights[0] * log[0, 0] + weights[1] * log[1, 1]) / weights.sum()
    smooth = -(weights * log).sum() / weights.sum() / 2
    assert loss(output, labels) == pytest.approx(((1 - smoothing) * plain + smoothing * smooth).item())
    model.eval()
    assert loss(output, labels) == pytest.approx(entropy(files.logits, labels).item())


def test_without_weights_and_smoothing_the_models_own_loss_is_used(saved_model):
    options = Params.model_validate(tiny_params()).train
    assert (
        training.loss_function(classifier.load_base(saved_model("llama"), labels=LABELS, seed=0), [0, 1], options)
        is None
    )


def test_balanced_sampling_brings_every_row_and_every_class_equally_often():
    labels = np.array([0, 1, 0, 0, 2, 0, 2])
    numbers = training.equally_often(labels)
    assert set(numbers) == set(range(7))
    assert np.bincount(labels[numbers]).tolist() == [4, 4, 4]
    assert max(np.bincount(numbers)[labels == 2]) == 2


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balancing_brings_a_rare_class_into_the_answers(balance, encoded):
    rows = encoded("llama")
    rare = np.where(np.arange(48) % 8 == 1, 1, 0)  # among the rows that start like the rare class, one in four is of it
    for split in ("train", "validation"):
        np.save(paths.ENCODED / split / "labels.npy", rare[: len(rows[split])])
    found = []
    for chosen in (None, balance):
        write_params("lora", train={"balance": chosen})
        train.main()
        found.append(int((evaluate.tuned(rows["test"], 2, 10).argmax(axis=1) == 1).sum()))
    assert found[0] == 0 < found[1]


def test_lora_plus_gives_lora_b_the_higher_rate(saved_model, tmp_path):
    params = Params.model_validate(tiny_params(train={"lora_plus_ratio": 16.0, "lr": 1e-3, "weight_decay": 0.1}))
    model = classifier.load_base(saved_model("llama"), labels=LABELS, seed=0)
    model = adapters.add(model, params, depth=3, base=saved_model("llama"))
    optimizer = training.lora_plus(model, params.train, training.arguments(params, str(tmp_path)))
    rates = {part: group["lr"] for group in optimizer.param_groups for part in group["params"]}
    for name, part in model.named_parameters():
        if part.requires_grad:
            assert rates[part] == pytest.approx(1.6e-2 if "lora_B" in name else 1e-3)
    assert {group["weight_decay"] for group in optimizer.param_groups if group["params"]} == {0.1}
