"""encode: every text as tokens, and what the frozen layers make of them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/common/store.py), and `about.json`, written last; and metrics/encode.json: tokens and rows whose text
was cut, by split.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Features
from tqdm import tqdm
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from stages.common import errors, output, parallel, paths, prefix, store, template
from stages.common.base import load_config
from stages.common.device import device
from stages.common.params import Encode, Params

CHUNK = 10_000
"""Rows tokenized at once; bounds the memory."""


def main() -> None:
    params = Params.load()
    prepared = {name: pq.ParquetFile(paths.PREPARED / f"{name}.parquet") for name in paths.SPLITS}
    tokenizer = template.load_tokenizer(
        paths.BASE_MODEL, template=params.encode.template, max_length=params.encode.max_length
    )
    config = load_config(paths.BASE_MODEL)
    about = store.About(
        class_names=Features.from_arrow_schema(prepared["train"].schema_arrow)["label"].names,
        depth=prefix.depth(config.num_hidden_layers, params.lora.top_layers),
        hidden_size=config.hidden_size,
        dtype=params.encode.dtype,
        pad_token_id=tokenizer.pad_token_id,
    )
    metrics = {name: Counter(tokens=0, truncated_rows=0) for name in paths.SPLITS}
    with output.replacing(paths.ENCODED) as folder:
        for name, split in prepared.items():
            store.save_tokens(folder / name, tokenized(tokenizer, split, metrics[name]))
        if about.depth:
            encode_states(folder, about, params.encode)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    output.write_json(paths.ENCODE_METRICS, metrics)


def tokenized(
    tokenizer: PreTrainedTokenizerBase, split: pq.ParquetFile, counts: Counter
) -> Iterator[tuple[list[list[int]], list[int]]]:
    """A split's tokens and labels, a chunk of rows at a time; counts the tokens, and the rows whose text was cut."""
    for chunk in split.iter_batches(CHUNK, columns=["text", "label"]):
        encoded = tokenizer(chunk["text"].to_pylist(), truncation=True, return_overflowing_tokens=True)
        _, first, pieces = np.unique(encoded["overflow_to_sample_mapping"], return_index=True, return_counts=True)
        tokens = [encoded["input_ids"][place] for place in first]
        counts["tokens"] += sum(map(len, tokens))
        counts["truncated_rows"] += int((pieces > 1).sum())
        yield tokens, chunk["label"].to_pylist()


def encode_states(folder: Path, about: store.About, options: Encode) -> None:
    """Run the frozen blocks over every split in `folder` and store their output beside its tokens.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`.
    """
    splits = {name: store.load_rows(folder / name, about) for name in paths.SPLITS}
    tokens = sum(len(rows.tokens) for rows in splits.values())
    gigabytes = store.size(tokens, about) / 1e9
    if gigabytes > options.max_gb:
        raise errors.PipelineError(
            f"encode: expected the stored states to fit encode.max_gb = {options.max_gb}, "
            f"they need {gigabytes:.2f} GB; raise it, halve them with encode.dtype: bfloat16, "
            "or store nothing with lora.top_layers: all"
        )
    model = AutoModel.from_pretrained(paths.BASE_MODEL, dtype=torch.float32)
    prefix.capture(model, about.depth)
    places = 0
    with tqdm(total=tokens, desc="encode", unit="token") as bar:
        for name, rows in splits.items():
            states = store.create_states(folder / name, tokens=len(rows.tokens), about=about)
            batches = list(rows.by_length(options.batch_size))
            encode_rows = partial(encode_batch, rows=rows, states=states)
            for numbers, computed in zip(batches, parallel.each_batch(model, encode_rows, batches), strict=True):
                places += computed
                bar.update(int(rows.lengths[numbers].sum()))
            states.flush()
    print(f"encode: {tokens:,} tokens; {1 - tokens / places:.1%} padding")


def encode_batch(model: PreTrainedModel, numbers: np.ndarray, *, rows: store.Rows, states: np.memmap) -> int:
    """Compute the states of the named rows and put them in their places; returns how many tokens, padding counted."""
    batch = rows.batch(numbers)
    hidden = model(**{name: batch[name].to(device()) for name in ("input_ids", "attention_mask")})
    store.write_states(states, rows, numbers, hidden)
    return batch["input_ids"].numel()


if __name__ == "__main__":
    errors.run(main)
