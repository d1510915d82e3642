"""A prepared split as token ids, and how many tokens were cut off."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
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


def tokenize(split: Path, tokenizer: PreTrainedTokenizerBase, *, stride: int | None, scratch: Path) -> Dataset:
    """A prepared split with the tokens of each text's rows instead of its texts.

    Args:
        split: a Parquet file that `prepare` wrote.
        tokenizer: see `template.load_tokenizer`.
        stride: see `template.token_rows`.
        scratch: a folder for the temporary tables of `datasets`.

    Returns:
        The columns `row`, `label`, `tokens` (for each text a list of rows, each a list of ids) and `cut` (how many
        tokens of the text were cut off).
    """
    rows = Dataset.from_parquet(str(split), cache_dir=str(scratch))
    columns = {name: rows.features[name] for name in ("row", "label")}
    columns |= {"tokens": List(List(Value("int32"))), "cut": Value("int64")}
    return rows.map(
        partial(tokens_of, tokenizer=tokenizer, stride=stride),
        batched=True,
        batch_size=CHUNK,
        remove_columns=[name for name in texts.COLUMNS if name in rows.column_names],
        features=Features(columns),
        new_fingerprint=f"{split.stem}-tokens",  # the default pickles the tokenizer, in vain: no cache is kept
    )


def has_pairs(split: Path) -> bool:
    """Whether the rows of a prepared split have two texts."""
    return "text_pair" in pq.read_schema(split).names


def tokens_of(
    batch: dict[str, list], *, tokenizer: PreTrainedTokenizerBase, stride: int | None = None
) -> dict[str, list]:
    """The columns `tokens` and `cut` of a batch of texts."""
    inputs = texts.as_inputs(pd.DataFrame({name: batch[name] for name in texts.COLUMNS if name in batch}))
    whole = tokenizer(inputs, verbose=False)["input_ids"]
    rows, cut = [[tokens] for tokens in whole], [0] * len(whole)
    if long := [text for text, tokens in enumerate(whole) if len(tokens) > tokenizer.model_max_length]:
        cut_rows = template.token_rows(tokenizer, [inputs[text] for text in long], stride)
        for text, kept in zip(long, cut_rows, strict=True):
            rows[text] = kept
            cut[text] = len(whole[text]) - len(kept[0]) if stride is None else 0
    return {"tokens": rows, "cut": cut}


def truncation(tokenized: Dataset) -> dict[str, int]:
    """The number of texts whose end or beginning was cut off, and the number of tokens cut off."""
    cut = np.asarray(tokenized["cut"], dtype=np.int64)
    return {"truncated_rows": int((cut > 0).sum()), "truncated_tokens": int(cut.sum())}


def chunks(tokenized: Dataset, problem: Problem, class_names: list[str]) -> Iterator[Chunk]:
    """The tokenized rows as `stages.backbone.store` holds them, with labels in the form used in training."""
    for table in tokenized.with_format("arrow").iter(CHUNK):
        by_text = table["tokens"].combine_chunks()
        rows = by_text.flatten()
        yield Chunk(
            tokens=rows.flatten().to_numpy(),
            lengths=pc.list_value_length(rows).to_numpy(),
            counts=pc.list_value_length(by_text).to_numpy(),
            labels=problem.array(table["label"].to_pylist(), class_names),
            source_rows=table["row"].to_numpy(),
        )
