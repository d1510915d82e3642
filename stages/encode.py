"""encode: the tokens of every text, and the frozen layers' output for them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/backbone/store.py), what the stored states were computed with (`prefix.json`), and `about.json`,
written last; and metrics/encode.json: the most tokens of a row (`max_length`), for each split the number of tokens, of
texts that were cut, and of tokens cut off, and, where any were, what other choices would cost. The states of rows that
an earlier run encoded are reused.
"""

import json
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from stages.backbone import base, parallel, precision, prefix, reuse, store
from stages.backbone.device import to_device
from stages.common import errors, files, paths, progress
from stages.encoding import length, template, tokens
from stages.encoding.params import Encode
from stages.params import Params
from stages.problems.kinds import PROBLEMS

MAX_SHARE_UNKNOWN = 0.05
"""Share of unknown tokens above which a warning is printed."""

MAX_SHARE_CUT = 0.05
"""Share of tokens cut off above which a warning is printed."""


def main() -> None:
    dataset = json.loads(paths.DATASET.read_text())
    params = Params.load().filled(dataset)
    base.quiet_transformers()
    datasets.disable_progress_bars()
    model, depth = load_frozen_blocks(
        params.lora.top_layers, matmul_precision=params.precision, layers=params.model.layers
    )
    with files.replacing(paths.ENCODED) as folder, tempfile.TemporaryDirectory() as scratch:
        tokenizer, tokenized = tokenize(params, Path(scratch))
        lengths = measure(tokenizer, tokenized)
        template.limit(tokenizer, choose_length(lengths, params, depth), around=lengths.template)
        about = about_splits(params, tokenized["train"], depth, tokenizer, dataset)
        saved = save_tokens(folder, tokenized, tokenizer, about, params.encode.window_stride)
        metrics = what_was_read(lengths, saved, about, params.encode)
        progress.say(f"encode: {sum(map(len, tokenized.values())):,} texts, at most {about.max_length:,} tokens each")
        if warning := cut_warning(metrics):
            progress.say(warning)
        if warning := unknown_warning(tokenized["train"], tokenizer):
            progress.say(warning)
        if model:
            encode_states(model, folder, about, params)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    files.write_metrics(paths.ENCODE_METRICS, metrics)


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
        progress.say("encode: all layers have adapters, so only tokens are stored")
        return None, 0
    model = AutoModel.from_pretrained(paths.BASE_MODEL, config=config, dtype=torch.float32)
    if not prefix.splits(model, depth):
        progress.say(
            f"encode: {config.model_type}'s layers cannot be run separately; continuing as with lora.top_layers: all"
        )
        return None, 0
    prefix.capture(model, depth)
    precision.convert_linear_weights(model, matmul_precision)
    return model, depth


def tokenize(params: Params, scratch: Path) -> tuple[PreTrainedTokenizerBase, dict[str, Dataset]]:
    """The tokenizer with its template, and each split with the tokens of whole texts."""
    splits = {name: path for name in paths.ALL_SPLITS if (path := paths.PREPARED / f"{name}.parquet").exists()}
    tokenizer = template.load_tokenizer(
        paths.BASE_MODEL,
        pairs=tokens.has_pairs(splits["train"]),
        template=params.encode.template,
        truncation=params.encode.truncation,
    )
    return tokenizer, {
        name: tokens.tokenize(split, tokenizer, scratch=scratch / name) for name, split in splits.items()
    }


def measure(tokenizer: PreTrainedTokenizerBase, tokenized: dict[str, Dataset]) -> length.Lengths:
    """The lengths of the texts, as `tokenize` returns them."""
    pairs = "text_pair" in tokenized["train"].column_names
    return length.Lengths(
        splits={name: tokens.lengths(split) for name, split in tokenized.items()},
        template=tokenizer.num_special_tokens_to_add(pair=pairs),
        window=tokenizer.model_max_length,
        pairs=pairs,
    )


def choose_length(lengths: length.Lengths, params: Params, depth: int) -> int:
    """`encode.max_length`, or what it is where it says `auto`.

    Windows read all tokens whatever their size, so the budget does not bound them.
    """
    options = params.encode
    if options.max_length != "auto":
        return options.max_length
    if options.window_stride is not None:
        return lengths.choose(math.inf)
    hidden_size = base.load_config(paths.BASE_MODEL).hidden_size
    storable = options.max_gb * 1e9 / store.size(1, hidden_size=hidden_size, dtype=options.dtype)
    return lengths.choose(min(length.BUDGET, storable) if depth else length.BUDGET)


