"""A training that is interrupted goes on from its last checkpoint, and ends with the same bits."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled
from method_matrix import METHODS

from stages.classifier.model import load_base
from stages.classifier.weights import copied
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.resuming import checkpoints, pace
from stages.training import head, trainer
from stages.training.callbacks import Curves

ROWS = 40
OPTIONS = {"epochs": 3, "lr": 1e-2, "batch_size": 4, "gradient_accumulation": 2, "logging_steps": 3}


@pytest.fixture
def rows():
    """Rows of unequal lengths whose first token gives the class away."""
    generator = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", ROWS), ("validation", 16)):
        labels = np.arange(count) % 2
        tokens = [np.r_[10 + label, generator.integers(20, 60, size=generator.integers(2, 9))] for label in labels]
        splits[name] = replace(unlabelled(tokens, pad_token_id=0), labels=labels)
    return splits


class KilledError(Exception):
    """The process ends here."""


def fit(rows, base, folder, *, method="lora", rates=(1e-2,), killed_at=None, **changes):
    """The weights, the scores and the curves of a training; killed_at: the logged steps after which it ends."""
    sections = {"lora": {"r": 4, "dropout": 0.1}, "peft": {"method": method, "options": {}}}
    params = Params.model_validate(tiny_params(**sections, train=OPTIONS | changes))
    torch.manual_seed(0)
    model = load_base(base, labels=labels_of(["bad", "good"]), seed=0)
    starts = {"random": partial(head.put, weights=head.copied(model))}
    model = adapted(model, params, depth=0, base=base)
    problem = PROBLEMS["single_label"]
    settings = {"options": params.train, "seed": 0, "precision": "float32", "rates": rates, "starts": starts}
    settings |= {"problem": problem, "main": problem.main_scores["accuracy"], "read": np.arange(ROWS)}
    logged = Curves.on_log

    def log(self, args, state, *rest, **kwargs):
        logged(self, args, state, *rest, **kwargs)
        if killed_at and self.offset + state.global_step >= killed_at:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curves, "on_log", log)
        patch.setattr(pace, "MOST_TIME", math.inf)  # a checkpoint after each step
        scores = trainer.fit(
            model, rows, folder / "curves", checkpoints=checkpoints.Checkpoints(folder, seconds=0), **settings
        )
    return copied(model), scores, {path.name: path.read_bytes() for path in (folder / "curves").iterdir()}


CASES = [
    ({}, [3, 6, 8]),  # in the first pass over the rows, and twice in the next
    ({"rates": (1e-12, 1e-2)}, [20]),
    ({"early_stopping": 2, "epochs": 4}, [12]),
    ({"method": "adalora"}, [12]),
    ({"method": "full", "rates": (1e-4,)}, [12]),
]

OTHER_METHODS = [({"method": method}, [12]) for method in METHODS if method not in ("lora", "adalora", "full", "qlora")]
"""The cases of the long form. The layers in which qlora differs from lora are not trained."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every method in the long form, `--faults`."""
    if "kills" in metafunc.fixturenames:
        long = OTHER_METHODS if metafunc.config.getoption("faults") else []
        metafunc.parametrize(("changes", "kills"), CASES + long)


def test_an_interrupted_training_ends_as_one_that_was_not(rows, saved_model, tmp_path, changes, kills, capsys):
    weights, *told = fit(rows, saved_model("llama"), tmp_path / "whole", **changes)
    for step in kills:
        with pytest.raises(KilledError):
            fit(rows, saved_model("llama"), tmp_path / "broken", killed_at=step, **changes)
    capsys.readouterr()
    same_weights, *same_told = fit(rows, saved_model("llama"), tmp_path / "broken", **changes)
    assert "of an interrupted run" in capsys.readouterr().err
    assert same_told == told
    assert all(map(torch.equal, same_weights, weights))
