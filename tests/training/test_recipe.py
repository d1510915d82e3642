"""What `auto` means in the section `train`, by the rows, the method and the main score."""

import math

import numpy as np
import pytest
from conftest import tiny_params

from stages.params import Params
from stages.training import recipe


def resolved(*, rows=100, tokens=1, classes=2, method="lora", weighs=False, **train):
    options = Params.model_validate(
        tiny_params(train={"epochs": "auto", "lr": "auto", "balance": "auto"} | train)
    ).train
    return recipe.resolve(options, rows=rows, tokens=tokens, classes=classes, method=method, weighs=weighs)


@pytest.mark.parametrize("rows", [20, 47, 100, 1_000, 3_000, 20_000, 1_000_000])
def test_few_rows_are_seen_many_times_and_many_rows_once(rows):
    epochs = resolved(rows=rows, batch_size=16).epochs
    steps = epochs * rows / 16
    assert epochs == 1 or steps <= 1.5 * recipe.STEPS
    assert steps >= recipe.FEW_STEPS / 2
    assert epochs >= recipe.MAX_EPOCHS or steps >= 0.7 * recipe.STEPS
    assert recipe.too_few_steps(resolved(rows=rows, batch_size=16), rows) is None


@pytest.mark.parametrize("rows", [200, 300, 600])
def test_a_few_hundred_rows_are_not_seen_so_often_that_they_are_learnt_by_heart(rows):
    assert 5 <= resolved(rows=rows, batch_size=16).epochs <= 10


@pytest.mark.parametrize("rows", [20, 98, 1_000, 3_000])
@pytest.mark.parametrize("length", [30, 300, 1_000])
def test_long_texts_are_seen_less_often_but_not_in_too_few_steps(rows, length):
    short = resolved(rows=rows, batch_size=16).epochs
    found = resolved(rows=rows, tokens=rows * length, batch_size=16).epochs
    fewest = math.ceil(recipe.FEW_STEPS / math.ceil(rows / 16))
    assert found == short or fewest <= found < short
    assert found == short or (found + 1) * rows * length > recipe.TOKENS
    assert found * rows * length <= 1.25 * recipe.TOKENS or found in (1, fewest)


def test_many_classes_are_read_more_often():
    epochs = [resolved(rows=3_000, batch_size=16, classes=classes).epochs for classes in (1, 2, 37, 77, 115, 10_000)]
    assert epochs[0] == epochs[1] == epochs[2] < epochs[3] < epochs[4] < epochs[5] == recipe.MAX_EPOCHS
    assert epochs[3] * 3_000 / 16 / 77 == pytest.approx(recipe.STEPS_OF_CLASS, rel=0.1)


def test_a_larger_batch_needs_more_passes_for_the_same_steps():
    one, four = (resolved(rows=3_000, batch_size=16, gradient_accumulation=n).epochs for n in (1, 4))
    assert four == pytest.approx(4 * one, abs=2)


def test_the_learning_rate_is_the_methods():
    rates = {method: resolved(method=method).lr for method in ("lora", "qlora", "full", "ia3", "prompt")}
    assert rates["full"] < rates["lora"] == rates["qlora"] < rates["ia3"] < rates["prompt"]


def test_a_run_of_few_steps_says_so_and_how_many_passes_are_enough():
    options = resolved(epochs=2, batch_size=16)
    assert recipe.too_few_steps(options, 1_000) is None
    assert recipe.too_few_steps(options, 100).startswith(
        "train.epochs: 2 makes 14 training steps, which are few; 15 would make 100 or more"
    )


def test_one_seed_is_a_list_of_one():
    assert resolved(seeds=7).seeds == [7]
    assert resolved(seeds=[7, 8]).seeds == [7, 8]


def test_rare_classes_count_more_where_the_main_score_weighs_them():
    assert resolved(weighs=True).balance == "weights"
    assert resolved(weighs=False).balance is None


def test_balanced_sampling_brings_every_row_and_every_class_equally_often():
    labels = np.array([0, 1, 0, 0, 2, 0, 2])
    indices = recipe.rows_of_pass(resolved(balance="sampling"), labels)
    assert set(indices) == set(range(7))
    assert np.bincount(labels[indices]).tolist() == [4, 4, 4]
    assert max(np.bincount(indices)[labels == 2]) == 2
    assert recipe.rows_of_pass(resolved(balance="weights"), labels).tolist() == [*range(7)]


def test_what_is_set_by_hand_stays():
    chosen = resolved(weighs=True, epochs=7, lr=0.5, balance=None)
    assert (chosen.epochs, chosen.lr, chosen.balance) == (7, 0.5, None)


def test_evaluations_are_frequent_where_they_are_cheap_and_have_enough_rows():
    assert recipe.evaluations(2, rows=3_000, validation_rows=500) == 4
    assert recipe.evaluations(1, rows=100, validation_rows=500) == 1
    assert recipe.evaluations(20, rows=400, validation_rows=40) == recipe.MAX_EVALUATIONS
    assert recipe.evaluations(20, rows=100, validation_rows=10) == 2
    assert recipe.evaluations(20, rows=20, validation_rows=2) == 1
