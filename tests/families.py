"""Tiny random models of every family, and what the pipeline makes of each, as a table.

    python -m tests.families > docs/families.md

The table is made by the code that the stages run; tests/test_families.py holds it to its limits.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from peft import AutoPeftModelForSequenceClassification, PeftModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertForMaskedLM,
    AutoModelForSequenceClassification,
    BartForConditionalGeneration,
    BertForMaskedLM,
    BertModel,
    BloomForCausalLM,
    DebertaForMaskedLM,
    DebertaV2ForMaskedLM,
    DistilBertForMaskedLM,
    ElectraForPreTraining,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    GemmaForCausalLM,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoForCausalLM,
    GPTNeoXForCausalLM,
    GptOssForCausalLM,
    JambaForCausalLM,
    LlamaForCausalLM,
    LlamaModel,
    MBartForConditionalGeneration,
    MistralForCausalLM,
    MixtralForCausalLM,
    ModernBertForMaskedLM,
    MPNetForMaskedLM,
    MT5ForConditionalGeneration,
    MvpForConditionalGeneration,
    OPTForCausalLM,
    Phi3ForCausalLM,
    PLBartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    RobertaForMaskedLM,
    T5ForConditionalGeneration,
    UMT5ForConditionalGeneration,
    XLMRobertaForMaskedLM,
    Zamba2ForCausalLM,
    set_seed,
)

from stages import encode
from stages.adapters import methods
from stages.backbone import prefix, store
from stages.backbone.base import load_config, quiet_transformers, why_unsupported
from stages.classifier import inference
from stages.classifier.label_words import has_label_word_head
from stages.classifier.labels import label_arguments
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.encoding import template
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.serving import answers, onnx_model
from stages.training import fused

ROOT = Path(__file__).resolve().parent.parent

LAYERS = 4
STEPS = 40

GOOD = ("good", "warm", "funny", "wise", "lovely", "bright")
BAD = ("bad", "cold", "dull", "silly", "awful", "grey")
NOUNS = ("film", "story", "actor", "scene", "ending", "score", "plot")

TEMPLATE = "Review: {text}\nSentiment:"


def main() -> None:
    quiet_transformers()
    print(HEAD)
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            measured = measure(save_model(name, Path(folder, "base")), Path(folder))
            exported = in_onnx(Path(folder, "base"), Path(folder))
        print(f"{measured.line(name)} {exported} |")
    print(others())


HEAD = f"""\
# Model families

Made by `python -m tests.families > docs/families.md` (transformers {transformers.__version__}): what the stages' own
code makes of a tiny random model of each family, {LAYERS} layers high, with LoRA on the top two. Every line is a test
(`tests/test_families.py`).

- **split**: the lower layers run once and their states are stored. no: the layers share their weights, or every layer
  of a decoder reads the last of an encoder's; `encode` says so and stores nothing, and LoRA adapts them all, as with
  `lora.top_layers: all`.
- **head**: what `zero_shot`, and the head with `lora.head_init: label_words`, score. -: the model was saved without
  a head that scores the next word, and has no such rival.
- **stored states**: largest difference of the logits from stored states to those of the whole model in transformers.
- **batch**: the same of a batch of unequal lengths to one row at a time.
- **loss**: before and after {STEPS} steps of LoRA.
- **reload**: largest difference of the logits after loading the saved adapter with plain PEFT.
- **ONNX**: the same in ONNX Runtime, see [onnx.md](onnx.md). no: `export --onnx` ends with the reason in one line. This
  column is no test, as an export takes many seconds.

| family | class in transformers | split | head | stored states | batch | loss | reload | ONNX |
|---|---|---|---|---|---|---|---|---|"""


REFUSED = """
## Refused

`encode` ends with the reason in one line, before anything is computed.

| reason | families (`model_type`) |
|---|---|"""

UNTESTED = """
## Not tested

`encode` tries these on two short rows, and refuses `lora.top_layers` other than `all`, with the reason, where the split
would change their output: {}.

