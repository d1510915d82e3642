"""The prompt template, a part of the tokenizer, which puts every text into the template.

The template, as token ids, is the tokenizer's post-processor; the cleaning of texts is its normalizer. Both are
saved and loaded with the tokenizer, so everyone who uses the adapter has them, without this project's code. So is the
rule that special tokens written out in a text, like `</s>`, are plain text; in the template they are what they mean.
"""

import re
from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BatchEncoding,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from stages.backbone.base import load_config, max_tokens
from stages.common.errors import PipelineError
from stages.encoding.params import TEXT_ALONE

PROBES = (("good", "bad"), ("It was, in 2 words, not bad.", "good"), ("Überraschend gut!", "Well, 1 of 2?"))
"""Pairs for which the tokenizer with the template must give the ids that the tokenizer without the template gives for
the formatted string; if the data has no pairs, the first text of each."""

CLEANING = (
    normalizers.Replace("\0", ""),
    normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "),
    normalizers.Strip(),
    normalizers.NFC(),
)
"""The same cleaning as `texts.clean`, for texts that were not cleaned before; only accents younger than the tables of
`tokenizers` (Unicode 10 and later, in rare scripts) may stay in another order."""

INPUTS = {"tokens": "input_ids", "token_types": "token_type_ids"}
"""What the stored rows hold, and the names by which models take it."""

TRUNCATION_SIDES = {"head": "right", "tail": "left", "windows": "right"}
"""The side at which a long text is cut, by the part that is kept; windows start at the text's beginning."""


