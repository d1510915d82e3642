"""A prepared split as tokens: chunk by chunk, long ones cut or in windows, each text with its row's number."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import sentences
from datasets import ClassLabel, Dataset

from stages.backbone import store
from stages.common.texts import clean
from stages.encoding import template, tokens
from stages.problems.kinds import PROBLEMS

CLASSES = ["bad", "good"]
SINGLE_LABEL = {"problem": PROBLEMS["single_label"], "class_names": CLASSES}
FORM = "Review: {text}\nSentiment:"
HARD = {
    "emoji": "👩‍👩‍👧 😀",
    "right to left": "סרט נפלא",
    "long word": "z" * 10_000,
    "zero width": "zero\u200bwidth",
    "half a surrogate pair": clean("a \ud83d b"),
    "control": "a \x01 b",
}


@pytest.fixture
def split(tmp_path):
    """A prepared split of these columns, tokenized; the rows have the numbers 10, 11 and so on."""

    def tokenized(tokenizer, columns):
        rows = Dataset.from_dict({"row": list(range(10, 10 + len(columns["label"])))} | columns)
        rows.cast_column("label", ClassLabel(names=CLASSES)).to_parquet(tmp_path / "train.parquet")
        return tokens.tokenize(tmp_path / "train.parquet", tokenizer, scratch=tmp_path / "scratch")

    return tokenized


def test_tokens_come_in_chunks_and_only_long_texts_are_cut(saved_model, split, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 3)
    texts = [text for text, _ in sentences(6)] + ["A long film. " * 30]
    tokenizer = template.load_tokenizer(saved_model("llama"), template=FORM, max_length=64)
    tokenized = split(tokenizer, {"text": texts, "label": [0, 1] * 3 + [0]})
    assert set(tokenized.column_names) == {"row", "label", "text", "tokens"}
    chunks = list(tokens.chunks(tokenized, tokenizer, stride=None, **SINGLE_LABEL))
    assert [chunk.labels.tolist() for chunk in chunks] == [[0, 1, 0], [1, 0, 1], [0]]
    assert [chunk.source_rows.tolist() for chunk in chunks] == [[10, 11, 12], [13, 14, 15], [16]]
    assert [chunk.counts.tolist() for chunk in chunks] == [[1, 1, 1], [1, 1, 1], [1]]
    found = [row.tolist() for chunk in chunks for row in np.split(chunk.tokens, np.cumsum(chunk.lengths)[:-1])]
    assert found == [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert tokens.lengths(tokenized).tolist() == lengths
    assert sum(map(len, found)) == sum(min(length, 64) for length in lengths) < sum(lengths)


def test_rows_on_disk_are_those_that_were_tokenized(saved_model, split, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 3)
    texts = [text for text, _ in sentences(7)]
    tokenizer = template.load_tokenizer(saved_model("llama"), template=FORM, max_length=64)
    tokenized = split(tokenizer, {"text": texts, "label": [0, 1] * 3 + [0]})
    count = store.save_tokens(tmp_path / "saved", tokens.chunks(tokenized, tokenizer, stride=None, **SINGLE_LABEL))
    offsets, saved = np.load(tmp_path / "saved/offsets.npy"), np.fromfile(tmp_path / "saved/tokens.bin", np.int32)
    assert [saved[one:other].tolist() for one, other in itertools.pairwise(offsets)] == [
        tokenizer(text)["input_ids"] for text in texts
    ]
    assert count == len(saved)
    assert np.load(tmp_path / "saved/rows.npy").tolist() == list(range(10, 17))
    assert np.load(tmp_path / "saved/labels.npy").tolist() == [0, 1] * 3 + [0]


def test_a_folder_may_have_a_name_that_would_be_a_pattern(saved_model, tmp_path, monkeypatch):
    folder = tmp_path / "copy [1] of a*"
    folder.mkdir()
    monkeypatch.chdir(folder)  # datasets puts it before a relative path
    Dataset.from_dict({"text": ["A good film."], "label": [1]}).to_parquet("train.parquet")
    tokenizer = template.load_tokenizer(saved_model("llama"), template=FORM, max_length=64)
    (row,) = tokens.tokenize(Path("train.parquet"), tokenizer, scratch=folder / "scratch")
    assert row["tokens"] == tokenizer("A good film.")["input_ids"]


def test_a_long_text_becomes_several_rows_where_there_are_windows(saved_model, split):
    texts = ["A short film.", "A long film. " * 30, "Another short film."]
    tokenizer = template.load_tokenizer(saved_model("llama"), template=FORM, max_length=64, truncation="windows")
    tokenized = split(tokenizer, {"text": texts, "label": [0, 1, 0]})
    (chunk,) = tokens.chunks(tokenized, tokenizer, stride=8, **SINGLE_LABEL)
    assert chunk.counts[[0, 2]].tolist() == [1, 1]
    assert chunk.counts[1] > 2
    assert len(chunk.lengths) == chunk.counts.sum()
    assert chunk.lengths.max() == 64
    assert chunk.labels.tolist() == [0, 1, 0]
    rows = [row.tolist() for row in np.split(chunk.tokens, np.cumsum(chunk.lengths)[:-1])]
    assert rows == [row for text in template.token_rows(tokenizer, texts, 8)["tokens"] for row in text]


def test_both_texts_of_a_pair_are_tokenized_together(saved_model, split, tmp_path):
    form = "Premise: {text}\nHypothesis: {text_pair}\nEntailment:"
    one, other = ["A good film.", "A bad one."], ["It is good.", "It is good."]
    tokenizer = template.load_tokenizer(saved_model("llama"), template=form, max_length=100, pairs=True)
    tokenized = split(tokenizer, {"text": one, "text_pair": other, "label": [1, 0]})
    assert tokens.has_pairs(tmp_path / "train.parquet")
    assert tokenized["tokens"] == tokenizer(list(zip(one, other, strict=True)))["input_ids"]
    split(tokenizer, {"text": one, "label": [1, 0]})
    assert not tokens.has_pairs(tmp_path / "train.parquet")


def test_several_labels_are_stored_as_they_are_trained_on(saved_model, tmp_path):
    tokenizer = template.load_tokenizer(saved_model("llama"), template="{text}", max_length=64)
    problem = PROBLEMS["multi_label"]
    rows = Dataset.from_dict({"row": [4, 2], "text": ["good", "bad"], "label": [[1], []]})
    rows.cast_column("label", problem.feature(CLASSES)).to_parquet(tmp_path / "train.parquet")
    tokenized = tokens.tokenize(tmp_path / "train.parquet", tokenizer, scratch=tmp_path / "scratch")
    (chunk,) = tokens.chunks(tokenized, tokenizer, stride=None, problem=problem, class_names=CLASSES)
    assert chunk.labels.tolist() == [[0, 1], [0, 0]]
    assert chunk.source_rows.tolist() == [4, 2]


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_text_without_tokens_is_a_row_of_one_token_at_least(family, stride, saved_model, split):
    tokenizer = template.load_tokenizer(saved_model(family), template="{text}", max_length=16)
    expected = tokenizer("")["input_ids"] or [tokenizer.pad_token_id]
    assert template.token_rows(tokenizer, ["", "good"], stride)["tokens"][0] == [expected]
    (chunk,) = tokens.chunks(
        split(tokenizer, {"text": ["", "good"], "label": [0, 1]}), tokenizer, stride=stride, **SINGLE_LABEL
    )
    assert chunk.tokens[: chunk.lengths[0]].tolist() == expected


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_hard_texts_are_encoded(saved_model, split, family, text):
    tokenizer = template.load_tokenizer(saved_model(family), template=FORM, max_length=64)
    tokenized = split(tokenizer, {"text": [text], "label": [0]})
    (chunk,) = tokens.chunks(tokenized, tokenizer, stride=None, **SINGLE_LABEL)
    assert chunk.tokens.tolist() == tokenizer(text, truncation=True)["input_ids"]
    assert len(chunk.tokens) <= 64
