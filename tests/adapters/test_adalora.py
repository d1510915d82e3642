"""AdaLoRA: the rank that is asked for, PEFT's penalty, and a penalty on any loss of a training, and on no other."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
import torch
from conftest import tiny_params
from families import adapted, labels_of, unlabelled
from peft import AutoPeftModelForSequenceClassification

from stages.adapters import methods
from stages.adapters.adalora import NOT_GIVEN, RankAllocation
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.training import trainer


def test_adalora_ends_at_the_mean_rank_asked_for_and_its_penalty_is_pefts(saved_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = tiny_run.encode_rows(saved_model("llama"))
    tiny_run.write_params("adalora")
    model = tiny_run.train_and_keep(monkeypatch).train()
    kept = [part for name, part in model.named_parameters() if "lora_E" in name]
    assert {part.numel() for part in kept} == {6}
    assert sum(int((part != 0).sum()) for part in kept) == 4 * len(kept)
    assert len({int((part != 0).sum()) for part in kept}) > 1, "some layers gave rank to others"
    plain = AutoPeftModelForSequenceClassification.from_pretrained(paths.ADAPTER, is_trainable=True, **tiny_run.LABELS)
    batch = rows["train"].batch(np.arange(4))
    states = batch.pop("states")
    own, pefts = model(**batch, states=states).loss, plain.train()(**batch).loss
    torch.testing.assert_close(own + methods.penalty(model), pefts, rtol=0, atol=1e-4)
    assert methods.penalty(model) > 0.1


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        ("single_label", {}),
        ("single_label", {"balance": "weights"}),
        ("single_label", {"label_smoothing": 0.1}),
        ("multi_label", {}),
        ("regression", {}),
    ],
)
def test_the_option_for_the_penalty_has_its_effect_on_every_loss_of_a_training_and_on_no_other(
    problem, options, saved_model, tmp_path
):
    names, losses = ["value"] if problem == "regression" else ["bad", "good"], {True: [], False: []}
    labels = {"single_label": np.arange(8) % 2, "multi_label": np.eye(8, 2), "regression": np.arange(8) / 4}[problem]
    labels = labels if problem == "single_label" else labels.astype(np.float32)
    rows = replace(unlabelled([np.arange(5, 9)] * 8, pad_token_id=0), labels=labels)
    for weight in (0.0, 0.5):
        peft = {"method": "adalora", "options": {"orth_reg_weight": weight}}
        params, base = Params.model_validate(tiny_params(peft=peft, train=options)), saved_model("llama")
        model = load_base(base, labels=labels_of(names, problem=problem), seed=0)
        model = adapted(model, params, depth=2, base=base)
        settings = {"rows": 8, "validation_rows": 8, "seed": 0, "precision": "float32", "scratch": str(tmp_path)}
        made = trainer.RowTrainer(
            model=model,
            args=trainer.arguments(params.train, **settings),
            compute_loss_func=trainer.loss_function(model, PROBLEMS[problem], rows, params.train),
            eval_dataset=[],
        )
        for training, found in losses.items():
            found.append(made.compute_loss(model.train(training), rows.batch(np.arange(8))).item())
    assert losses[True][1] == pytest.approx(losses[True][0] + methods.penalty(model).item())
    assert losses[False][1] == losses[False][0]


@pytest.mark.parametrize(
    ("options", "steps", "tinit", "tfinal"),
    [
        ({}, 40, 4, 20),
        ({"tinit": 7}, 40, 7, 20),
        ({"tinit": 3, "tfinal": 8}, 12, 3, 8),
        ({"tinit": 0}, 40, 0, 20),
        ({"tinit": 0, "tfinal": 0}, 40, 0, 0),
    ],
)
def test_the_rank_is_full_in_the_first_tenth_and_final_in_the_last_half_unless_options_say_so(
    saved_model, options, steps, tinit, tfinal
):
    params = Params.model_validate(tiny_params(peft={"method": "adalora", "options": options}))
    base = saved_model("llama")
    config = adapted(load_base(base, labels=tiny_run.LABELS, seed=0), params, depth=2, base=base).active_peft_config
    begin(config, steps)
    assert (config.total_step, config.tinit, config.tfinal) == (steps, tinit, tfinal)


def test_a_run_with_too_few_steps_is_refused():
    with pytest.raises(PipelineError, match=r"tinit \(1 or more\) \+ tfinal below the run's 12 steps, found 4 \+ 8"):
        begin(SimpleNamespace(total_step=None, tinit=4, tfinal=8), 12)
    for steps in (1, 2):
        with pytest.raises(PipelineError, match=f"^train.epochs: .* 3 training steps or more .*, found {steps}; raise"):
            begin(SimpleNamespace(total_step=None, tinit=NOT_GIVEN, tfinal=NOT_GIVEN), steps)
    begin(SimpleNamespace(total_step=None, tinit=NOT_GIVEN, tfinal=NOT_GIVEN), 3)


def begin(config: SimpleNamespace, steps: int) -> None:
    """What the Trainer does before its first step."""
    model, state = SimpleNamespace(active_peft_config=config), SimpleNamespace(max_steps=steps)
    RankAllocation().on_train_begin(None, state, None, model=model)
