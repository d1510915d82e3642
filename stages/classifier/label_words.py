"""The head that can classify before any training: the language-model head's rows for the label words."""

from pathlib import Path

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from stages.backbone.base import keep_lowest_layers, load_config, pretrained
from stages.common import texts
from stages.common.errors import PipelineError
from stages.problems.kinds import of_model


def has_label_word_head(model: PreTrainedModel) -> bool:
    """Whether the base model was saved with a language-model head on the states that the classifier's `score` reads.

    Encoders, and decoders that were saved without their head, have none. Regression has no label words.
    """
    return hasattr(model, "score") and model.config.num_labels > 1 and was_saved_as_language_model(model.config)


def was_saved_as_language_model(config: PreTrainedConfig) -> bool:
    """Whether a model was saved with the language-model head of a decoder."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return causal is not None and causal.__name__ in (config.architectures or [])


def label_word_head(model: PreTrainedModel, base: Path, words: dict[str, str] | None) -> torch.Tensor:
    """The weights with which a head scores the label words, (classes, hidden).

    A softmax depends only on differences of logits. A sigmoid depends on each logit by itself, and the logits of a
    language model are all far from 0: for a sigmoid the weights are centred, so that a label's logit compares its word
    with the others.

    Args:
        model: see `label_word_rows`.
        words: each class's word; None: the class's own name.
    """
    rows = label_word_rows(model, base, label_words(list(model.config.label2id), words))
    return rows - rows.mean(dim=0) if of_model(model.config.problem_type).several_answers else rows


def label_words(class_names: list[str], words: dict[str, str] | None) -> dict[str, str]:
    """The word for each class as it stands in an answer, in the order of the classes; without `words`, the class's own
    name.

    Raises:
        PipelineError: the classes in `words` are not those of the data.
    """
    words = {name: name for name in class_names} if words is None else words
    if set(words) != set(class_names):
        raise PipelineError(f"encode.label_words: expected words for {class_names}, found them for {list(words)}")
    return {name: after_a_space(words[name]) for name in class_names}


def after_a_space(word: str) -> str:
    """The word with a space before it, by which byte-level tokenizers tell it from a part of a word; unless it brings
    white space of its own, or is of a script without spaces between words."""
    return word if word[0].isspace() or texts.UNSPACED.match(word) else f" {word}"


def label_word_rows(model: PreTrainedModel, base: Path, words: dict[str, str]) -> torch.Tensor:
    """The language-model head's row for the word of each class, (classes, hidden); the mean over a word's tokens.

    Args:
        model: the classifier made from `base`; its token embeddings are the language-model head if the two are tied.
    """
    if model.config.tie_word_embeddings:
        head = model.get_input_embeddings()
    else:
        config = load_config(base, **keep_lowest_layers(base, 1))  # the head alone is wanted, beside a whole classifier
        whole = pretrained(AutoModelForCausalLM, base, config=config, dtype=torch.float32)
        head = whole.get_output_embeddings()
    tokenizer = pretrained(AutoTokenizer, base)
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words.values()]
    return torch.stack([head.weight.detach()[tokens].mean(dim=0) for tokens in ids])