A model whose code is not in transformers itself is refused by `fetch`: code from a repository is never run.
"""


def others() -> str:
    """The families of text models in transformers that are refused, by reason, and those that are not tested."""
    mappings = (
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
    )
    tested = {family.model.config_class.model_type for family in MODELS.values()}
    refused, untested = {}, set()
    for kind in {kind for mapping in mappings for kind in mapping}:
        try:
            reason = why_unsupported(kind())
        except StrictDataclassClassValidationError:  # it has no valid defaults
            continue
        (refused.setdefault(reason.partition(" (")[0], set()) if reason else untested).add(kind.model_type)
    lines = [f"| {reason} | {', '.join(sorted(names))} |" for reason, names in sorted(refused.items())]
    return "\n".join([REFUSED, *lines, UNTESTED.format(", ".join(sorted(untested - tested)))])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of one family; differences are the largest ones between logits."""

    classifier: str
    depth: int
    has_label_word_head: bool
    spread: float
    """Standard deviation of the logits over the rows: logits that are all alike would prove nothing."""
    stored: float
    batch: float
    losses: tuple[float, float]
    reload: float

    def line(self, name: str) -> str:
        """The family's line of the table."""
        cells = (
            name,
            f"`{self.classifier}`",
            "yes" if self.depth else "no",
            "label words" if self.has_label_word_head else "-",
            f"{self.stored:.0e}" if self.depth else "-",
            f"{self.batch:.0e}",
            "{:.2f} → {:.2f}".format(*self.losses),
            f"{self.reload:.0e}",
        )
        return f"| {' | '.join(cells)} |"


def measure(base: Path, folder: Path) -> Measured:
    """Encode, train, save and reload the model in `base` as the stages do; `folder` takes what they write."""
    params = Params.load(ROOT / paths.PARAMS)
    config = load_config(base)
    tokenizer = template.load_tokenizer(base, template=TEMPLATE, max_length=64)
    with mock.patch.object(paths, "BASE_MODEL", base):
        lower, depth = encode.load_frozen_blocks(LAYERS // 2)
    about = described(depth=depth, hidden_size=config.hidden_size, pad_token_id=tokenizer.pad_token_id)
    texts, ratings = zip(*sentences(12), strict=True)
    encoded, classes = tokenizer(list(texts))["input_ids"], [int(rating > 0) for rating in ratings]
    for split, count in zip(paths.SPLITS, (12, 2, 2), strict=True):
        store.save_tokens(folder / split, [chunk_of([[row] for row in encoded[:count]], classes[:count])])
    if lower:
        with mock.patch.object(paths, "BASE_MODEL", base):
            encode.encode_states(lower, folder, about, params, folder / "place")
    rows = store.load_rows(folder / "train", about)
    tokens = replace(rows, states=None)

    labels = labels_of(about.class_names, about.pad_token_id)
    set_seed(params.seed)
    whole = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, **labels)
    expected = logits(whole, tokens)

    model = load_base(base, labels=labels, seed=params.seed)
    prefix.splice(model, depth)
    stored = logits(model, rows)
    model = adapted(model, params, depth=depth, base=base)
    fused.fuse(model, rows.batch([0]))
    train(model, rows)
    tuned = logits(model, rows)
    model.save_pretrained(folder / "adapter")
    reloaded = AutoPeftModelForSequenceClassification.from_pretrained(folder / "adapter", dtype=torch.float32, **labels)
    return Measured(
        classifier=type(whole).__name__,
        depth=depth,
        has_label_word_head=has_label_word_head(whole),
        spread=float(expected.std(axis=0).min()),
        stored=difference(stored, expected),
        batch=difference(logits(whole, tokens, batch_size=1), expected),
        losses=(loss(expected, rows), loss(tuned, rows)),
        reload=difference(logits(reloaded, tokens), tuned),
    )


def in_onnx(base: Path, folder: Path) -> str:
    """The largest difference of the logits in ONNX Runtime to those of the model in `base`; no: it is not exported."""
    from stages.exporting import onnx_export  # it needs optional packages

    tokenizer = template.load_tokenizer(base, template=TEMPLATE, max_length=64)
    model = load_base(base, labels=labels_of(["bad", "good"], tokenizer.pad_token_id), seed=1)
    texts, how = [text for text, _ in sentences(12)], {"tokenizer": tokenizer, "batch_size": 5}
    expected = answers.logits(model, texts, **how)
    try:
        onnx_export.save_model(model, tokenizer, folder / onnx_model.GRAPH)
        found = answers.logits(onnx_model.OnnxModel(folder / onnx_model.GRAPH), texts, **how)
    except PipelineError:
        return "no"
    return f"{difference(found, expected):.0e}"


