"""What the pipeline uses of PEFT beyond its documentation: an upgrade of PEFT that changes it is seen here first."""

import importlib
import warnings

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification


@pytest.mark.parametrize(
    ("module", "name", "used_for"),
    [
        ("peft.utils.constants", "DUMMY_TARGET_MODULES", "peft.method: head, which adapts no module"),
        ("peft.utils", "ModulesToSaveWrapper", "loading an adapter of peft.method: ln_tuning"),
    ],
)
def test_peft_still_has_what_is_imported_from_it(module, name, used_for):
    assert hasattr(importlib.import_module(module), name), (
        f"PEFT {peft.__version__} has no {module}.{name}, needed for {used_for}: see stages/adapters/peft_internals.py"
    )


@pytest.fixture
def model(saved_model):
    return AutoModelForSequenceClassification.from_pretrained(saved_model("llama"), num_labels=2, pad_token_id=0)


def test_without_target_modules_the_head_alone_is_trained(model):
    from stages.adapters.peft_internals import NO_TARGET_MODULES

    config = peft.LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], target_modules=NO_TARGET_MODULES)
    adapted = peft.get_peft_model(model, config)
    trained = [name for name, part in adapted.named_parameters() if part.requires_grad]
    assert trained == ["base_model.model.score.modules_to_save.default.weight"]


@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern"])
def test_peft_still_warns_in_these_words_of_a_pattern_that_names_no_module(model, option):
    from stages.adapters.peft_internals import UNMATCHED_PATTERN

    config = peft.LoraConfig(target_modules=["q_proj"], **{option: {"query": 4}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=UNMATCHED_PATTERN)
        with pytest.raises(RuntimeWarning, match=f"The following {option} keys did not match"):
            peft.get_peft_model(model, config)


def test_a_merged_model_has_the_trained_head_and_no_wrapper_of_peft_around_it(model):
    from stages.adapters.peft_internals import unwrap_saved_modules

    config = peft.LNTuningConfig(task_type="SEQ_CLS", modules_to_save=["score"], target_modules=["input_layernorm"])
    adapted = peft.get_peft_model(model, config)
    trained = dict(adapted.named_parameters())["base_model.model.score.modules_to_save.default.weight"]
    trained.data.normal_()
    merged = adapted.merge_and_unload()
    assert "peft" in type(merged.score).__module__, "PEFT unwraps the head by now: unwrap_saved_modules can go"
    unwrap_saved_modules(merged)
    assert type(merged.score) is torch.nn.Linear
    assert torch.equal(merged.score.weight, trained)
    assert not [name for name, part in merged.named_modules() if type(part).__module__.startswith("peft.utils")]
