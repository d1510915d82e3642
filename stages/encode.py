"""encode: the tokens of every text, and the frozen layers' output for them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/backbone/store.py), what the stored states were computed with (`prefix.json`), and `about.json`,
written last; and metrics/encode.json: the most tokens of a row (`max_length`), for each split the number of tokens, of
texts that were cut, and of tokens cut off, and, where any were, what other choices would cost. The states of rows that
an earlier run encoded are reused; a run that was interrupted goes on with the batch at which it was.
"""

import math
import shutil
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from stages.backbone import base, parallel, precision, prefix, store
from stages.backbone.device import machine
from stages.backbone.states import FILES, States, size
from stages.classifier.model import check_head, layers_in_use
from stages.common import errors, files, paths, progress
from stages.compute import engine
from stages.encoding import length, template, tokens
from stages.encoding.params import Encode
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.resuming import places, reuse
from stages.resuming.states import UnfinishedStates, publish_states

MAX_SHARE_CUT = 0.05
"""Share of tokens cut off above which a warning is printed."""


def main() -> None:
    dataset = files.read_json(paths.DATASET)
    params = Params.load().filled(dataset)
    used = layers_in_use(paths.BASE_MODEL, params.model.layers)
    params = params.model_copy(update={"model": params.model.model_copy(update={"layers": used})})
    base.quiet_transformers()
    problem = PROBLEMS[params.data.problem]
    check_head(paths.BASE_MODEL, problem, problem.output_names(tokens.label(paths.PREPARED / "train.parquet")))
    datasets.disable_progress_bars()
    model, depth = load_frozen_blocks(params.lora.top_layers, matmul_precision=params.precision, layers=used)
    with ExitStack() as left, files.replacing(paths.ENCODED) as folder, files.scratch() as scratch:
        tokenizer, tokenized = tokenize(params, scratch)
        lengths = measure(tokenizer, tokenized)
        template.limit(tokenizer, choose_length(lengths, params, depth), around=lengths.template)
        about = about_splits(params, tokenized["train"], depth, tokenizer, dataset)
        saved = save_tokens(folder, tokenized, tokenizer, about, params.encode.window_stride)
        metrics = what_was_read(lengths, saved, about, params.encode)
        progress.say(f"encode: {sum(map(len, tokenized.values())):,} texts, at most {about.max_length:,} tokens each")
        for warning in filter(None, (cut_warning(metrics), tokens.unknown_warning(tokenized["train"], tokenizer))):
            progress.say(warning)
        del tokenized  # mapped from files in `scratch`
        if model:
            place = left.enter_context(place_of_states(folder, about, params))  # until data/encoded is replaced
            with parallel.spread_over(engine.workers(params.compute)):
                encode_states(model, folder, about, params, place)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    files.write_metrics(paths.ENCODE_METRICS, metrics)


def load_frozen_blocks(
    top_layers: int | str, *, matmul_precision: str = "float32", layers: int | None = None
) -> tuple[PreTrainedModel | None, int]:
    """The base model's blocks below its `top_layers`, and their number; None and 0: there are no states to store, as
    all layers are to have adapters, or as layers share their weights or are those of an encoder and a decoder.

    Args:
        matmul_precision: the precision of the matrix products.
        layers: see `stages.backbone.base.keep_lowest_layers`.

    Raises:
        PipelineError: see `prefix.check_split`.
    """
    precision.check(matmul_precision)
    config = base.load_config(paths.BASE_MODEL, **base.keep_lowest_layers(paths.BASE_MODEL, layers))
    depth = prefix.depth(config.num_hidden_layers, top_layers)
    if not depth:
        progress.say("encode: all layers have adapters, so only tokens are stored")
        return None, 0
    how = {"config": config, "depth": depth, "matmul_precision": matmul_precision}
    model = parallel.loaded(partial(lowest_blocks, paths.BASE_MODEL, **how))
    if not prefix.blocks(model):
        progress.say(
            f"encode: {config.model_type}'s layers cannot be run separately, as the model has not one list of its "
            f"{config.num_hidden_layers} layers (some share their weights, or a decoder has its own); continuing as "
            "with lora.top_layers: all"
        )
        return None, 0
    return model, depth


def lowest_blocks(folder: Path, *, config: PreTrainedConfig, depth: int, matmul_precision: str) -> PreTrainedModel:
    """The lowest `depth` blocks of the model in a folder; all of it if it has not one list of blocks."""
    with files.reading(folder):
        model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32)
    if prefix.blocks(model):
        prefix.check_split(model, depth)
        prefix.capture(model, depth)
        precision.convert_linear_weights(model, matmul_precision)
    return model


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
    storable = options.max_gb * 1e9 / size(1, hidden_size=hidden_size, dtype=options.dtype)
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
    stored = size(1, hidden_size=about.hidden_size, dtype=about.dtype) / 1e9 if about.depth else 0.0
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
    if (share := cut / (read + cut)) <= MAX_SHARE_CUT:
        return ""
    windows = ", and encode.truncation: windows, which cuts nothing off" if "windows" in metrics["choices"] else ""
    return (
        f"warning: {share:.1%} of the tokens were cut off, from {rows:,} texts; metrics/encode.json has what other "
        f"values of encode.max_length would read and cost{windows}"
    )