def labels_of(class_names: list[str], pad_token_id: int = 0, problem: str = "single_label") -> dict[str, Any]:
    """The arguments with which `from_pretrained` makes a head for these classes."""
    return label_arguments(PROBLEMS[problem], class_names, pad_token_id)


def described(**changes: Any) -> store.About:
    """What `about.json` says of a tiny encoding with two classes; `changes` are its fields."""
    values = {
        "problem": "single_label",
        "class_names": ["bad", "good"],
        "depth": LAYERS // 2,
        "hidden_size": SIZES["hidden_size"],
        "dtype": "float32",
        "pad_token_id": 0,
        "layers": None,
        "max_length": 64,
    }
    return store.About(**values | changes)


def chunk_of(
    texts: Sequence[Sequence[Sequence[int]]], labels: Sequence, source_rows: Sequence | None = None
) -> store.Chunk:
    """Texts, each with its rows of tokens, as `store.save_tokens` takes them; without numbers they count from 0."""
    rows = [row for text in texts for row in text]
    return store.Chunk(
        tokens=np.concatenate(rows),
        lengths=np.array([len(row) for row in rows]),
        counts=np.array([len(text) for text in texts]),
        labels=np.asarray(labels),
        source_rows=np.arange(len(texts)) if source_rows is None else np.asarray(source_rows),
    )


def adapted(model: PreTrainedModel, params: Params, *, depth: int, base: Path) -> PeftModel | PreTrainedModel:
    """`methods.add` with what `params` says."""
    sections = {"peft": params.peft, "lora": params.lora, "max_length": params.encode.max_length}
    return methods.add(model, **sections, depth=depth, base=base)


def stored(folder: Path) -> np.ndarray:
    """The states in the folder of a split, in the order of its rows."""
    rows = store.load_rows(folder, described())
    return np.concatenate([rows.states[index] for index in range(len(rows))])


def unlabelled(tokens: list, pad_token_id: int) -> store.Rows:
    """Rows of these tokens, all of the first class, nothing stored."""
    return store.Rows(
        tokens=np.concatenate(tokens).astype(np.int32),
        offsets=np.cumsum([0, *map(len, tokens)]),
        labels=np.zeros(len(tokens), dtype=np.int64),
        source_rows=np.arange(len(tokens)),
        states=None,
        pad_token_id=pad_token_id,
    )


def logits(model: torch.nn.Module, rows: store.Rows, batch_size: int = 8) -> np.ndarray:
    return inference.logits(model, rows, batch_size=batch_size, progress="logits")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def loss(scores: np.ndarray, rows: store.Rows) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(rows.labels)))


def train(model: torch.nn.Module, rows: store.Rows) -> None:
    """A few steps on all rows, with gradients clipped as the Trainer clips them: some families diverge otherwise."""
    trained = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    model.train()
    for _ in range(STEPS):
        model(**rows.batch(np.arange(len(rows)))).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()


