"""The training's settings beside the method: weights, smoothing and LoRA+."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled
from transformers import TrainerState

from stages.classifier.model import load_base
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.training import recipe, trainer

LABELS = labels_of(["bad", "good"])


def labelled(labels, windows=None):
    """Rows with these labels; windows: which of them are a text, see `store.Rows`."""
    rows = unlabelled([np.array([5, 6])] * len(labels), pad_token_id=0)
    return replace(rows, labels=np.array(labels), windows=windows)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_and_smoothing_change_the_training_loss_alone(saved_model, smoothing):
    model = load_base(saved_model("llama"), labels=LABELS, seed=0)
    options = Params.model_validate(tiny_params(train={"balance": "weights", "label_smoothing": smoothing})).train
    loss = trainer.loss_function(model.train(), PROBLEMS["single_label"], labelled([0, 0, 0, 1]), options)
    output, labels = SimpleNamespace(logits=torch.tensor([[2.0, 0.0], [0.0, 1.0]])), torch.tensor([0, 1])
    entropy, log = torch.nn.functional.cross_entropy, output.logits.log_softmax(dim=1)
    weights = torch.tensor([4 / 6, 4 / 2]).sqrt()
    weights = weights / weights[[0, 0, 0, 1]].mean()
    plain = -(weights[0] * log[0, 0] + weights[1] * log[1, 1]) / 2
    smooth = -(weights * log).sum() / 2 / 2
    assert loss(output, labels) == pytest.approx(((1 - smoothing) * plain + smoothing * smooth).item())
    model.eval()
    assert loss(output, labels) == pytest.approx(entropy(output.logits, labels).item())


def test_a_row_weighs_as_much_whatever_is_in_its_batch(saved_model):
    model = load_base(saved_model("llama"), labels=LABELS, seed=0).train()
    options = Params.model_validate(tiny_params(train={"balance": "weights"})).train
    loss = trainer.loss_function(model, PROBLEMS["single_label"], labelled([0, 0, 0, 1]), options)
    logits, labels = (
        torch.randn(8, 2, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 0, 0, 1, 0, 0, 0, 0]),
    )
    alone = [loss(SimpleNamespace(logits=logits[[row]]), labels[[row]]).item() for row in range(8)]
    assert loss(SimpleNamespace(logits=logits), labels).item() == pytest.approx(np.mean(alone))


def test_a_text_weighs_as_much_in_how_many_windows_it_is_read(saved_model):
    model = load_base(saved_model("llama"), labels=LABELS, seed=0).train()
    options = Params.model_validate(tiny_params(train={"balance": "weights"})).train
    output, labels = SimpleNamespace(logits=torch.tensor([[2.0, 0.0], [0.0, 1.0]])), torch.tensor([0, 1])
    whole, in_windows = labelled([0, 0, 0, 1]), labelled([0, 0, 0, 1, 1, 1], windows=np.array([0, 1, 2, 3, 6]))
    losses = [trainer.loss_function(model, PROBLEMS["single_label"], rows, options) for rows in (whole, in_windows)]
    assert losses[0](output, labels) == losses[1](output, labels)


@pytest.mark.parametrize(("numbers", "bound"), [([0.0, 1.0, 2.0, 3.0, 40.0], 1.0), ([0.0, 0.0, 0.0, 5.0], 0.0)])
def test_small_errors_of_numbers_count_squared_while_a_model_trains(numbers, bound):
    model, options = torch.nn.Linear(1, 1), Params.model_validate(tiny_params()).train
    loss = trainer.loss_function(model, PROBLEMS["regression"], labelled(numbers), options)
    output, labels = SimpleNamespace(logits=torch.tensor([[1.5], [6.0]])), torch.tensor([1.0, 2.0])
    assert loss(output, labels).item() == pytest.approx((0.125 + 3.5) / 2 if bound else (0.5 + 4) / 2)
    model.eval()
    assert loss(output, labels).item() == pytest.approx((0.5 + 4) / 2)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_without_weights_and_smoothing_it_is_the_models_own_loss(saved_model, problem):
    model = load_base(saved_model("llama"), labels=labels_of(["bad", "good"], problem=problem), seed=0).train()
    rows = labelled([0, 1] if problem == "single_label" else np.eye(2, dtype=np.float32))
    loss = trainer.loss_function(model, PROBLEMS[problem], rows, Params.model_validate(tiny_params()).train)
    output = model(**rows.batch([0, 1]))
    assert loss(output, torch.from_numpy(rows.labels)) == output.loss


def test_lora_plus_gives_lora_b_the_higher_rate(saved_model, tmp_path):
    params = Params.model_validate(tiny_params(train={"lora_plus_ratio": 16.0, "lr": 1e-3, "weight_decay": 0.1}))
    base = saved_model("llama")
    model = adapted(load_base(base, labels=LABELS, seed=0), params, depth=3, base=base)
    sizes = {"rows": 8, "validation_rows": 8}
    settings = trainer.arguments(params.train, **sizes, seed=0, precision=params.precision, scratch=str(tmp_path))
    made = trainer.RowTrainer(model=model, args=settings, eval_dataset=[])
    made.restart(1e-3, params.train)
    optimizer = made.optimizer
    rates = {part: group["lr"] for group in optimizer.param_groups for part in group["params"]}
    for name, part in model.named_parameters():
        if part.requires_grad:
            assert rates[part] == pytest.approx(1.6e-2 if "lora_B" in name else 1e-3)
    assert {group["weight_decay"] for group in optimizer.param_groups if group["params"]} == {0.1}


def test_a_batch_has_as_many_rows_however_many_gpus_are_visible(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    options = Params.model_validate(tiny_params(train={"batch_size": 4})).train
    sizes = {"rows": 8, "validation_rows": 8}
    settings = trainer.arguments(options, **sizes, seed=0, precision="float32", scratch=str(tmp_path))
    assert (settings.n_gpu, settings.train_batch_size) == (1, 4)


@pytest.mark.parametrize(
    ("rows", "validation", "epochs"), [(100, 500, 20), (3_000, 500, 2), (100, 10, 20), (8, 500, 1)]
)
def test_the_validation_rows_are_scored_as_often_as_was_chosen(tmp_path, rows, validation, epochs):
    options = Params.model_validate(tiny_params(train={"batch_size": 16, "epochs": epochs})).train
    sizes = {"rows": rows, "validation_rows": validation}
    settings = trainer.arguments(options, **sizes, seed=0, precision="float32", scratch=str(tmp_path))
    state, steps = TrainerState(), epochs * math.ceil(rows / 16)
    state.compute_steps(settings, steps)
    assert math.ceil(steps / state.eval_steps) == recipe.evaluations(epochs, rows=rows, validation_rows=validation)
