"""Training: the best epoch is kept, a loss that is not finite ends the run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled
from peft import get_peft_model_state_dict

from stages.adapters import methods
from stages.classifier.model import load_base
from stages.common.errors import PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.training import fused, trainer

CLASSES = ["bad", "good"]


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


def fitted(rows, base, curves, precision="float32", main="accuracy", **changes):
    params = Params.model_validate(tiny_params(precision=precision, lora={"r": 4}, train=changes))
    model = load_base(base, labels=labels_of(CLASSES), seed=params.seed)
    model = adapted(model, params, depth=0, base=base)
    fused.fuse(model, rows["train"].batch([0]))
    settings = {"options": params.train, "seed": params.seed, "precision": params.precision}
    problem = PROBLEMS["single_label"]
    return model, trainer.fit(model, rows, curves, problem=problem, main=problem.main_scores[main], **settings)


def weights(model):
    return get_peft_model_state_dict(model)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_and_equal_runs_end_in_equal_weights(precision, rows, saved_model, tmp_path):
    runs = [fitted(rows, saved_model("llama"), tmp_path / str(run), precision, epochs=5, lr=1e-2) for run in range(2)]
    (one, scores), (other, same_scores) = runs
    assert scores["validation"]["accuracy"] > 0.9
    assert scores == same_scores
    assert {weight.dtype for weight in weights(one).values()} == {torch.float32}
    assert all(torch.equal(weight, weights(other)[name]) for name, weight in weights(one).items())
    curves = [{path.name: path.read_bytes() for path in (tmp_path / str(run)).rglob("*.tsv")} for run in range(2)]
    assert curves[0] == curves[1]
    assert set(curves[0]) == {"loss.tsv", "learning_rate.tsv", "main.tsv"}


def test_the_epoch_with_the_lowest_validation_loss_is_kept(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["validation"].labels  # learning makes it worse: the first epoch is the best
    _, scores = fitted(rows, saved_model("llama"), tmp_path, epochs=4, lr=1e-2)
    losses = [
        float(line.split("\t")[1])
        for line in (tmp_path / "plots/metrics/validation/loss.tsv").read_text().splitlines()[1:]
    ]
    assert scores["best_epoch"] == 1 + int(np.argmin(losses)) < 4
    assert scores["validation"]["loss"] == min(losses)


def curve(folder, name):
    """The values of a curve of the validation rows, one an epoch."""
    lines = (folder / f"plots/metrics/validation/{name}.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]


@pytest.mark.parametrize(("main", "best"), [("f1_macro", np.argmax), ("log_loss", np.argmin)])
def test_the_epoch_with_the_best_main_score_is_kept_if_that_selects(main, best, rows, saved_model, tmp_path):
    rows["validation"].labels[:6] = 1 - rows["validation"].labels[:6]  # what is learned is right, but not certain
    _, scores = fitted(rows, saved_model("llama"), tmp_path, main=main, epochs=6, lr=1e-3, select_by="main")
    values = curve(tmp_path, "main")
    assert scores["main"] == main
    assert scores["best_epoch"] == 1 + best(values)
    assert scores["validation"] == {main: values[best(values)], "loss": curve(tmp_path, "loss")[best(values)]}
    assert (best(values) == np.argmin(curve(tmp_path, "loss"))) == (main == "log_loss")


def test_early_stopping_watches_the_main_score_if_that_selects(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["validation"].labels  # learning makes it worse
    options = {"epochs": 9, "lr": 1e-2, "early_stopping": 1, "select_by": "main"}
    fitted(rows, saved_model("llama"), tmp_path, main="roc_auc", **options)
    assert len(curve(tmp_path, "main")) < 9


def test_the_kept_weights_are_those_of_the_best_epoch(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["validation"].labels
    model, scores = fitted(rows, saved_model("llama"), tmp_path, epochs=4, lr=1e-2)
    batch = rows["validation"].batch(np.arange(16))
    with torch.inference_mode():
        assert model.eval()(**batch).loss.item() == pytest.approx(scores["validation"]["loss"], abs=1e-4)


def test_early_stopping_ends_a_run_that_gets_worse(rows, saved_model, tmp_path):
    rows["validation"].labels[:] = 1 - rows["validation"].labels
    fitted(rows, saved_model("llama"), tmp_path, epochs=9, lr=1e-2, early_stopping=1)
    assert len((tmp_path / "plots/metrics/validation/loss.tsv").read_text().splitlines()) - 1 < 9


def test_gradient_accumulation_equals_the_larger_batch(rows, saved_model, tmp_path):
    options = {"epochs": 1, "scheduler": "constant", "warmup": 0.0, "max_grad_norm": 1e-3, "logging_steps": 1}
    large, _ = fitted(rows, saved_model("llama"), tmp_path / "a", batch_size=8, **options)
    small, _ = fitted(rows, saved_model("llama"), tmp_path / "b", batch_size=4, gradient_accumulation=2, **options)
    for name, weight in weights(large).items():
        torch.testing.assert_close(weight, weights(small)[name], rtol=0, atol=2e-4)
    curves = [(tmp_path / run / "plots/metrics/loss.tsv").read_text().splitlines()[1:] for run in "ab"]
    np.testing.assert_allclose(*([float(line.split("\t")[1]) for line in lines] for lines in curves), rtol=1e-3)


def test_a_loss_that_is_not_finite_ends_the_run(rows, saved_model, tmp_path, monkeypatch):
    build = methods.add

    def poisoned(*args, **kwargs):
        model = build(*args, **kwargs)
        next(parameter for parameter in model.parameters() if parameter.requires_grad).data.fill_(float("inf"))
        return model

    monkeypatch.setattr(methods, "add", poisoned)
    with pytest.raises(PipelineError, match=r"expected a finite loss, found nan at step 0; lower train.lr"):
        fitted(rows, saved_model("llama"), tmp_path)