def load_tokenizer(
    base: Path,
    *,
    template: str | None,
    max_length: int | None = None,
    truncation: Literal["head", "tail", "windows"] = "head",
    pairs: bool = False,
) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, which puts every text into `template` before the model sees it.

    The template becomes the tokenizer's post-processor, as token ids, so it is saved and loaded with the tokenizer, and
    truncation to `max_length` tokens cuts only the text, whose head or tail is kept. Padding is on the right. Token
    types are given where the tokenizer itself joins the texts of a pair, for a model that tells a first text from a
    second (BERT); everywhere else all of them are 0, which models assume.

    Args:
        max_length: None: as many tokens as the model takes, which may be infinitely many.

    Raises:
        PipelineError: there is no fast tokenizer, it has no special token, `max_length` leaves no room for a text or
            exceeds what the model takes, or the tokenizer cannot express the template.
    """
    config = load_config(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base,
            padding_side="right",
            truncation_side=TRUNCATION_SIDES[truncation],
            trust_remote_code=False,
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(
            f"{base}: expected a tokenizer that transformers can read, found: {reason}; restore it with "
            f"`dvc checkout --force {base}`, or choose another model.source"
        ) from None
    if not tokenizer.is_fast:
        raise PipelineError(
            f"{base}: expected a fast tokenizer (tokenizer.json), found {type(tokenizer).__name__}; "
            "choose another model.source"
        )
    tokenizer.pad_token = padding(tokenizer, config, base)
    template = written_out(template, tokenizer, pairs)
    typed = pairs and template == TEXT_ALONE and getattr(config, "type_vocab_size", 0) > 1
    tokenizer.model_input_names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    tokenizer = with_template(tokenizer, template, pairs)
    if config.is_encoder_decoder:
        check_end(tokenizer, config, base)
    tokenizer.model_max_length = max_tokens(config)
    if max_length is not None:
        limit(tokenizer, max_length, around=tokenizer.num_special_tokens_to_add(pair=pairs))
    return tokenizer


def padding(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, base: Path) -> str:
    """The token to pad with: the model's own pad token, from which some count the positions (RoBERTa), the tokenizer's,
    one whose name says so, the end token, or any other special token: the first of these that has an embedding. The
    end token is none where the head of an encoder-decoder counts it.

    Raises:
        PipelineError: there is none.
    """
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    named = [token for token, added in tokenizer.added_tokens_decoder.items() if "pad" in added.content.lower()]
    wanted = config.pad_token_id, tokenizer.pad_token_id, *named, tokenizer.eos_token_id, *sorted(special)
    counted = {config.eos_token_id} if config.is_encoder_decoder else set()
    found = [token for token in wanted if token in special - counted and token < config.vocab_size]
    if not found:
        raise PipelineError(
            f"{base}: expected a tokenizer with a special token to pad with, found none; give it a pad_token that the "
            "model has an embedding for"
        )
    return tokenizer.convert_ids_to_tokens(found[0])


def check_end(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, base: Path) -> None:
    """Check that each row has the end token at which an encoder-decoder's head reads.

    Raises:
        PipelineError: the tokenizer does not put it there.
    """
    around = tokenizer("")["input_ids"]
    if config.eos_token_id not in around:
        raise PipelineError(
            f"{base}: expected a tokenizer that ends each text with the token {config.eos_token_id} (eos_token_id in "
            f"config.json), at which {config.model_type}'s head reads, found {tokenizer.convert_ids_to_tokens(around)} "
            "around a text; save the tokenizer with a post-processor that adds it, or correct eos_token_id"
        )


def written_out(template: str | None, tokenizer: PreTrainedTokenizerBase, pairs: bool) -> str:
    """The template with its line breaks, which `-S` can only write as `\\n`; None: the text alone, and pairs as the
    tokenizer joins them, or, if it puts nothing between two texts, with a line break."""
    if template is not None:
        return template.replace(r"\n", "\n")
    joined = not pairs or tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add()
    return TEXT_ALONE if joined else "{text}\n{text_pair}"


def limit(tokenizer: PreTrainedTokenizerBase, max_length: int, *, around: int) -> None:
    """Let the tokenizer, as `load_tokenizer` returns it without a `max_length`, cut texts to `max_length` tokens.

    Args:
        around: how many of them are the template's.

    Raises:
        PipelineError: `max_length` leaves no room for a text or exceeds what the model takes.
    """
    if max_length <= around:
        raise PipelineError(
            f"encode.max_length: expected more than the {around} tokens of the template, found {max_length}"
        )
    if max_length > (longest := tokenizer.model_max_length):
        raise PipelineError(
            f"encode.max_length: expected at most the {longest} tokens that the model takes, found {max_length}"
        )
    tokenizer.model_max_length = max_length


def token_rows(
    tokenizer: PreTrainedTokenizerBase, inputs: list[str] | list[tuple[str, str]], stride: int | None
) -> dict[str, list[list[list[int]]]]:
    """The tokens of each text or pair in rows of at most `model_max_length`, each within the template; and likewise the
    token types, where the tokenizer gives any. The keys are those of `INPUTS`.

    Args:
        stride: tokens that the neighbouring windows of a long text share; None: one row per text, truncated.

    Raises:
        PipelineError: `stride` is not below the number of tokens that the template leaves for the text.
    """
    if stride is None:
        rows = stored(tokenizer, tokenizer(inputs, truncation=True))
        return {name: [[row] for row in values] for name, values in rows.items()}
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if stride >= room:
        raise PipelineError(
            f"encode.stride: expected less than the {room} tokens that encode.max_length leaves for the text, "
            f"found {stride}"
        )
    windows = tokenizer(inputs, truncation=True, stride=stride, return_overflowing_tokens=True)
    rows = {name: [[] for _ in inputs] for name in stored_names(tokenizer)}
    for name, values in stored(tokenizer, windows).items():
        for text, row in zip(windows["overflow_to_sample_mapping"], values, strict=True):
            rows[name][text].append(row)
    return rows


def stored_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The keys of `INPUTS` for which the tokenizer gives anything."""
    return [name for name, given in INPUTS.items() if given in tokenizer.model_input_names]


