"""Logits and pooled states for encoded rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS
from families import labels_of, unlabelled
from transformers import AutoModel

from stages.backbone import prefix
from stages.backbone.states import States
from stages.classifier import inference
from stages.classifier.model import is_causal, load_base
from stages.common.errors import PipelineError
from stages.training import head

PAD = 0


@pytest.fixture
def rows():
    """Rows of unequal lengths."""
    draw = np.random.default_rng(0)
    return unlabelled([draw.integers(5, 50, length) for length in (4, 9, 2, 7, 5)], PAD)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_features_are_those_of_each_row_alone(family, saved_model, rows):
    model = load_base(saved_model(family), labels=labels_of(["bad", "fine", "good"], PAD), seed=1)
    options = {"batch_size": 2, "progress": "test"}
    after = (LAYERS, LAYERS - 1)
    logits, features = inference.logits_and_features(model, rows, after=after, **options)
    np.testing.assert_allclose(inference.logits(model, rows, **options), logits, rtol=0, atol=1e-6)
    assert logits.dtype == np.float32
    assert logits.shape == (5, 3)
    for index in range(len(rows)):
        with torch.inference_mode():
            output = model(**inference.inputs(rows, [index]), output_hidden_states=True)
        np.testing.assert_allclose(logits[index], inference.array(output.logits)[0], rtol=0, atol=1e-5)
        for layers, found in zip(after, features, strict=True):
            states = inference.array(output.hidden_states[layers])[0]
            expected = states[-1] if is_causal(model.config) else states.mean(axis=0)
            np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-5)
    assert logits.std(axis=0).min() > 1e-3, "logits that are all alike would prove nothing"


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_padding_changes_no_pooled_state(family, saved_model):
    config = load_base(saved_model(family), labels=labels_of(["bad", "good"], PAD), seed=1).config
    hidden = torch.arange(12.0).view(1, 4, 3)
    batch = {"input_ids": torch.tensor([[5, 6, PAD, PAD]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    expected = [3.0, 4.0, 5.0] if family == "llama" else [1.5, 2.5, 3.5]
    assert inference.pooled_states(hidden, batch, config).tolist() == [expected]


def test_inputs_are_what_the_model_takes_without_labels(rows):
    given = inference.inputs(rows, [0, 2])
    assert set(given) == {"input_ids", "attention_mask"}
    assert given["attention_mask"].sum(dim=1).tolist() == [4, 2]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_spliced_model_answers_from_stored_states(family, saved_model, rows):
    labels = labels_of(["bad", "good"], PAD)
    whole, spliced = (load_base(saved_model(family), labels=labels, seed=1) for _ in range(2))
    lower = AutoModel.from_pretrained(saved_model(family)).eval()
    prefix.capture(lower, 2)
    prefix.splice(spliced, 2)
    with torch.inference_mode():
        states = [lower(**inference.inputs(rows, [index]))[0].cpu().numpy() for index in range(len(rows))]
    options = {"batch_size": 2, "progress": "test"}
    expected = inference.logits(whole, rows, **options)
    stored = States.of([np.concatenate(states)], lengths=rows.lengths, order=rows.in_source)
    found = inference.logits(spliced, replace(rows, states=stored), **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_16_bit_results_become_float32():
    found = inference.array(torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_states_that_are_no_numbers_end_it_with_the_texts_row(saved_model, rows, value):
    """As stored states may become on a worn disk."""
    model = load_base(saved_model("llama"), labels=labels_of(["bad", "good"], PAD), seed=1)
    prefix.splice(model, 2)
    states = np.ones((len(rows.tokens), 32), dtype=np.float32)
    states[rows.offsets[3] + 1] = value
    options = {"batch_size": 2, "progress": "evaluate"}
    stored = States.of([states], lengths=rows.lengths, order=rows.in_source)
    damaged = replace(rows, states=stored, source_rows=np.arange(11, 16))
    for given, row in ((damaged, 14), (replace(damaged, windows=np.array([0, 2, 4, 5])), 12)):
        line = (
            rf"evaluate: logits: expected finite numbers, found NaN or infinity in row {row}; .* dvc checkout --force"
        )
        with pytest.raises(PipelineError, match=line):
            inference.logits(model, given, **options)
        with pytest.raises(PipelineError, match=line):
            inference.logits_and_features(model, given, after=(LAYERS,), **options)
        with pytest.raises(PipelineError, match=rf"states that the head reads: .* in row {row};"):
            head.fitted(model, given, batch_size=2, precision="float32", seed=0)
    states[rows.offsets[3] + 1] = 1
    assert np.isfinite(inference.logits(model, damaged, **options)).all()
