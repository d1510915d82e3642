"""Encoding: tokens chunk by chunk, cut rows counted."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import sentences

from stages import encode
from stages.common import template


def test_tokens_come_in_chunks_and_cut_rows_are_counted(saved_model, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "CHUNK", 3)
    texts = [text for text, _ in sentences(6)] + ["A long film. " * 30]
    pq.write_table(pa.table({"text": texts, "label": [0, 1] * 3 + [0]}), tmp_path / "rows.parquet")
    tokenizer = template.load_tokenizer(saved_model("llama"), template="Review: {text}\nSentiment:", max_length=64)
    counts = Counter()
    chunks = list(encode.tokenized(tokenizer, pq.ParquetFile(tmp_path / "rows.parquet"), counts))
    assert [labels for _, labels in chunks] == [[0, 1, 0], [1, 0, 1], [0]]
    tokens = [row for rows, _ in chunks for row in rows]
    assert tokens == [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    assert counts["truncated_rows"] == sum(len(tokenizer(text)["input_ids"]) > 64 for text in texts) > 0
    assert counts["tokens"] == sum(map(len, tokens))
