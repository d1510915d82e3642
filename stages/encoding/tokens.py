"""A prepared split as token ids: of whole texts first, whose lengths decide how much is read; then as it is read."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from datasets.features.features import FeatureType
from transformers import PreTrainedTokenizerBase

from stages.backbone.store import Chunk
from stages.common import files, texts
from stages.encoding import template
from stages.problems.problem import Problem

MAX_SHARE_UNKNOWN = 0.05
"""Share of unknown tokens above which a warning is printed."""

CHUNK = 1_000
"""Texts tokenized at once; bounds the memory."""


def tokenize(split: Path, tokenizer: PreTrainedTokenizerBase, *, scratch: Path) -> Dataset:
    """A prepared split with the column `tokens`: the ids of each whole text, or pair, within the template; and with
    their `token_types`, where the tokenizer gives any.

    Args:
        split: a Parquet file that `prepare` wrote.
        tokenizer: see `template.load_tokenizer`.
        scratch: a folder for the temporary tables of `datasets`.
    """

    def tokens_of(batch: Mapping[str, list]) -> dict[str, list[list[int]]]:
        inputs = texts.as_inputs(pd.DataFrame({name: batch[name] for name in texts.COLUMNS if name in batch}))
        return template.stored(tokenizer, tokenizer(inputs, verbose=False))

    with files.reading(split):
        path = glob.escape(str(split.absolute()))  # `datasets` takes it for a pattern
        rows = Dataset.from_parquet(path, cache_dir=str(scratch))
    columns = {name: List(Value("int32")) for name in template.stored_names(tokenizer)}
    return rows.map(
        tokens_of,
        batched=True,
        batch_size=CHUNK,
        features=Features(rows.features | columns),
        new_fingerprint=f"{split.stem}-tokens",  # the default pickles the tokenizer, in vain: no cache is kept
    )


def has_pairs(split: Path) -> bool:
    """Whether the rows of a prepared split have two texts."""
    return "text_pair" in files.load(split, pq.read_schema).names


def label(split: Path) -> FeatureType:
    """The feature that describes the labels of a prepared split."""
    return Features.from_arrow_schema(files.load(split, pq.read_schema))["label"]


def lengths(tokenized: Dataset) -> np.ndarray:
    """The tokens of each whole text, (texts,)."""
    return pc.list_value_length(tokenized.with_format("arrow")[:]["tokens"]).to_numpy()


def unknown_warning(split: Dataset, tokenizer: PreTrainedTokenizerBase) -> str:
    """A warning if the tokenizer has no tokens for more than `MAX_SHARE_UNKNOWN` of the training texts' tokens, so that
    the model cannot tell what they are; else empty."""
    unknown = tokenizer.unk_token_id
    if unknown in (None, tokenizer.eos_token_id, tokenizer.bos_token_id):  # GPT-2's ends a text, and is never unknown
        return ""
    share = (pc.list_flatten(split.with_format("arrow")[:]["tokens"]).to_numpy() == unknown).mean()
    if share <= MAX_SHARE_UNKNOWN:
        return ""
    return (
        f"warning: {share:.1%} of the training texts' tokens are {tokenizer.unk_token}, as the tokenizer has no others "
        "for their characters; choose a model.source for this language or script"
    )


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
        by_text = {
            name: pa.array(values, pa.list_(pa.list_(pa.int32())))
            for name, values in rows_of_texts(table, tokenizer, stride).items()
        }
        yield Chunk(
            **{name: values.flatten().flatten().to_numpy() for name, values in by_text.items()},
            lengths=pc.list_value_length(by_text["tokens"].flatten()).to_numpy(),
            counts=pc.list_value_length(by_text["tokens"]).to_numpy(),
            labels=problem.array(table["label"].to_pylist(), class_names),
            source_rows=table["row"].to_numpy(),
        )


def rows_of_texts(
    table: pa.Table, tokenizer: PreTrainedTokenizerBase, stride: int | None
) -> dict[str, list[list[list[int]]]]:
    """For each text its rows, as `template.token_rows` returns them; only long texts are tokenized again."""
    rows = {
        name: [[whole] for whole in table[name].to_pylist()] for name in template.INPUTS if name in table.column_names
    }
    if long := [text for text, (whole,) in enumerate(rows["tokens"]) if len(whole) > tokenizer.model_max_length]:
        inputs = texts.as_inputs(table.drop_columns(["label", *rows]).take(long).to_pandas())
        for name, kept in template.token_rows(tokenizer, inputs, stride).items():
            for text, row in zip(long, kept, strict=True):
                rows[name][text] = row
    return rows
