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

from stages.backbone.base import load_config, pretrained
from stages.classifier import label_words, last_token, saved_head
from stages.classifier.labels import label_arguments
from stages.common import progress
from stages.common.errors import PipelineError
from stages.problems.problem import Problem


def load_base(
    base: Path,
    *,
    labels: dict,
    seed: int,
    head: str = "random",
    words: dict[str, str] | None = None,
    device: str | None = None,
) -> PreTrainedModel:
    """The base model with a classification head.

    `fresh_modules` of the returned model names the modules whose weights the base lacks. `unnamed_head`: it was saved
    with a head, but does not say which output is which class, so that the head's last layer is one of these modules.

    Args:
        labels: see `label_arguments`; also the changes of `stages.backbone.base.keep_lowest_layers`.
        seed: of a random head.
        head: with "label_words", a model with a language-model head starts from that head's rows for the label words,
            which makes it a zero-shot classifier; every other head is random.
        words: each class's word; None: the class's own name.
        device: "meta": the model without its weights.

    Raises:
        PipelineError: the base was saved with a classification head for other classes.
    """
    config = load_config(base, **labels)
    transformers.set_seed(seed)
    model, loading = pretrained(
        AutoModelForSequenceClassification,
        base,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        device_map=device,
    )
    model.config.use_cache = False
    model.fresh_modules = sorted({key.rpartition(".")[0] for key in loading["missing_keys"]})
    mismatched = {key.rpartition(".")[0]: saved[0] for key, saved, _ in loading["mismatched_keys"]}
    model.unnamed_head = not use_saved_head(model, base, mismatched)
    if is_causal(config):
        last_token.mlp_at_last_token_only(model)
    if head == "label_words" and label_words.has_label_word_head(model):
        model.score.weight.data.copy_(label_words.label_word_head(model, base, words))
    return model


def check_head(base: Path, problem: Problem, names: list[str]) -> None:
    """Check that `load_base` can make a classifier of the base; reads no weights.

    Args:
        names: of the model's outputs.

    Raises:
        PipelineError: see `load_base`.
    """
    labels = label_arguments(problem, names, load_config(base).pad_token_id)
    load_base(base, labels=labels, seed=0, device="meta")


def use_saved_head(model: PreTrainedModel, base: Path, mismatched: dict[str, int]) -> bool:
    """Match the head that the base was saved with, if it was, to the classes, in place; returns whether that can be.

    Args:
        mismatched: for each module whose weights have another size in the base, how many rows they have there.

    Raises:
        PipelineError: the head is for other classes, or other weights do not have the size that the configuration says.
    """
    last = saved_head.last_layer(model)
    (name,) = [name for name, part in model.named_modules() if part is last]
    if wrong := sorted(mismatched.keys() - {name}):
        raise PipelineError(
            f"{base}: expected weights of the sizes in config.json, found others for {', '.join(wrong)}; "
            "fetch or copy the model again"
        )
    outputs = mismatched.get(name, last.out_features)
    if name in model.fresh_modules or outputs == model.config.num_labels == 1:
        return True
    named = load_config(base).id2label
    saved = [str(named[index]) for index in sorted(named)]
    if len(saved) != outputs:
        saved = [f"LABEL_{index}" for index in range(outputs)]
    if saved_head.match(model, saved):
        return True
    saved_head.renew(last, deviation=getattr(model.config, "initializer_range", 0.02))
    model.fresh_modules = sorted({*model.fresh_modules, name})
    return False


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether the model reads from left to right, so that its last token alone has seen the whole text.

    Some encoders (BERT) can be run that way too, but they also have a masked language model, which decoders lack.
    """
    if config.is_encoder_decoder:
        return False
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def layers_in_use(base: Path, layers: int | str | None) -> int | None:
    """`model.layers` as a number; None: all layers.

    `auto`: all, but of a decoder that was saved as a language model three quarters, and prints that. Its topmost layers
    prepare the next word, and those below them tell texts apart better (Skean et al. 2025, Layer by Layer).
    """
    if layers != "auto":
        return layers
    config = load_config(base)
    if not (is_causal(config) and label_words.was_saved_as_language_model(config)):
        return None
    used = max(1, config.num_hidden_layers * 3 // 4)
    progress.say(f"encode: the lowest {used} of the model's {config.num_hidden_layers} layers (model.layers: auto)")
    return used
