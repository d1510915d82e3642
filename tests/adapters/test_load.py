"""Loading: the logits of plain PEFT or plain transformers, from a model without traces of PEFT where it can be merged.

test_methods.py holds the same for every method after a whole training.
"""

import json

import pytest
import torch
from conftest import tiny_params
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, set_seed

from stages.adapters import methods
from stages.adapters.load import load
from stages.classifier.labels import label_arguments
from stages.classifier.model import load_base
from stages.common import files
from stages.common.errors import PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS

LABELS = label_arguments(PROBLEMS["single_label"], ["bad", "good"], pad_token_id=0)
ROWS = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.fixture
def saved(saved_model, tmp_path):
    """Saves a model of a family with every trained weight changed; returns its folder."""

    def save(family, method):
        options = {"num_virtual_tokens": 4} if method in methods.PROMPTS else {}
        params = Params.model_validate(tiny_params(peft={"method": method, "options": options}))
        base = saved_model(family)
        model = methods.add(
            load_base(base, labels=LABELS, seed=0),
            peft=params.peft,
            lora=params.lora,
            max_length=params.encode.max_length,
            depth=methods.depth(method, 2),
            base=base,
        )
        torch.manual_seed(0)
        for part in model.parameters():
            if part.requires_grad:
                part.data += torch.randn_like(part) / 10
        model.save_pretrained(tmp_path)
        files.write_json(tmp_path / "labels.json", LABELS)
        return tmp_path

    return save


def logits(model, rows):
    with torch.inference_mode():
        return model.eval()(**rows).logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("method", ["lora", "ln_tuning", "head", "prompt", "full"])
def test_a_batch_has_the_logits_that_plain_loading_has_row_by_row(family, method, saved):
    folder = saved(family, method)
    kind = AutoModelForSequenceClassification if method == "full" else AutoPeftModelForSequenceClassification
    set_seed(99)  # what is not in the file starts otherwise than it was
    plain = kind.from_pretrained(folder, dtype=torch.float32, **LABELS)
    alone = [{name: values[[row], :length] for name, values in ROWS.items()} for row, length in ((0, 5), (1, 3))]
    expected = torch.cat([logits(plain, row) for row in alone])
    model = load(folder)
    torch.testing.assert_close(logits(model, ROWS), expected, rtol=1e-5, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "rows alike prove nothing"
    assert isinstance(model, PeftModel) == (method == "prompt")
    if method != "prompt":
        assert not [name for name, part in model.named_modules() if type(part).__module__.startswith("peft")]


def test_a_missing_base_model_is_named_and_not_looked_for_on_the_hub(saved, tmp_path, monkeypatch):
    folder = saved("llama", "lora")
    monkeypatch.chdir(tmp_path)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "models/base"}))
    with pytest.raises(FileNotFoundError) as caught:
        load(folder)
    assert str(caught.value.filename) == "models/base/config.json"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_weight_that_is_no_number_is_refused_by_its_name(method, saved):
    folder = saved("llama", method)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if "score" in name)
    weights[name][0, 1] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"expected finite weights, found NaN or infinity in \S*score\S*; restore"):
        load(folder)