def stored(tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding) -> dict[str, list[list[int]]]:
    """What the stored rows hold of a tokenizer's output, by the keys of `INPUTS`.

    A row without tokens, of an empty text without a template, is the pad token: a model reads no less than one.
    """
    least = {"tokens": [tokenizer.pad_token_id], "token_types": [0]}
    return {name: [row or least[name] for row in encoded[given]] for name, given in INPUTS.items() if given in encoded}


def with_template(tokenizer: PreTrainedTokenizerBase, template: str, pairs: bool) -> PreTrainedTokenizerBase:
    """`tokenizer` with `template` as its post-processor; its ids for a text equal those of the formatted string.

    If the template has a space before the text, tokenizers that join a space to the next word need the space at the
    text's start instead: the second attempt. With the template "{text}", pairs are joined as the tokenizer joins them.
    """
    plain = pairs and template == TEXT_ALONE
    probes = list(PROBES) if pairs else [text for text, _ in PROBES]
    formatted = probes if plain else [template.format(text=text, text_pair=pair) for text, pair in PROBES]
    expected = stored(tokenizer, tokenizer(formatted))
    for lead in ([], [normalizers.Prepend(" ")]):
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([*CLEANING, *lead, *own])
        split_special_pieces(
            backend, [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        )
        if not plain:
            backend.post_processor = post_processor(tokenizer, template, pairs)
        templated = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side=tokenizer.padding_side,
            truncation_side=tokenizer.truncation_side,
            model_input_names=tokenizer.model_input_names,
            split_special_tokens=True,
            **tokenizer.special_tokens_map,
        )
        if stored(templated, templated(probes)) == expected:
            return templated
    raise PipelineError(
        f"encode.template: this model's tokenizer cannot put {template!r} around a text token by token; "
        "start the part after a text with a line break"
    )


def split_special_pieces(backend: Tokenizer, special: list[str]) -> None:
    """Let the tokenizer split special tokens that are written out in a text, where its model has them as pieces.

    `split_special_tokens` is enough for most models; but those of type Unigram and WordLevel find the whole string
    among their pieces. There a pre-tokenizer sets its first character apart.
    """
    backend.encode_special_tokens = True
    whole = [
        token
        for token in special
        if len(token) > 1
        and backend.token_to_id(token) in backend.encode(f"{token} a{token}a", add_special_tokens=False).ids
    ]
    if whole:
        firsts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in whole)
        own = [backend.pre_tokenizer] if backend.pre_tokenizer else []
        backend.pre_tokenizer = pre_tokenizers.Sequence([*own, pre_tokenizers.Split(Regex(firsts), "isolated")])


def post_processor(tokenizer: PreTrainedTokenizerBase, template: str, pairs: bool) -> processors.TemplateProcessing:
    """The post-processor that puts the template's ids around those of a text, or of a pair."""
    ids = template_ids(tokenizer, template)
    around = [
        {"id": name, "ids": part, "tokens": tokenizer.convert_ids_to_tokens(part)} for name, part in ids.items() if part
    ]
    single = " ".join(name for name in ("before", "$A", "after") if ids.get(name, True))
    pair = " ".join(name for name in ("before", "$A", "between", "$B", "after") if ids.get(name, True))
    return processors.TemplateProcessing(single=single, pair=pair if pairs else None, special_tokens=around)


def template_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> dict[str, list[int]]:
    """The ids before, between and after the texts in `template`, including the tokenizer's own special tokens."""
    spans, filled = [], template
    for field, probe in zip(("{text}", "{text_pair}"), PROBES[0], strict=True):
        if field in template:
            spans.append((filled.index(field), filled.index(field) + len(probe)))
            filled = filled.replace(field, probe)
    encoded = tokenizer(filled, return_offsets_mapping=True)
    ids, parts, place = encoded["input_ids"], [], 0
    for start, stop in spans:
        overlap = [begin < stop and end > start for begin, end in encoded["offset_mapping"]]
        parts.append(ids[place : overlap.index(True)])
        place = len(overlap) - overlap[::-1].index(True)
    return {"before": parts[0], "between": parts[-1] if len(parts) > 1 else [], "after": ids[place:]}
