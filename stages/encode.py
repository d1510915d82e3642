"""encode: the tokens of every text, and the frozen layers' output for them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/backbone/store.py), what the stored states were computed with (`prefix.json`), and `about.json`,
written last; and metrics/encode.json, for each split the number of tokens, of rows whose text was cut to
`encode.max_length`, and of tokens cut off. The states of rows that an earlier run encoded are reused.
"""

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from stages.backbone import base, parallel, precision, prefix, reuse, store
from stages.backbone.device import device
from stages.common import errors, files, paths
from stages.encoding import template, tokens
from stages.params import Params
from stages.problems.kinds import PROBLEMS

MAX_SHARE_CUT = 0.05
"""Share of tokens cut off above which a warning is printed."""


def main() -> None:
    params = Params.load()
    base.quiet_transformers()
    datasets.disable_progress_bars()
    model, depth = load_frozen_blocks(
        params.lora.top_layers, matmul_precision=params.precision, layers=params.model.layers
    )
    with files.replacing(paths.ENCODED) as folder, tempfile.TemporaryDirectory() as scratch:
        tokenizer, tokenized = tokenize(params, Path(scratch))
        about = about_splits(params, tokenized["train"], depth, tokenizer.pad_token_id)
        metrics = save_tokens(folder, tokenized, about)
        if warning := cut_warning(sum(map(Counter, metrics.values()), Counter()), params.encode.max_length):
            print(warning)
        if model:
            encode_states(model, folder, about, params)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    files.write_json(paths.ENCODE_METRICS, metrics)


def load_frozen_blocks(
    top_layers: int | str, *, matmul_precision: str = "float32", layers: int | None = None
) -> tuple[PreTrainedModel | None, int]:
    """The base model's blocks below its `top_layers`, and their number; None and 0: there are no states to store.

    Args:
        matmul_precision: the precision of the matrix products.
        layers: see `stages.backbone.base.keep_lowest_layers`.
    """
    precision.check(matmul_precision)
    config = base.load_config(paths.BASE_MODEL, **base.keep_lowest_layers(paths.BASE_MODEL, layers))
    depth = prefix.depth(config.num_hidden_layers, top_layers)
    if not depth:
        print("encode: all layers have adapters, so only tokens are stored")
        return None, 0
    model = AutoModel.from_pretrained(paths.BASE_MODEL, config=config, dtype=torch.float32)
    if not prefix.splits(model, depth):
        print(f"encode: {config.model_type}'s layers cannot be run separately; continuing as with lora.top_layers: all")
        return None, 0
    prefix.capture(model, depth)
    precision.convert_linear_weights(model, matmul_precision)
    return model, depth


def tokenize(params: Params, scratch: Path) -> tuple[PreTrainedTokenizerBase, dict[str, Dataset]]:
    """The tokenizer with its template, and each split, tokenized."""
    splits = {name: path for name in paths.ALL_SPLITS if (path := paths.PREPARED / f"{name}.parquet").exists()}
    tokenizer = template.load_tokenizer(
        paths.BASE_MODEL,
        pairs=tokens.has_pairs(splits["train"]),
        template=params.encode.template,
        max_length=params.encode.max_length,
        truncation=params.encode.truncation,
    )
    stride = params.encode.window_stride
    return tokenizer, {
        name: tokens.tokenize(split, tokenizer, stride=stride, scratch=scratch / name) for name, split in splits.items()
    }


def about_splits(params: Params, split: Dataset, depth: int, pad_token_id: int) -> store.About:
    """The contents of `about.json`: what all splits share."""
    problem = PROBLEMS[params.data.problem]
    return store.About(
        problem=problem.name,
        class_names=problem.output_names(split.features["label"]),
        depth=depth,
        hidden_size=base.load_config(paths.BASE_MODEL).hidden_size,
        dtype=params.encode.dtype,
        pad_token_id=pad_token_id,
        layers=params.model.layers,
    )


def save_tokens(folder: Path, tokenized: dict[str, Dataset], about: store.About) -> dict[str, dict[str, int]]:
    """Write each split's arrays, except for its states; returns the contents of metrics/encode.json."""
    problem = PROBLEMS[about.problem]
    return {
        name: {"tokens": store.save_tokens(folder / name, tokens.chunks(split, problem, about.class_names))}
        | tokens.truncation(split)
        for name, split in tokenized.items()
    }