def sentences(count: int) -> list[tuple[str, float]]:
    """Distinct texts of unequal lengths with a rating: what the words say, which a tiny model can learn."""
    rows = []
    for number in range(count):
        words, rating = ((GOOD, 2.0), (BAD, -2.0))[number % 2]
        word, noun = words[number // 2 % len(words)], NOUNS[number // 3 % len(NOUNS)]
        rest = " and ".join(
            f"{words[(number + step) % len(words)]} {noun} {number + step}" for step in range(number % 4)
        )
        rows.append((" ".join(f"A {word} {noun}, number {number}. {rest} It is {word}".split()), rating))
    return rows


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's and SmolLM2's, without a pad token."""
    tokenizer = byte_level_bpe(
        ["Review: a positive negative Sentiment:\n"] * 9 + [text for text, _ in sentences(60)], ["<|endoftext|>"]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def padded_byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like OPT's and RoBERTa's: texts stand between special tokens, and the pad token has the id 1."""
    tokenizer = byte_level_bpe([text for text, _ in sentences(60)], ["<s>", "<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", cls_token="<s>"
    )


def byte_level_bpe(texts: list[str], special: list[str]) -> Tokenizer:
    """A byte-level BPE trained on the texts; the special tokens get the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE like Gemma's and Mistral's, in which a space is a character of the word after it, with a start token."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.train_from_iterator(
        ["Review: a positive negative Sentiment:\n"] * 9 + [text for text, _ in sentences(60)],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False),
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


BETWEEN_CLS_AND_SEP = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer like BERT's, with [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        ["review sentiment : . , ü t u b r e s c h a n d g !"] + [text for text, _ in sentences(60)],
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = BETWEEN_CLS_AND_SEP
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def sentence_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer like those of ALBERT and DeBERTa-v3, which joins a space to the word after it."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        ["Review: Sentiment: Überraschend gut!\n , in 2 words, not bad."] + [text for text, _ in sentences(60)],
        trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = BETWEEN_CLS_AND_SEP
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]"
    )


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer like T5's: its texts end with </s>, and </s> and the pad token are pieces, too."""
    texts = ["Review: Sentiment: Überraschend gut! , in 2 words, not bad."] + [text for text, _ in sentences(60)]
    words = sorted({f"▁{word}" for text in texts for word in text.split()})
    pieces = [*((word, -5.0) for word in words), *((letter, -9.0) for letter in sorted({*"".join(words)}))]
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=2))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def mbart_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like mBART's: after the end token comes the language, with which the decoder begins."""
    tokenizer = byte_level_bpe([text for text, _ in sentences(60)], ["<s>", "<pad>", "</s>", "en_XX"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> en_XX", special_tokens=[("</s>", 2), ("en_XX", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["en_XX"],
    )


class Family(NamedTuple):
    """A pretrained model's class, its tokenizer, and what makes it tiny."""

    model: type[PreTrainedModel]
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    sizes: dict[str, Any]


SIZES = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
DECODER = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True}
ENCODER = SIZES | {"max_position_embeddings": 130}
GPT2 = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}
TWO_KINDS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}
T5 = {"d_model": 32, "num_layers": LAYERS, "num_heads": 4, "d_kv": 8, "d_ff": 48, "decoder_start_token_id": 0}
BART = {
    "d_model": 32,
    "max_position_embeddings": 130,
    "decoder_start_token_id": 2,
    **{
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {"layers": LAYERS, "attention_heads": 4, "ffn_dim": 48}.items()
    },
}
DEBERTA = ENCODER | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}

