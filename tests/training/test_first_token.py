"""A better start for an encoder: its first token is taught the mean over all tokens."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled

from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common.errors import PipelineError
from stages.params import Params
from stages.training import first_token


@pytest.fixture
def rows():
    """Both splits: rows of unequal lengths, all but one of whose tokens are their class's."""
    generator, splits = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("validation", 20)):
        labels = np.arange(count) % 2
        tokens = [np.r_[5, np.full(generator.integers(2, 9), 10 + label)] for label in labels]
        splits[split] = replace(unlabelled(tokens, pad_token_id=0), labels=labels)
    return splits


def final_states(model, rows):
    """The final states of the first tokens, and the means over all tokens; both (rows, hidden)."""
    states = [
        model(**inference.inputs(rows, np.array([row])), output_hidden_states=True).hidden_states[-1][0].detach()
        for row in range(len(rows))
    ]
    return np.stack([one[0] for one in states]), np.stack([one.mean(dim=0) for one in states])


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(name, marks=pytest.mark.long) for name in ("roberta", "distilbert"))]
)
def test_the_first_token_learns_the_mean_and_a_probe_of_it_tells_the_classes_apart(family, rows, saved_model):
    params = Params.model_validate(tiny_params(train={"epochs": 1}))
    model = load_base(saved_model(family), labels=labels_of(["bad", "good"]), seed=1)
    model = adapted(model, params, depth=2, base=saved_model(family)).eval()
    before, means = final_states(model, rows["train"])
    first_token.start(model, rows=rows, options=params.train, precision="float32", seed=1)
    after, _ = final_states(model.eval(), rows["train"])
    assert np.square(after - means).mean() < 0.5 * np.square(before - means).mean()
    logits = inference.logits(model, rows["validation"], batch_size=8, progress="test")
    assert (logits.argmax(axis=1) == rows["validation"].labels).mean() > 0.9


def test_texts_of_the_same_tokens_are_learned_without_a_division_by_their_variance(rows, saved_model, monkeypatch):
    monkeypatch.setattr(first_token, "STEPS", 10)
    params = Params.model_validate(tiny_params(train={"epochs": 1}))
    same = replace(unlabelled([np.array([5, 1, 6])] * 60, pad_token_id=0), labels=rows["train"].labels)
    model = load_base(saved_model("bert"), labels=labels_of(["bad", "good"]), seed=1)
    model = adapted(model, params, depth=2, base=saved_model("bert")).eval()
    first_token.start(model, rows=rows | {"train": same}, options=params.train, precision="float32", seed=1)
    assert np.isfinite(inference.logits(model, same, batch_size=8, progress="test")).all()


def test_a_teaching_that_diverges_ends_with_what_to_set(rows, saved_model):
    params = Params.model_validate(tiny_params(train={"epochs": 1}))
    model = load_base(saved_model("bert"), labels=labels_of(["bad", "good"]), seed=1)
    model = adapted(model, params, depth=2, base=saved_model("bert"))
    means = np.full((60, model.config.hidden_size), np.inf, dtype=np.float32)
    with pytest.raises(PipelineError, match=r"expected a finite loss, found nan at step 0; set lora.head_init: probe"):
        first_token.teach(model, rows, means, options=params.train, precision="float32", seed=1)


def test_a_batch_has_as_many_rows_however_many_gpus_are_visible(rows, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    made = mock.MagicMock()
    monkeypatch.setattr(first_token, "MeanTrainer", made)
    options = Params.model_validate(tiny_params(train={"batch_size": 4})).train
    first_token.teach(None, rows, np.zeros((60, 8)), options=options, precision="float32", seed=1)
    used = made.call_args.kwargs["args"]
    assert (used.n_gpu, used.train_batch_size, used.max_steps) == (1, 4, first_token.STEPS)


@pytest.mark.parametrize(
    ("family", "method", "init", "expected"),
    [
        ("bert", "lora", "auto", True),
        ("bert", "ia3", "mean_probe", True),
        ("bert", "lora", "probe", False),
        ("bert", "full", "auto", False),
        ("bert", "prompt", "auto", False),
        ("llama", "lora", "auto", False),
    ],
)
def test_only_an_encoder_whose_layers_are_adapted_can_start_so(family, method, init, expected, saved_model):
    model = load_base(saved_model(family), labels=labels_of(["bad", "good"]), seed=1)
    assert first_token.can_learn(model, method=method, init=init) == expected


def test_a_start_that_the_model_cannot_have_is_refused(saved_model):
    model = load_base(saved_model("llama"), labels=labels_of(["bad", "good"]), seed=1)
    with pytest.raises(PipelineError, match=r"mean_probe: expected an encoder .*, found llama and lora;"):
        first_token.can_learn(model, method="lora", init="mean_probe")