def place_of_states(folder: Path, about: store.About, params: Params) -> AbstractContextManager[Path]:
    """The place of the states that an interrupted run of the same tokens has computed; see `places.place`.

    Args:
        folder: the tokens of every split, and nothing else.
    """
    made_by = reuse.fingerprint(paths.BASE_MODEL, about, **computing(params))
    inputs = [paths.BASE_MODEL, folder]
    return places.place("encode", settings=made_by | machine(), inputs=inputs, days=params.checkpoints.days)


def encode_states(model: PreTrainedModel, folder: Path, about: store.About, params: Params, place: Path) -> None:
    """Run the frozen blocks, `model`, over every split in `folder` and store their output beside its tokens.

    Args:
        place: the folder in which they are computed; what an interrupted run left there is taken up.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`, or are not finite.
    """
    options = computing(params)
    splits = store.load_splits(folder, replace(about, depth=0), params.precision)
    kept = sum(path.stat().st_size for path in place.rglob(FILES))
    check_size(sum(len(rows.tokens) for rows in splits.values()), about, params.encode.max_gb, kept=kept)
    made_by = reuse.fingerprint(paths.BASE_MODEL, about, **options)
    anew = place / "anew"
    home = anew if anew.exists() else place / "states"
    with reuse.earlier(paths.ENCODED, made_by) as earlier:
        usable = reuse.row_by_row(model) and home != anew
        known = reuse.KnownStates(earlier if usable else None, about, **options)
        same = known.reproduced_by(model) and fill_states(model, home, splits, known, about, params)
    if not same:
        progress.say("encode: the stored states were computed on a different machine; computing all of them again")
        anew.mkdir()
        shutil.rmtree(home, ignore_errors=True)
        home = anew
        fill_states(model, anew, splits, reuse.KnownStates(None, about, **options), about, params)
    for name in splits:
        publish_states(home / name, folder / name)
    reuse.save(folder, made_by)


def computing(params: Params) -> dict[str, Any]:
    """How the states are computed, as `stages.resuming.reuse` needs to know."""
    return {"precision": params.precision, "batch_size": params.encode.batch_size}


def fill_states(
    model: PreTrainedModel,
    home: Path,
    splits: dict[str, store.Rows],
    known: reuse.KnownStates,
    about: store.About,
    params: Params,
) -> bool:
    """Write the states of all splits into folders of their names in `home`, computing those that are neither known nor
    there already; returns whether the known states that were computed again came out the same."""
    begin = partial(UnfinishedStates, about=about, seconds=60 * params.checkpoints.minutes)
    found = {name: begin(home / name, rows) for name, rows in splits.items()}
    if taken := sum(states.rows_done(params.encode.batch_size) for states in found.values()):
        every = sum(map(len, splits.values()))
        progress.say(f"encode: goes on after {taken:,} of {every:,} rows, which an interrupted run has computed")
    others, computed, kept = [], [], {}
    for name, rows in splits.items():
        states = found[name]
        batches = [known.fill(states.stored, rows, batch) for batch in states.left(params.encode.batch_size)]
        left = [batch for batch in batches if len(batch)]
        parallel.each_batch(
            model,
            partial(encode_batch, rows=rows, states=states.stored),
            left,
            progress=f"encode, {name} rows",
            precision=params.precision,
            as_one_of_many=True,
            kept=kept,
            note=partial(note_batch, states=states, known=known, others=others),
        )
        states.save()
        computed.append(f"{name} {sum(map(len, left)):,} of {len(rows):,}")
    progress.say(f"encode: rows computed: {', '.join(computed)}")
    return not others


def check_size(tokens: int, about: store.About, max_gb: float, *, kept: int = 0) -> None:
    """Check that the states of `tokens` tokens fit into `max_gb` gigabytes, and on the disk.

    Args:
        kept: bytes of them that an interrupted run has left there.

    Raises:
        PipelineError: they do not.
    """
    needed = size(tokens, hidden_size=about.hidden_size, dtype=about.dtype)
    if (gigabytes := needed / 1e9) > max_gb:
        raise errors.PipelineError(
            f"encode: expected the stored states to fit encode.max_gb = {max_gb}, "
            f"they need {gigabytes:.2f} GB; raise it, halve them with encode.dtype: bfloat16, "
            "or store nothing with lora.top_layers: all"
        )
    files.check_space(paths.ENCODED, needed - kept, advice=", or halve it with encode.dtype: bfloat16")


def encode_batch(model: PreTrainedModel, indices: np.ndarray, *, rows: store.Rows, states: States) -> None:
    """Compute the states of the rows at `indices` and write them into `states`."""
    store.write_states(states, rows, indices, reuse.run_batch(model, indices, rows=rows))


def note_batch(indices: np.ndarray, *, states: UnfinishedStates, known: reuse.KnownStates, others: list) -> None:
    """Count the batch of the rows at `indices` as done if those of its states that were known came out the same. If
    they did not, it is one of the `others`, and does not count as done, so that the next run finds out, too."""
    if known.agrees(states.rows, indices, states.of_rows(indices)):
        states.note(indices)
    else:
        others.append(indices)


if __name__ == "__main__":
    errors.run_script(main, __doc__)
