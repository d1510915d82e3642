"""Training: the best epoch is kept, a loss that is not finite ends the run."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled
from peft import get_peft_model_state_dict
from transformers import TrainerControl, TrainerState

from stages.adapters import methods
from stages.classifier.model import load_base
from stages.common.errors import PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.resuming.checkpoints import Checkpoints
from stages.training import fused, head, trainer
from stages.training.callbacks import Best

CLASSES = ["bad", "good"]
SEED = 42


@pytest.fixture
def rows():
    """Rows of unequal lengths whose first token gives the class away."""
    generator = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", 48), ("validation", 16)):
        labels = np.arange(count) % 2
        tokens = [np.r_[10 + label, generator.integers(20, 60, size=generator.integers(2, 9))] for label in labels]
        splits[name] = replace(unlabelled(tokens, pad_token_id=0), labels=labels)
    return splits


def fitted(rows, base, curves, precision="float32", main="accuracy", rates=None, **changes):
    params = Params.model_validate(tiny_params(precision=precision, lora={"r": 4}, train=changes))
    model = load_base(base, labels=labels_of(CLASSES), seed=SEED)
    starts = {"random": partial(head.put, weights=head.copied(model))}
    model = adapted(model, params, depth=0, base=base)
    fused.fuse(model, rows["train"].batch([0]))
    settings = {
        "options": params.train,
        "seed": SEED,
        "precision": params.precision,
        "read": np.arange(len(rows["train"])),
        "rates": rates or (params.train.lr,),
    }
    problem = PROBLEMS["single_label"]
    settings |= {"starts": starts, "problem": problem, "main": problem.main_scores[main]}
    checkpoints = Checkpoints(curves.parent / f"{curves.name}-checkpoints", seconds=1e9)
    return model, trainer.fit(model, rows, curves, checkpoints=checkpoints, **settings)


def weights(model):
    return get_peft_model_state_dict(model)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_training_learns_and_equal_runs_end_in_equal_weights(precision, rows, saved_model, tmp_path):
    runs = [fitted(rows, saved_model("llama"), tmp_path / str(run), precision, epochs=5, lr=1e-2) for run in range(2)]
    (one, scores), (other, same_scores) = runs
    assert scores["validation"]["accuracy"] > 0.9
    assert scores == same_scores
    assert {weight.dtype for weight in weights(one).values()} == {torch.float32}
    assert all(torch.equal(weight, weights(other)[name]) for name, weight in weights(one).items())
    curves = [{path.name: path.read_bytes() for path in (tmp_path / str(run)).iterdir()} for run in range(2)]
    assert curves[0] == curves[1]
    assert set(curves[0]) == {"loss.csv", "main.csv"}


def logged(folder, split, name="loss"):
    """The steps and the values of one curve."""
    table = pd.read_csv(folder / f"{name}.csv")
    return table[table["split"] == split].drop(columns="split").T.to_numpy().tolist()


def test_the_weights_with_the_lowest_calibrated_loss_on_validation_are_kept(rows, saved_model, tmp_path):
    rows["validation"].labels[:3] = 1 - rows["validation"].labels[:3]  # wrong labels punish a confident model
    model, scores = fitted(rows, saved_model("llama"), tmp_path, epochs=9, lr=1e-2)
    steps, losses = logged(tmp_path, "validation, calibrated")
    assert steps[0] == 0, "the curve begins with the start"
    assert scores["validation"]["log_loss"] == pytest.approx(min(losses), rel=1e-3)
    batch = rows["validation"].batch(np.arange(16))
    with torch.inference_mode():
        assert model.eval()(**batch).loss.item() == pytest.approx(scores["validation"]["loss"], abs=1e-4)


def test_the_weights_with_the_best_main_score_on_validation_are_kept_if_that_selects(rows, saved_model, tmp_path):
    options = {"epochs": 6, "lr": 1e-3, "select_by": "main"}
    _, scores = fitted(rows, saved_model("llama"), tmp_path, main="f1_macro", **options)
    _, values = logged(tmp_path, "validation", "main")
    assert scores["main"] == "f1_macro"
    assert scores["validation"]["f1_macro"] == pytest.approx(max(values), rel=1e-3)
    assert scores["start"]["random"]["f1_macro"] == pytest.approx(values[0], rel=1e-3)


def test_a_run_that_only_gets_worse_keeps_its_start(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["train"].labels[:16]
    model, scores = fitted(rows, saved_model("llama"), tmp_path, epochs=4, lr=1e-2)
    assert (scores["best_epoch"], scores["validation"]) == (0, scores["start"]["random"])
    assert all(not weight.any() for name, weight in weights(model).items() if "lora_B" in name)


def test_what_is_kept_is_never_below_the_start_in_the_main_score():
    kept = Best(select_by="loss", main=PROBLEMS["single_label"].main_scores["accuracy"], patience=None)
    model = torch.nn.Linear(1, 1)
    assert kept.consider(model, {"accuracy": 0.8, "log_loss": 0.5}, epoch=0)
    kept.start = kept.scores
    assert not kept.consider(model, {"accuracy": 0.7, "log_loss": 0.3}, epoch=1)
    assert kept.consider(model, {"accuracy": 0.8, "log_loss": 0.4}, epoch=2)
    assert kept.epoch == 2


def test_for_macro_f1_weights_are_kept_by_the_weighted_loss():
    kept = Best(select_by="loss", main=PROBLEMS["single_label"].main_scores["f1_macro"], patience=None)
    model = torch.nn.Linear(1, 1)
    kept.consider(model, {"f1_macro": 0.5, "log_loss": 0.2, "weighted_log_loss": 1.0}, epoch=0)
    kept.start = kept.scores
    assert not kept.consider(model, {"f1_macro": 0.6, "log_loss": 0.1, "weighted_log_loss": 1.1}, epoch=1)
    assert kept.consider(model, {"f1_macro": 0.6, "log_loss": 0.3, "weighted_log_loss": 0.9}, epoch=2)


def test_a_loss_that_is_lower_by_chance_does_not_replace_the_start():
    accuracy = PROBLEMS["single_label"].main_scores["accuracy"]
    by_loss, by_main = (Best(select_by=choice, main=accuracy, patience=None) for choice in ("loss", "main"))
    model = torch.nn.Linear(1, 1)
    for kept in (by_loss, by_main):
        kept.consider(model, {"accuracy": 0.5, "log_loss": 0.6932}, epoch=0)
        kept.start = kept.scores
    assert not by_loss.consider(model, {"accuracy": 0.6, "log_loss": 0.6929}, epoch=1)
    assert by_main.consider(model, {"accuracy": 0.6, "log_loss": 0.6929}, epoch=1)
    assert by_loss.consider(model, {"accuracy": 0.5, "log_loss": 0.6920}, epoch=2)
    assert by_loss.consider(model, {"accuracy": 0.5, "log_loss": 0.6919}, epoch=3), "of what beats the start, the best"


def test_a_learning_rate_that_finds_nothing_better_than_the_start_is_followed_by_a_lower_one(
    rows, saved_model, tmp_path
):
    _, scores = fitted(rows, saved_model("llama"), tmp_path, epochs=6, rates=(1e-12, 1e-2))
    assert scores["recipe"]["lr"] == 1e-2
    assert scores["best_epoch"] > 0
    steps, _ = logged(tmp_path, "training")
    assert steps == sorted(set(steps)), "the curves go on"


def test_a_second_learning_rate_has_the_whole_patience_again():
    kept = Best(select_by="loss", main=PROBLEMS["single_label"].main_scores["accuracy"], patience=2)
    model, control = torch.nn.Linear(1, 1), TrainerControl()
    state = TrainerState(epoch=1.0)
    kept.consider(model, {"accuracy": 0.8, "log_loss": 0.5}, epoch=0)
    worse = {"eval_accuracy": 0.8, "eval_log_loss": 0.6}
    for _ in range(2):
        kept.on_train_begin(None, state, control)
        kept.on_evaluate(None, state, control, model=model, metrics=worse)
    assert not control.should_training_stop
    kept.on_evaluate(None, state, control, model=model, metrics=worse)
    assert control.should_training_stop


def test_early_stopping_ends_a_run_that_gets_worse(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["validation"].labels
    fitted(rows, saved_model("llama"), tmp_path, epochs=9, lr=1e-2, early_stopping=1)
    assert len(logged(tmp_path, "validation/loss")) < 9


def test_the_best_of_several_heads_is_where_the_run_starts(rows, saved_model, tmp_path):
    params = Params.model_validate(tiny_params(train={"epochs": 1, "lr": 1e-6}))
    model = load_base(saved_model("llama"), labels=labels_of(CLASSES), seed=SEED)
    probe = head.fitted(model, rows["train"], batch_size=8, precision="float32", seed=SEED)
    heads = {"random": head.copied(model), "probe": probe}
    starts = {name: partial(head.put, weights=weights) for name, weights in heads.items()}
    model = adapted(model, params, depth=0, base=saved_model("llama"))
    settings = {"options": params.train, "seed": SEED, "precision": params.precision, "rates": (params.train.lr,)}
    problem = PROBLEMS["single_label"]
    settings |= {"starts": starts, "problem": problem, "main": problem.main_scores["accuracy"], "read": np.arange(48)}
    scores = trainer.fit(model, rows, tmp_path, checkpoints=Checkpoints(tmp_path / "none", seconds=1e9), **settings)
    assert scores["recipe"]["head_init"] == "probe"
    assert scores["start"]["probe"]["log_loss"] < scores["start"]["random"]["log_loss"]
    torch.testing.assert_close(head.copied(model)[0], probe[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("balance", [None, "weights"])
def test_gradient_accumulation_equals_the_larger_batch(rows, saved_model, tmp_path, balance):
    options = {"epochs": 1, "scheduler": "constant", "warmup": 0.0, "max_grad_norm": 1e-3, "logging_steps": 1}
    if balance:
        rows["train"] = replace(rows["train"], labels=(np.arange(48) % 8 == 0).astype(np.int64))
        options["balance"] = balance
    large, _ = fitted(rows, saved_model("llama"), tmp_path / "a", batch_size=8, **options)
    small, _ = fitted(rows, saved_model("llama"), tmp_path / "b", batch_size=4, gradient_accumulation=2, **options)
    for name, weight in weights(large).items():
        torch.testing.assert_close(weight, weights(small)[name], rtol=0, atol=2e-4)
    np.testing.assert_allclose(*(logged(tmp_path / run, "training") for run in "ab"), rtol=1e-3)


def test_a_loss_that_is_not_finite_ends_the_run(rows, saved_model, tmp_path, monkeypatch):
    build = methods.add

    def poisoned(*args, **kwargs):
        model = build(*args, **kwargs)
        next(parameter for parameter in model.parameters() if parameter.requires_grad).data.fill_(float("inf"))
        return model

    monkeypatch.setattr(methods, "add", poisoned)
    with pytest.raises(PipelineError, match=r"expected a finite loss, found nan at step 0; lower train.lr"):
        fitted(rows, saved_model("llama"), tmp_path)