MODELS = {
    "gpt2": Family(GPT2LMHeadModel, byte_level_tokenizer, GPT2),
    "gpt2, no language-model head": Family(GPT2Model, byte_level_tokenizer, GPT2),
    "llama": Family(LlamaForCausalLM, byte_level_tokenizer, DECODER),
    "llama, no language-model head": Family(LlamaModel, byte_level_tokenizer, DECODER),
    "qwen2": Family(Qwen2ForCausalLM, byte_level_tokenizer, DECODER),
    "qwen3": Family(Qwen3ForCausalLM, byte_level_tokenizer, DECODER | {"head_dim": 8}),
    "mistral": Family(MistralForCausalLM, spaced_tokenizer, DECODER | {"sliding_window": 8}),
    "phi3": Family(Phi3ForCausalLM, spaced_tokenizer, DECODER),
    "gemma": Family(GemmaForCausalLM, spaced_tokenizer, DECODER | {"head_dim": 8}),
    "gemma2": Family(Gemma2ForCausalLM, spaced_tokenizer, DECODER | {"head_dim": 8} | TWO_KINDS),
    "gemma3": Family(Gemma3ForCausalLM, spaced_tokenizer, DECODER | {"head_dim": 8} | TWO_KINDS),
    "gpt_neox (Pythia)": Family(GPTNeoXForCausalLM, byte_level_tokenizer, SIZES | {"max_position_embeddings": 128}),
    "gpt_neo": Family(
        GPTNeoForCausalLM,
        byte_level_tokenizer,
        {"hidden_size": 32, "num_layers": LAYERS, "num_heads": 4, "max_position_embeddings": 128, "window_size": 8}
        | {"attention_types": [[["global", "local"], LAYERS // 2]]},
    ),
    "bloom": Family(BloomForCausalLM, byte_level_tokenizer, {"hidden_size": 32, "n_layer": LAYERS, "n_head": 4}),
    "mixtral": Family(MixtralForCausalLM, spaced_tokenizer, DECODER | {"num_local_experts": 4}),
    "gpt_oss": Family(
        GptOssForCausalLM,
        byte_level_tokenizer,
        DECODER | TWO_KINDS | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "jamba (state space and attention)": Family(
        JambaForCausalLM,
        byte_level_tokenizer,
        DECODER
        | {name: 2 for name in ("attn_layer_period", "expert_layer_period", "num_experts")}
        | {"attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "zamba2 (state space and attention)": Family(
        Zamba2ForCausalLM,
        byte_level_tokenizer,
        DECODER
        | {"layers_block_type": ["mamba", "hybrid"] * (LAYERS // 2), "hybrid_layer_ids": [1, 3], "num_mem_blocks": 1}
        | {"mamba_d_state": 4, "mamba_headdim": 8, "n_mamba_heads": 8, "chunk_size": 8, "adapter_rank": 4}
        | {"use_mamba_kernels": False},
    ),
    "opt": Family(
        OPTForCausalLM,
        padded_byte_level_tokenizer,
        {name: SIZES[name] for name in SIZES if name != "intermediate_size"}
        | {"ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "bert": Family(BertForMaskedLM, word_piece_tokenizer, ENCODER),
    "bert, no language-model head (MiniLM)": Family(BertModel, word_piece_tokenizer, ENCODER),
    "roberta": Family(RobertaForMaskedLM, word_piece_tokenizer, ENCODER),
    "xlm-roberta": Family(XLMRobertaForMaskedLM, padded_byte_level_tokenizer, ENCODER),
    "distilbert": Family(
        DistilBertForMaskedLM, word_piece_tokenizer, {"dim": 32, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 48}
    ),
    "mpnet": Family(MPNetForMaskedLM, padded_byte_level_tokenizer, ENCODER),
    "electra": Family(ElectraForPreTraining, word_piece_tokenizer, ENCODER | {"embedding_size": 16}),
    "albert": Family(AlbertForMaskedLM, sentence_piece_tokenizer, ENCODER | {"embedding_size": 16}),
    "deberta": Family(
        DebertaForMaskedLM,
        padded_byte_level_tokenizer,
        ENCODER | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v2 (DeBERTa-v3)": Family(DebertaV2ForMaskedLM, sentence_piece_tokenizer, DEBERTA),
    "deberta-v2, convolution": Family(
        DebertaV2ForMaskedLM, sentence_piece_tokenizer, DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"}
    ),
    "modernbert": Family(
        ModernBertForMaskedLM,
        padded_byte_level_tokenizer,
        ENCODER | {"local_attention": 8, "layer_types": TWO_KINDS["layer_types"]},
    ),
    "t5": Family(T5ForConditionalGeneration, t5_tokenizer, T5 | {"num_decoder_layers": 2}),
    "mt5": Family(MT5ForConditionalGeneration, t5_tokenizer, T5),
    "umt5": Family(UMT5ForConditionalGeneration, t5_tokenizer, T5),
    "bart": Family(BartForConditionalGeneration, padded_byte_level_tokenizer, BART),
    "mbart": Family(MBartForConditionalGeneration, mbart_tokenizer, BART | {"decoder_start_token_id": None}),
    "mvp": Family(MvpForConditionalGeneration, padded_byte_level_tokenizer, BART),
    "plbart": Family(PLBartForConditionalGeneration, mbart_tokenizer, BART | {"decoder_layers": 6}),
}

ENCODER_DECODERS = ("t5", "mt5", "umt5", "bart", "mbart", "mvp", "plbart")

WHOLE = ("albert", *ENCODER_DECODERS)
"""Those whose layers cannot be run apart: ALBERT's share their weights, and those of a decoder read an encoder's last.
"""

SPLIT = [name for name in MODELS if name not in WHOLE]
"""Those whose layers can be run apart."""


def save_model(family: str, folder: Path, **changes: Any) -> Path:
    """A tiny random model of a family, saved with its tokenizer; `changes` are of its configuration."""
    model, make_tokenizer, sizes = MODELS[family]
    tokenizer = make_tokenizer()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    set_seed(0)
    model = model(model.config_class(vocab_size=len(tokenizer), **special, **sizes | changes)).eval()
    for parameter in model.parameters():  # transformers' small start makes all outputs alike; spread them
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
