"""The base model with a classification head."""

from pathlib import Path

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from stages.backbone.base import load_config
from stages.classifier import label_words, last_token
from stages.common.errors import PipelineError


def load_base(
    base: Path, *, labels: dict, seed: int, head: str = "random", words: dict[str, str] | None = None
) -> PreTrainedModel:
    """The base model with a classification head.

    `fresh_modules` of the returned model names the modules whose weights the base lacks.

    Args:
        labels: see `label_arguments`; also the changes of `stages.backbone.base.keep_lowest_layers`.
        seed: of a random head.
        head: with "label_words", a model with a language-model head starts from that head's rows for the label words,
            which makes it a zero-shot classifier; every other head is random.
        words: each class's word; None: the class's own name.

    Raises:
        PipelineError: the base was saved with a classification head of another size.
    """
    config = load_config(base, **labels)
    transformers.set_seed(seed)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        base, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if loading["mismatched_keys"]:
        raise PipelineError(
            f"{base}: expected a model without a head, or with one for the data's {config.num_labels} classes, found "
            "one for another number; choose as model.source the model that it was tuned from"
        )
    model.config.use_cache = False
    model.fresh_modules = sorted({key.rpartition(".")[0] for key in loading["missing_keys"]})
    if is_causal(config):
        last_token.mlp_at_last_token_only(model)
    if head == "label_words" and label_words.has_label_word_head(model):
        model.score.weight.data.copy_(label_words.label_word_head(model, base, words))
    return model


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether the model reads from left to right, so that its last token alone has seen the whole text.

    Some encoders (BERT) can be run that way too, but they also have a masked language model, which decoders lack.
    """
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
