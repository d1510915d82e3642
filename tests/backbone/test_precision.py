"""16-bit products: close to float32's results, the same from run to run, and refused where they cannot be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from conftest import FAMILIES, tiny_params
from families import chunk_of, described, labels_of, save_model, stored
from transformers import AutoModelForSequenceClassification

from stages import encode
from stages.backbone import parallel, precision, store
from stages.backbone.device import device
from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params

LABELS = labels_of(["bad", "good"])
BATCH = {
    "input_ids": torch.tensor([[2, 5, 9, 4, 7], [2, 8, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.fixture
def folder(tmp_path):
    """Three splits of tokens, without states."""
    tokens = [[row] for row in np.random.default_rng(0).integers(5, 60, size=(6, 9)).tolist()]
    for split in ("train", "validation", "test"):
        store.save_tokens(tmp_path / split, [chunk_of(tokens, np.zeros(6, dtype=np.int64))])
    return tmp_path


@pytest.mark.parametrize("family", FAMILIES)
def test_states_from_16_bit_products_are_stored_in_float32_and_close(family, saved_model, folder, monkeypatch):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model(family))
    found = {}
    for products in ("float32", "bfloat16"):
        model, depth = encode.load_frozen_blocks(2, matmul_precision=products)
        about = described(depth=depth)
        params = Params.model_validate(tiny_params(precision=products))
        encode.encode_states(model, folder, about, params, folder / f"place-{products}")
        found[products] = stored(folder / "train")
    assert found["bfloat16"].dtype == np.float32
    assert not np.array_equal(found["bfloat16"], found["float32"])
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.05, atol=0.05)


def test_a_model_with_no_more_positions_than_the_longest_row_has_tokens_runs_in_16_bits(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BASE_MODEL", save_model("gpt2", tmp_path / "base", n_positions=9))
    model, depth = encode.load_frozen_blocks(2, matmul_precision="bfloat16")
    about = described(depth=depth, max_length=9)
    params = Params.model_validate(tiny_params(precision="bfloat16"))
    encode.encode_states(model, folder, about, params, folder / "place")
    rows = store.load_rows(folder / "train", about, "bfloat16")
    whole = load_base(paths.BASE_MODEL, labels=LABELS, seed=1)
    assert inference.logits(whole, replace(rows, states=None), batch_size=4, progress="logits").shape == (6, 2)


def test_only_the_weights_of_linear_layers_are_lowered(saved_model):
    model = load_base(saved_model("gpt2"), labels=LABELS, seed=1)
    precision.convert_linear_weights(model, "bfloat16")
    kept = {name for name, part in model.named_parameters() if part.dtype == torch.float32}
    lowered = {name for name, part in model.named_parameters() if part.dtype == torch.bfloat16}
    assert {"transformer.wte.weight", "transformer.h.0.ln_1.weight"} <= kept
    assert {"transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.bias", "score.weight"} <= lowered


def test_every_thread_computes_in_the_precision():
    def compute(model, batch):
        return torch.is_autocast_enabled(device().type) and torch.get_autocast_dtype(device().type)

    model, batches = torch.nn.Linear(1, 1), [[number] for number in range(8)]
    for products, expected in (("float32", False), ("bfloat16", torch.bfloat16)):
        found = parallel.each_batch(model, compute, batches, progress="test", precision=products)
        assert set(found) == {expected}


def test_transformers_tells_the_attention_implementation(saved_model):
    model = load_base(saved_model("llama"), labels=LABELS, seed=1)
    assert hasattr(model.config, "_attn_implementation"), (
        f"transformers {transformers.__version__} has no config._attn_implementation, by which "
        "stages/backbone/precision.py sees how a model attends: look for what took its place"
    )
    assert precision.attention_of(model) == "sdpa"
    model.set_attn_implementation("eager")
    assert precision.attention_of(model) == "eager"


@pytest.mark.skipif(device().type != "cpu", reason="a GPU attends in 16 bits")
def test_attention_is_sdpas_and_stays_in_float32_under_autocast(saved_model, monkeypatch, tmp_path):
    seen = set()
    attend = torch.nn.functional.scaled_dot_product_attention

    def note(query, *args, **kwargs):
        seen.add((query.dtype, torch.is_autocast_enabled("cpu")))
        return attend(query, *args, **kwargs)

    model = load_base(saved_model("llama"), labels=LABELS, seed=1)
    expected = model(**BATCH).logits
    precision.attend_in_float32(model)
    torch.testing.assert_close(model(**BATCH).logits, expected)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", note)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(**BATCH).logits.float(), expected, rtol=0.05, atol=0.05)
    assert seen == {(torch.float32, False)}
    model.save_pretrained(tmp_path)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert saved.config._attn_implementation == "sdpa"


@pytest.mark.skipif(device().type != "cpu", reason="a GPU computes in float16")
def test_float16_without_a_gpu_is_refused_with_what_to_choose(saved_model, monkeypatch):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model("llama"))
    with pytest.raises(PipelineError, match="precision: expected float32 or bfloat16 without a GPU, found float16"):
        encode.load_frozen_blocks(2, matmul_precision="float16")
