"""encode: every text as tokens, and what the frozen layers make of them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/backbone/store.py), and `about.json`, written last; and metrics/encode.json by split: tokens, rows
whose text was cut to `encode.max_length`, and the tokens that were cut off.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Features
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from stages.backbone import parallel, precision, prefix, store
from stages.backbone.base import load_config, lowest
from stages.backbone.device import device
from stages.common import errors, files, paths, texts
from stages.encoding import template
from stages.params import Params
from stages.rows import labels

CHUNK = 1_000
"""Rows tokenized at once; bounds the memory."""

MUCH_CUT = 0.05
"""Share of the tokens that may be cut off before a line says so."""


def main() -> None:
    params = Params.load()
    prepared = {name: pq.ParquetFile(paths.PREPARED / f"{name}.parquet") for name in paths.SPLITS}
    tokenizer = template.load_tokenizer(
        paths.BASE_MODEL,
        pairs="text_pair" in prepared["train"].schema_arrow.names,
        template=params.encode.template,
        max_length=params.encode.max_length,
        truncation=params.encode.truncation,
    )
    model, depth = load_lower(paths.BASE_MODEL, params.lora.top_layers, params.precision, params.model.layers)
    about = described(params, prepared["train"], depth, tokenizer.pad_token_id)
    metrics = {name: Counter(tokens=0, truncated_rows=0, truncated_tokens=0) for name in paths.SPLITS}
    with files.replacing(paths.ENCODED) as folder:
        for name, split in prepared.items():
            chunks = tokenized(tokenizer, split, metrics[name], params.encode.window_stride)
            store.save_tokens(folder / name, arrays(chunks, about))
        if warning := cut_warning(sum(metrics.values(), Counter()), params.encode.max_length):
            print(warning)
        if model:
            encode_states(model, folder, about, params)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    files.write_json(paths.ENCODE_METRICS, metrics)


def described(params: Params, split: pq.ParquetFile, depth: int, pad_token_id: int) -> store.About:
    """What `about.json` says of all splits."""
    return store.About(
        **labels.described(Features.from_arrow_schema(split.schema_arrow)["label"]),
        depth=depth,
        hidden_size=load_config(paths.BASE_MODEL).hidden_size,
        dtype=params.encode.dtype,
        pad_token_id=pad_token_id,
        layers=params.model.layers,
    )


def tokenized(
    tokenizer: PreTrainedTokenizerBase, split: pq.ParquetFile, counts: Counter, stride: int | None = None
) -> Iterator[tuple[list[list[list[int]]], list]]:
    """The tokens of each text's rows and its label, a chunk of texts at a time; counts the tokens, and what was cut.

    Args:
        stride: see `template.fitted`.
    """
    for chunk in split.iter_batches(CHUNK):
        inputs = texts.as_inputs(chunk.to_pandas())
        whole = tokenizer(inputs, verbose=False)["input_ids"]
        rows = [[tokens] for tokens in whole]
        if long := [text for text, tokens in enumerate(whole) if len(tokens) > tokenizer.model_max_length]:
            for text, fitted in zip(
                long, template.fitted(tokenizer, [inputs[text] for text in long], stride), strict=True
            ):
                rows[text] = fitted
        counts["tokens"] += sum(len(tokens) for fitted in rows for tokens in fitted)
        if stride is None:
            counts["truncated_rows"] += len(long)
            counts["truncated_tokens"] += sum(len(whole[text]) - len(rows[text][0]) for text in long)
        yield rows, chunk["label"].to_pylist()


def arrays(
    chunks: Iterable[tuple[list[list[list[int]]], list]], about: store.About
) -> Iterator[tuple[list[list[list[int]]], np.ndarray]]:
    """The same, with the labels as they are trained on."""
    for tokens, stored in chunks:
        yield tokens, labels.KINDS[about.problem].array(stored, about.class_names)


def cut_warning(counts: Counter, max_length: int) -> str:
    """What to do where much of the texts was cut off; else nothing."""
    share = counts["truncated_tokens"] / (counts["tokens"] + counts["truncated_tokens"])
    if share <= MUCH_CUT:
        return ""
    return (
        f"warning: {share:.1%} of the tokens were cut off, from {counts['truncated_rows']:,} rows: raise "
        f"encode.max_length, now {max_length}, or set encode.truncation: windows, which cuts nothing off"
    )


def load_lower(
    base: Path, top_layers: int | str, products: str = "float32", layers: int | None = None
) -> tuple[PreTrainedModel | None, int]:
    """The base model's blocks below its `top_layers`, and how many they are; None and 0: there is nothing to store.

    Args:
        products: the precision of the matrix products.
        layers: see `stages.backbone.base.lowest`.
    """
    precision.check(products)
    config = load_config(base, **lowest(base, layers))
    depth = prefix.depth(config.num_hidden_layers, top_layers)
    if not depth:
        print("encode: no layer is left below the adapters, nothing but tokens is stored")
        return None, 0
    model = AutoModel.from_pretrained(base, config=config, dtype=torch.float32)
    if not prefix.splits(model, depth):
        print(f"encode: {config.model_type}'s layers cannot be run apart; goes on as with lora.top_layers: all")
        return None, 0
    prefix.capture(model, depth)
    precision.lower(model, products)
    return model, depth


def encode_states(model: PreTrainedModel, folder: Path, about: store.About, params: Params) -> None:
    """Run the frozen blocks, `model`, over every split in `folder` and store their output beside its tokens.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`.
    """
    splits = {name: store.load_rows(folder / name, about, params.precision) for name in paths.SPLITS}
    tokens = sum(len(rows.tokens) for rows in splits.values())
    gigabytes = store.size(tokens, about) / 1e9
    if gigabytes > params.encode.max_gb:
        raise errors.PipelineError(
            f"encode: expected the stored states to fit encode.max_gb = {params.encode.max_gb}, "
            f"they need {gigabytes:.2f} GB; raise it, halve them with encode.dtype: bfloat16, "
            "or store nothing with lora.top_layers: all"
        )
    places = 0
    for name, rows in splits.items():
        states = store.create_states(folder / name, tokens=len(rows.tokens), about=about)
        encode_rows = partial(encode_batch, rows=rows, states=states)
        batches = rows.by_length(params.encode.batch_size)
        done = parallel.each_batch(
            model, encode_rows, batches, progress=f"encode, {name} rows", precision=params.precision
        )
        places += sum(done)
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
