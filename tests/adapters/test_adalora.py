"""AdaLoRA: the rank that is asked for, PEFT's penalty, and a penalty on training's loss alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
import torch
from conftest import tiny_params
from families import adapted
from peft import AutoPeftModelForSequenceClassification

from stages.adapters.adalora import RankAllocation
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params


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
    ours, pefts = model(**batch, states=states).loss, plain.train()(**batch).loss
    torch.testing.assert_close(ours, pefts, rtol=0, atol=1e-4)
    model.eval()
    expected = torch.nn.functional.cross_entropy(model(**batch, states=states).logits, batch["labels"])
    torch.testing.assert_close(model(**batch, states=states).loss, expected)
    assert ours > expected + 0.1


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


def test_a_run_with_too_few_steps_for_the_options_is_refused():
    with pytest.raises(PipelineError, match=r"tinit \+ tfinal below the run's 12 steps, found 4 \+ 8"):
        begin(SimpleNamespace(total_step=None, tinit=4, tfinal=8), 12)


def begin(config: SimpleNamespace, steps: int) -> None:
    """What the Trainer does before its first step."""
    model, state = SimpleNamespace(active_peft_config=config), SimpleNamespace(max_steps=steps)
    RankAllocation().on_train_begin(None, state, None, model=model)