def about_splits(
    params: Params, split: Dataset, depth: int, tokenizer: PreTrainedTokenizerBase, dataset: dict
) -> store.About:
    """The contents of `about.json`: what all splits share."""
    problem = PROBLEMS[params.data.problem]
    return store.About(
        problem=problem.name,
        class_names=problem.output_names(split.features["label"]),
        depth=depth,
        hidden_size=base.load_config(paths.BASE_MODEL).hidden_size,
        dtype=params.encode.dtype,
        pad_token_id=tokenizer.pad_token_id,
        layers=params.model.layers,
        max_length=tokenizer.model_max_length,
        dataset=dataset,
    )


def save_tokens(
    folder: Path,
    tokenized: dict[str, Dataset],
    tokenizer: PreTrainedTokenizerBase,
    about: store.About,
    stride: int | None,
) -> dict[str, int]:
    """Write each split's arrays, except for its states; returns the number of tokens of each."""
    how = {"stride": stride, "problem": PROBLEMS[about.problem], "class_names": about.class_names}
    return {
        name: store.save_tokens(folder / name, tokens.chunks(split, tokenizer, **how))
        for name, split in tokenized.items()
    }


def what_was_read(
    lengths: length.Lengths, saved: dict[str, int], about: store.About, options: Encode
) -> dict[str, Any]:
    """The contents of metrics/encode.json.

    Args:
        saved: the tokens of each split, as `save_tokens` returns them.
    """
    longest = about.max_length if options.window_stride is None else math.inf
    splits = {name: {"tokens": count} | lengths.cut(name, longest) for name, count in saved.items()}
    cut = any(split["truncated_rows"] for split in splits.values())
    return {"max_length": about.max_length} | splits | ({"choices": choices(lengths, about, options)} if cut else {})


def choices(lengths: length.Lengths, about: store.About, options: Encode) -> dict[str, dict[str, float]]:
    """What could be read, and its cost: for some values of `encode.max_length`, and for `windows`, the share of all
    tokens, the tokens to run and the gigabytes of their states."""
    to_run = {f"{limit}": lengths.read(limit) for limit in lengths.alternatives(about.max_length)}
    window = lengths.choose(math.inf)
    if not lengths.pairs and options.stride < window - lengths.template:
        to_run["windows"] = lengths.in_windows(window, options.stride)
    stored = store.size(1, hidden_size=about.hidden_size, dtype=about.dtype) / 1e9 if about.depth else 0.0
    return {
        name: {"share_read": min(count / lengths.read(), 1.0), "tokens": count, "gigabytes": count * stored}
        for name, count in to_run.items()
    }


def cut_warning(metrics: dict[str, Any]) -> str:
    """A warning if more than `MAX_SHARE_CUT` of the tokens were cut off; else empty.

    Args:
        metrics: metrics/encode.json.
    """
    splits = [metrics[name] for name in paths.ALL_SPLITS if name in metrics]
    rows, cut, read = (sum(split[key] for split in splits) for key in ("truncated_rows", "truncated_tokens", "tokens"))
    share = cut / (read + cut)
    if share <= MAX_SHARE_CUT:
        return ""
    return (
        f"warning: {share:.1%} of the tokens were cut off, from {rows:,} texts; metrics/encode.json has what other "
        "values of encode.max_length would read and cost, and encode.truncation: windows, which cuts nothing off"
    )


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


def encode_states(model: PreTrainedModel, folder: Path, about: store.About, params: Params) -> None:
    """Run the frozen blocks, `model`, over every split in `folder` and store their output beside its tokens.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`.
    """
    options = {"precision": params.precision, "batch_size": params.encode.batch_size}
    splits = store.load_splits(folder, about, params.precision)
    check_size(sum(len(rows.tokens) for rows in splits.values()), about, params.encode.max_gb)
    made_by = reuse.fingerprint(paths.BASE_MODEL, about, **options)
    with reuse.earlier(paths.ENCODED, made_by) as earlier:
        known = reuse.KnownStates(earlier if reuse.row_by_row(model) else None, about, **options)
        same = reproduces(model, known, splits, params) and fill_states(model, folder, splits, known, about, params)
    if not same:
        progress.say("encode: the stored states were computed on a different machine; computing all of them again")
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
    same, computed = True, []
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
        computed.append(f"{name} {sum(map(len, left)):,} of {len(rows):,}")
    progress.say(f"encode: rows computed: {', '.join(computed)}")
    return same


def check_size(tokens: int, about: store.About, max_gb: float) -> None:
    """Check that the states of `tokens` tokens fit into `max_gb` gigabytes.

    Raises:
        PipelineError: they do not.
    """
    gigabytes = store.size(tokens, hidden_size=about.hidden_size, dtype=about.dtype) / 1e9
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
    return model(**{name: to_device(batch[name]) for name in ("input_ids", "attention_mask")})


if __name__ == "__main__":
    errors.run(main)
