"""Encoding: tokens chunk by chunk, cut rows counted."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import sentences

from stages import encode
from stages.common.texts import clean
from stages.encoding import template

HARD = {
    "emoji": "👩‍👩‍👧 😀",
    "right to left": "סרט נפלא",
    "long word": "z" * 10_000,
    "zero width": "zero\u200bwidth",
    "half a surrogate pair": clean("a \ud83d b"),
    "control": "a \x01 b",
}


def test_tokens_come_in_chunks_and_cut_rows_are_counted(saved_model, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "CHUNK", 3)
    texts = [text for text, _ in sentences(6)] + ["A long film. " * 30]
    pq.write_table(pa.table({"text": texts, "label": [0, 1] * 3 + [0]}), tmp_path / "rows.parquet")
    tokenizer = template.load_tokenizer(saved_model("llama"), template="Review: {text}\nSentiment:", max_length=64)
    counts = Counter()
    chunks = list(encode.tokenized(tokenizer, pq.ParquetFile(tmp_path / "rows.parquet"), counts))
    assert [labels for _, labels in chunks] == [[0, 1, 0], [1, 0, 1], [0]]
    tokens = [row for texts, _ in chunks for (row,) in texts]
    assert tokens == [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert counts["truncated_rows"] == sum(length > 64 for length in lengths) > 0
    assert counts["tokens"] == sum(map(len, tokens))
    assert counts["truncated_tokens"] == sum(lengths) - counts["tokens"]


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_hard_texts_are_encoded(saved_model, tmp_path, family, text):
    pq.write_table(pa.table({"text": [text], "label": [0]}), tmp_path / "rows.parquet")
    tokenizer = template.load_tokenizer(saved_model(family), template="Review: {text}\nSentiment:", max_length=64)
    ((tokens, _),) = encode.tokenized(tokenizer, pq.ParquetFile(tmp_path / "rows.parquet"), Counter())
    assert tokens == [[tokenizer(text, truncation=True)["input_ids"]]]
    assert len(tokens[0][0]) <= 64


@pytest.mark.parametrize(("cut", "warns"), [(5, False), (6, True)])
def test_a_line_says_where_more_than_a_twentieth_of_the_tokens_is_cut(cut, warns):
    warning = encode.cut_warning(Counter(tokens=100 - cut, truncated_rows=3, truncated_tokens=cut), 64)
    assert warning.startswith("warning: 6.0% of the tokens were cut off, from 3 rows: raise encode.max_length") == warns
