"""Any model family: the whole way through the stages' code, and one clear line where a model cannot be used."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from families import LAYERS, MODELS, SPLIT, WHOLE, labels_of, measure, others, sentences, unlabelled
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BigBirdConfig,
    BloomConfig,
    Gemma3Config,
    LlamaConfig,
    MambaConfig,
    PegasusConfig,
    PerceiverConfig,
    RobertaConfig,
    T5GemmaConfig,
    ViTConfig,
    XLNetConfig,
    XLNetModel,
)

from stages.backbone import prefix
from stages.backbone.base import keep_lowest_layers, load_config, max_tokens
from stages.backbone.states import States
from stages.classifier import inference
from stages.classifier.label_words import label_word_rows
from stages.classifier.model import load_base
from stages.common.errors import PipelineError
from stages.encoding import template

LANGUAGE_MODELS = [
    name for name, family in MODELS.items() if family.model.__name__.endswith(("LMHeadModel", "CausalLM"))
]

ALIKE = (
    *("mt5", "umt5", "mbart", "mvp", "plbart", "qwen2", "phi3", "gemma", "gemma2", "xlm-roberta", "electra", "mpnet"),
    *("gpt2, no language-model head", "llama, no language-model head"),
)
"""Built as T5, BART, Qwen3, Mistral, Gemma 3, RoBERTa and BERT are; and decoders that were saved as MiniLM is."""


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in MODELS]
)
def test_a_family_encodes_trains_saves_and_loads_elsewhere(family, saved_model, tmp_path, capsys):
    measured = measure(saved_model(family), tmp_path)
    assert measured.depth == (0 if family in WHOLE else LAYERS // 2)
    assert (
        f"{family}'s layers cannot be run separately, as the model has not one list of its 4 layers (some share their "
        "weights, or a decoder has its own); continuing as with lora.top_layers: all" in capsys.readouterr().err
    ) == (family in WHOLE)
    assert measured.stored < min(1e-5, measured.spread / 1000)
    assert measured.batch < min(1e-5, measured.spread / 1000)
    assert measured.losses[1] < 0.5 * measured.losses[0]
    assert measured.reload < 1e-5
    assert measured.has_label_word_head == (family in LANGUAGE_MODELS)


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_the_features_that_the_head_reads_score_the_label_words(family, saved_model):
    base, words = saved_model(family), {"bad": " cold", "good": " warm"}
    labels = labels_of(list(words), pad_token_id=1)
    model = load_base(base, labels=labels, seed=1, head="label_words", words=words)
    texts = [text for text, _ in sentences(6)]
    tokens = AutoTokenizer.from_pretrained(base)(texts)["input_ids"]
    rows = unlabelled(tokens, pad_token_id=1)
    logits, (features,) = inference.logits_and_features(model, rows, after=(LAYERS,), batch_size=3, progress="test")
    expected = features @ inference.array(label_word_rows(model, base, words)).T
    assert expected.std() > 1e-3
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_table_in_the_docs_has_every_family():
    table = (ROOT / "docs/families.md").read_text()
    assert "python -m tests.families > docs/families.md" in table
    lines = re.findall(r"^\| (.+?) \| `", table, re.MULTILINE)
    assert lines == list(MODELS)


def test_the_tables_in_the_docs_have_every_other_family_and_the_reason_for_which_it_is_refused():
    assert others() in (ROOT / "docs/families.md").read_text()


def test_a_model_whose_states_have_another_shape_is_refused():
    config = XLNetConfig(vocab_size=50, d_model=32, n_layer=LAYERS, n_head=4, d_inner=48)
    with pytest.raises(PipelineError, match=r"found xlnet, "):
        prefix.check_split(XLNetModel(config), LAYERS // 2)


def test_a_model_that_reads_a_lower_layer_from_above_is_refused(saved_model):
    model = AutoModel.from_pretrained(saved_model("llama"))
    prefix.check_split(model, LAYERS // 2)

    def record(block, args):
        block.states = args[0]

    def add(block, args):
        return args[0] + getattr(block.lower[0], "states", 0), *args[1:]

    model.layers[3].lower = [model.layers[0]]
    model.layers[0].register_forward_pre_hook(record)
    model.layers[3].register_forward_pre_hook(add)
    expected = (
        r"lora.top_layers: expected a model whose lowest 2 layers can be run separately, found llama, whose output"
    )
    with pytest.raises(PipelineError, match=expected + r" differs by \S+ if they are; set lora.top_layers: all, which"):
        prefix.check_split(model, LAYERS // 2)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (PegasusConfig(), "found pegasus, for which transformers has no sequence classification head"),
        (T5GemmaConfig(), r"found t5gemma, a model with several parts \(encoder, decoder\)"),
        (BigBirdConfig(), "found big_bird, whose answer for a text depends on the padding beside it"),
        (XLNetConfig(), "found xlnet, whose answer for a text depends on the padding beside it"),
        (PerceiverConfig(), "found perceiver, whose layers are not a stack of blocks"),
        (ViTConfig(), "found vit, for which transformers has no sequence classification head"),
        (MambaConfig(), "found mamba, for which transformers has no sequence classification head"),
        (Gemma3Config(), r"found gemma3, a model with several parts \(text_config, vision_config\)"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_model_that_cannot_classify_texts_is_refused(config, found, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=rf"expected an encoder or a decoder of text, .* {found}; choose another"):
        load_config(tmp_path)


def test_a_model_that_transformers_does_not_know_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(
        PipelineError, match=r"expected a model that transformers 5\S+ knows, found: .*unheard-of.*"
    ) as error:
        load_config(tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_that_brings_its_own_code_is_refused(tmp_path):
    auto = '{"model_type": "unheard-of", "auto_map": {"AutoConfig": "configuration.Config"}}'
    (tmp_path / "config.json").write_text(auto)
    with pytest.raises(PipelineError, match="contains custom code"):
        load_config(tmp_path)


def test_a_head_for_another_number_of_classes_is_refused(saved_model, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(saved_model("llama"), num_labels=5).save_pretrained(tmp_path)
    labels = labels_of(["bad", "good"], pad_token_id=0)
    with pytest.raises(PipelineError, match="the data's 2 classes bad, good, found one for 5: LABEL_0, LABEL_1"):
        load_base(tmp_path, labels=labels, seed=1)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (LlamaConfig(max_position_embeddings=128), 128),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (BloomConfig(), float("inf")),
        (XLNetConfig(), float("inf")),
        (LlamaConfig(max_position_embeddings=512, vocab_size=512, pad_token_id=511), 512),
        (BartConfig(max_position_embeddings=512, vocab_size=512, pad_token_id=1), 512),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_longest_row_is_what_the_models_positions_allow(config, longest):
    config.num_hidden_layers = 1
    assert max_tokens(config) == longest


def test_a_row_too_long_for_the_model_is_refused_before_it_is_encoded(saved_model):
    with pytest.raises(PipelineError, match=r"encode.max_length: expected at most the 128 tokens .*, found 129"):
        template.load_tokenizer(saved_model("xlm-roberta"), template="{text}", max_length=129)


def test_a_pad_token_that_the_model_has_no_embedding_for_gives_way_to_the_end_token(saved_model, tmp_path):
    load_config(saved_model("llama")).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(saved_model("llama"))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path)
    assert template.load_tokenizer(tmp_path, template="{text}", max_length=64).pad_token == "<|endoftext|>"


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(saved_model, tmp_path):
    load_config(saved_model("llama")).save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=r"expected a tokenizer that transformers can read, found: ") as error:
        template.load_tokenizer(tmp_path, template="{text}", max_length=64)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", SPLIT)
def test_the_lowest_layers_alone_compute_what_they_do_in_the_whole_model(family, saved_model, tmp_path):
    base, labels = saved_model(family), labels_of(["bad", "good"], pad_token_id=0)
    rows = {"input_ids": torch.arange(5, 25).view(2, 10), "attention_mask": torch.ones(2, 10).long()}

    def states(folder, **changes):
        """What the block below the top one hands on, and how many blocks there are."""
        model = AutoModelForSequenceClassification.from_pretrained(folder, **changes).eval()
        model.save_pretrained(tmp_path)
        seen, blocks = [], prefix.blocks(model)
        blocks[LAYERS - 2].register_forward_hook(lambda block, args, output: seen.append(output))
        with torch.inference_mode():
            model(**rows)
        return seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0], len(blocks)

    whole, _ = states(base, **labels)
    lowest_alone, count = states(base, **labels | keep_lowest_layers(base, LAYERS - 1))
    assert count == LAYERS - 1
    torch.testing.assert_close(lowest_alone, whole, rtol=0, atol=0)
    again, _ = states(tmp_path)
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


@pytest.mark.parametrize("family", SPLIT)
def test_states_between_layers_are_the_same_in_a_spliced_model_and_in_one_of_fewer_layers(family, saved_model):
    base = saved_model(family)
    pad_token_id = load_config(base).pad_token_id or 0
    labels = labels_of(["bad", "good"], pad_token_id)
    draw = np.random.default_rng(0)
    rows = unlabelled([draw.integers(5, 40, length) for length in (7, 4, 9)], pad_token_id)
    lower = AutoModel.from_pretrained(base).eval()
    prefix.capture(lower, 1)
    with torch.inference_mode():
        stored = [lower(**inference.inputs(rows, [row]))[0].numpy() for row in range(len(rows))]
    spliced, kept = (
        load_base(base, labels=labels | keep_lowest_layers(base, layers), seed=1) for layers in (LAYERS, 3)
    )
    prefix.splice(spliced, 1)
    options = {"batch_size": 3, "progress": "test"}
    states = States.of([np.concatenate(stored)], lengths=rows.lengths, order=np.arange(len(rows)))
    _, (between, final) = inference.logits_and_features(
        spliced, replace(rows, states=states), after=(LAYERS - 2, LAYERS), **options
    )
    _, (expected,) = inference.logits_and_features(kept, rows, after=(LAYERS - 2,), **options)
    assert between.std() > 1e-3
    np.testing.assert_allclose(between, expected, rtol=0, atol=1e-5)
    assert final.shape != between.shape or not np.allclose(final, between, atol=1e-3)


def test_more_layers_than_the_model_has_are_refused(saved_model):
    assert keep_lowest_layers(saved_model("gpt2"), None) == {}
    message = rf"model.layers: expected at most the model's {LAYERS} layers, or null for all of them, found 22"
    with pytest.raises(PipelineError, match=message):
        keep_lowest_layers(saved_model("gpt2"), 22)