def cut_warning(counts: Counter, max_length: int) -> str:
    """A warning, with the remedy, if more than `MAX_SHARE_CUT` of the tokens were cut off; else empty."""
    share = counts["truncated_tokens"] / (counts["tokens"] + counts["truncated_tokens"])
    if share <= MAX_SHARE_CUT:
        return ""
    return (
        f"warning: {share:.1%} of the tokens were cut off, from {counts['truncated_rows']:,} rows: raise "
        f"encode.max_length, now {max_length}, or set encode.truncation: windows, which cuts nothing off"
    )


def encode_states(model: PreTrainedModel, folder: Path, about: store.About, params: Params) -> None:
    """Run the frozen blocks, `model`, over every split in `folder` and store their output beside its tokens.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`.
    """
    options = {"precision": params.precision, "batch_size": params.encode.batch_size}
    names = [name for name in paths.ALL_SPLITS if (folder / name).exists()]
    splits = {name: store.load_rows(folder / name, about, params.precision) for name in names}
    check_size(sum(len(rows.tokens) for rows in splits.values()), about, params.encode.max_gb)
    made_by = reuse.fingerprint(paths.BASE_MODEL, about, **options)
    with reuse.earlier(paths.ENCODED, made_by) as earlier:
        known = reuse.KnownStates(earlier if reuse.row_by_row(model) else None, about, **options)
        same = reproduces(model, known, splits, params) and fill_states(model, folder, splits, known, about, params)
    if not same:
        print("encode: the stored states were computed on a different machine; computing all of them again")
        fill_states(model, folder, splits, reuse.KnownStates(None, about, **options), about, params)
    reuse.save(folder, made_by)


def fill_states(
    model: PreTrainedModel,
    folder: Path,
    splits: dict[str, store.Rows],
    known: reuse.KnownStates,
    about: store.About,
    params: Params,
) -> bool:
    """Write the states of all splits, computing those that are not known; returns whether the known states that were
    computed again came out the same."""
    same = True
    for name, rows in splits.items():
        states = store.create_states(folder / name, tokens=len(rows.tokens), about=about)
        batches = [known.fill(states, rows, batch) for batch in rows.by_length(params.encode.batch_size)]
        left = [batch for batch in batches if len(batch)]
        same &= all(
            parallel.each_batch(
                model,
                partial(encode_batch, rows=rows, states=states, known=known),
                left,
                progress=f"encode, {name} rows",
                precision=params.precision,
                as_one_of_many=True,
            )
        )
        states.flush()
        print(f"encode: {name}: {sum(map(len, left)):,} of {len(rows):,} rows computed")
    return same


def check_size(tokens: int, about: store.About, max_gb: float) -> None:
    """Check that the states of `tokens` tokens fit into `max_gb` gigabytes.

    Raises:
        PipelineError: they do not.
    """
    gigabytes = store.size(tokens, about) / 1e9
    if gigabytes > max_gb:
        raise errors.PipelineError(
            f"encode: expected the stored states to fit encode.max_gb = {max_gb}, "
            f"they need {gigabytes:.2f} GB; raise it, halve them with encode.dtype: bfloat16, "
            "or store nothing with lora.top_layers: all"
        )


def reproduces(model: PreTrainedModel, known: reuse.KnownStates, splits: dict[str, store.Rows], params: Params) -> bool:
    """Whether this machine reproduces the known states, bit for bit; checked on one batch."""
    probe = known.probe(list(splits.values()), params.encode.batch_size)
    if not probe:
        return True
    rows, batch = probe
    (hidden,) = parallel.each_batch(
        model,
        partial(run_batch, rows=rows),
        [batch],
        progress="",
        precision=params.precision,
        as_one_of_many=True,
    )
    return known.agrees(rows, batch, hidden)


def encode_batch(
    model: PreTrainedModel, indices: np.ndarray, *, rows: store.Rows, states: np.memmap, known: reuse.KnownStates
) -> bool:
    """Compute the states of the rows at `indices` and write them into `states`; returns whether those that were known
    came out the same."""
    hidden = run_batch(model, indices, rows=rows)
    store.write_states(states, rows, indices, hidden)
    return known.agrees(rows, indices, hidden)


def run_batch(model: PreTrainedModel, indices: np.ndarray, *, rows: store.Rows) -> torch.Tensor:
    """The frozen blocks' output for the rows at `indices`, (batch, tokens, hidden)."""
    batch = rows.batch(indices)
    return model(**{name: batch[name].to(device()) for name in ("input_ids", "attention_mask")})


if __name__ == "__main__":
    errors.run(main)
