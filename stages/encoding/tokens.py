"""A prepared split as token ids: of whole texts first, whose lengths decide how much is read; then as it is read."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from stages.backbone.store import Chunk
from stages.common import texts
from stages.encoding import template
from stages.problems.problem import Problem

CHUNK = 1_000
"""Texts tokenized at once; bounds the memory."""


def tokenize(split: Path, tokenizer: PreTrainedTokenizerBase, *, scratch: Path) -> Dataset:
    """A prepared split with the column `tokens`: the ids of each whole text, or pair, within the template.

    Args:
        split: a Parquet file that `prepare` wrote.
        tokenizer: see `template.load_tokenizer`.
        scratch: a folder for the temporary tables of `datasets`.
    """

    def tokens_of(batch: Mapping[str, list]) -> dict[str, list[list[int]]]:
        inputs = texts.as_inputs(pd.DataFrame({name: batch[name] for name in texts.COLUMNS if name in batch}))
        return {"tokens": template.with_a_token(tokenizer, tokenizer(inputs, verbose=False)["input_ids"])}

    rows = Dataset.from_parquet(str(split), cache_dir=str(scratch))
    return rows.map(
        tokens_of,
        batched=True,
        batch_size=CHUNK,
        features=Features(rows.features | {"tokens": List(Value("int32"))}),
        new_fingerprint=f"{split.stem}-tokens",  # the default pickles the tokenizer, in vain: no cache is kept
    )


def has_pairs(split: Path) -> bool:
    """Whether the rows of a prepared split have two texts."""
    return "text_pair" in pq.read_schema(split).names


def lengths(tokenized: Dataset) -> np.ndarray:
    """The tokens of each whole text, (texts,)."""
    return pc.list_value_length(tokenized.with_format("arrow")[:]["tokens"]).to_numpy()


def chunks(
    tokenized: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stride: int | None,
    problem: Problem,
    class_names: list[str],
) -> Iterator[Chunk]:
    """The tokenized rows as `stages.backbone.store` holds them, with labels in the form used in training.

    Args:
        tokenized: see `tokenize`.
        tokenizer: its `model_max_length` is the most tokens of a row.
        stride: see `template.token_rows`.
    """
    for table in tokenized.with_format("arrow").iter(CHUNK):
        by_text = pa.array(rows_of_texts(table, tokenizer, stride), pa.list_(pa.list_(pa.int32())))
        rows = by_text.flatten()
        yield Chunk(
            tokens=rows.flatten().to_numpy(),
            lengths=pc.list_value_length(rows).to_numpy(),
            counts=pc.list_value_length(by_text).to_numpy(),
            labels=problem.array(table["label"].to_pylist(), class_names),
            source_rows=table["row"].to_numpy(),
        )


def rows_of_texts(table: pa.Table, tokenizer: PreTrainedTokenizerBase, stride: int | None) -> list[list[list[int]]]:
    """For each text its rows: the whole text, or what `template.token_rows` makes of a long one."""
    rows = [[whole] for whole in table["tokens"].to_pylist()]
    if long := [text for text, (whole,) in enumerate(rows) if len(whole) > tokenizer.model_max_length]:
        inputs = texts.as_inputs(table.drop_columns(["label", "tokens"]).take(long).to_pandas())
        for text, kept in zip(long, template.token_rows(tokenizer, inputs, stride), strict=True):
            rows[text] = kept
    return rows
