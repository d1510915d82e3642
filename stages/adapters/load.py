"""models/adapter, loaded as anyone would load it, with plain PEFT or plain transformers."""

from pathlib import Path

import torch
from peft import AutoPeftModelForSequenceClassification, PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from stages.adapters.peft_internals import unwrap_saved_modules
from stages.backbone.base import load_config, pretrained
from stages.classifier import last_token
from stages.classifier.labels import load_labels
from stages.classifier.model import is_causal
from stages.common import files
from stages.common.errors import PipelineError


def load(folder: Path) -> PreTrainedModel | PeftModel:
    """The tuned classifier in float32, as fast as possible without changing its logits.

    An adapter is merged into its base model; virtual tokens cannot be merged, so such an adapter is returned as PEFT's
    model. A folder without an adapter holds a whole model.

    Raises:
        FileNotFoundError: the folder, or the base model that its adapter names, is missing.
        PipelineError: a weight is not finite, or the folder is damaged, or needs code of its own.
    """
    labels = load_labels(folder)
    if not (folder / "adapter_config.json").exists():
        whole = pretrained(AutoModelForSequenceClassification, folder, dtype=torch.float32, **labels)
        check_weights(whole, folder)
        return whole
    with files.reading(folder):
        base = Path(PeftConfig.from_pretrained(folder).base_model_name_or_path)
    causal = is_causal(load_config(base))  # before PEFT, which would look for a missing folder on the hub
    adapter = pretrained(AutoPeftModelForSequenceClassification, folder, dtype=torch.float32, **labels)
    check_weights(adapter, folder)
    if adapter.active_peft_config.is_prompt_learning:
        if causal:
            last_token.read_last_token(adapter.get_base_model())
        return adapter
    model = adapter.merge_and_unload()
    unwrap_saved_modules(model)
    if causal:
        last_token.mlp_at_last_token_only(model)
    return model


def check_weights(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Check that the weights are finite.

    Raises:
        PipelineError: one is NaN or infinite.
    """
    for name, part in model.named_parameters():
        if part.numel() and not torch.stack(part.detach().aminmax()).isfinite().all():
            raise PipelineError(
                f"{folder}: expected finite weights, found NaN or infinity in {name}; restore what is damaged, it or "
                "its base model, with: dvc checkout --force"
            )
