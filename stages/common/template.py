"""The prompt template, carried by the tokenizer: every text that it encodes stands inside the template.

The template is the tokenizer's post-processor, in ids, so it is saved and loaded with the tokenizer and reaches
everyone who uses the adapter, with none of this project's code.
"""

from pathlib import Path

from tokenizers import Tokenizer, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.common.base import load_config
from stages.common.errors import PipelineError

PROBES = ("good", "It was, in 2 words, not bad.", "Überraschend gut!")
"""Texts on which a tokenizer with a template must agree with the tokenizer without it on the formatted string."""


def load_tokenizer(base: Path, *, template: str, max_length: int) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, which puts every text into `template` before the model sees it.

    The template becomes the tokenizer's post-processor, in ids, so it is saved and loaded with the tokenizer, and
    truncation to `max_length` tokens cuts the text only. Padding is on the right.

    Raises:
        PipelineError: the tokenizer has no pad and no end token, `max_length` leaves no room for a text, or the
            tokenizer cannot express the template.
    """
    longest = getattr(load_config(base), "max_position_embeddings", max_length)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise PipelineError(f"{base}: expected a tokenizer with a pad or an end token, found neither")
        tokenizer.pad_token = tokenizer.eos_token
    if template != "{text}":
        tokenizer = with_template(tokenizer, template)
    room = tokenizer.num_special_tokens_to_add()
    if not room < max_length <= longest:
        raise PipelineError(
            f"encode.max_length: expected more than the template's {room} tokens and at most the model's {longest}, "
            f"found {max_length}"
        )
    tokenizer.model_max_length = max_length
    return tokenizer


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """`tokenizer` with `template` as its post-processor; ids equal those of the formatted string.

    Where the template ends in a space before the text, tokenizers that join a space to the word after it need it at
    the text's start instead: the second try.
    """
    expected = [tokenizer(template.format(text=probe))["input_ids"] for probe in PROBES]
    before, after = template_ids(tokenizer, template)
    around = [
        {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
        for name, ids in (("before", before), ("after", after))
        if ids
    ]
    single = " ".join(["before"] * bool(before) + ["$A"] + ["after"] * bool(after))
    for lead in ([], [normalizers.Prepend(" ")]):
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=around)
        if lead:
            backend.normalizer = normalizers.Sequence(lead + ([backend.normalizer] if backend.normalizer else []))
        templated = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side="right",
            truncation_side="right",
            model_input_names=tokenizer.model_input_names,
            **tokenizer.special_tokens_map,
        )
        if [templated(probe)["input_ids"] for probe in PROBES] == expected:
            return templated
    raise PipelineError(
        f"encode.template: this model's tokenizer cannot put {template!r} around a text token by token; "
        "start the part after {text} with a line break"
    )


def template_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[list[int], list[int]]:
    """The ids before and after a text that stands in `template`, the tokenizer's own special tokens among them."""
    start, probe = template.index("{text}"), PROBES[0]
    encoded = tokenizer(template.format(text=probe), return_offsets_mapping=True)
    overlap = [begin < start + len(probe) and end > start for begin, end in encoded["offset_mapping"]]
    first, last = overlap.index(True), len(overlap) - 1 - overlap[::-1].index(True)
    return encoded["input_ids"][:first], encoded["input_ids"][last + 1 :]
