"""encode: every text as tokens, and what the frozen layers make of them, computed once.

    python -m stages.encode

Reads models/base and data/prepared. Writes data/encoded: the tokenizer with its template, a folder of arrays for each
split (see stages/common/store.py), and `about.json`, written last; and metrics/encode.json: tokens and rows whose text
was cut, by split.
"""

from pathlib import Path

import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from stages.common import errors, output, paths, prefix, store, template
from stages.common.device import device
from stages.common.params import Encode, Params


def main() -> None:
    params = Params.load()
    splits = {name: Dataset(pq.read_table(paths.PREPARED / f"{name}.parquet")) for name in paths.SPLITS}
    tokenizer = template.load_tokenizer(
        paths.BASE_MODEL, template=params.encode.template, max_length=params.encode.max_length
    )
    config = AutoConfig.from_pretrained(paths.BASE_MODEL)
    about = store.About(
        class_names=splits["train"].features["label"].names,
        depth=prefix.depth(config.num_hidden_layers, params.lora.top_layers),
        hidden_size=config.hidden_size,
        dtype=params.encode.dtype,
        pad_token_id=tokenizer.pad_token_id,
    )
    with output.replacing(paths.ENCODED) as folder:
        metrics = {name: encode_tokens(tokenizer, split, folder / name) for name, split in splits.items()}
        if about.depth:
            encode_states(folder, about, params.encode)
        tokenizer.save_pretrained(folder / "tokenizer")
        about.save(folder)
    output.write_json(paths.ENCODE_METRICS, metrics)


def encode_tokens(tokenizer: PreTrainedTokenizerBase, split: Dataset, folder: Path) -> dict[str, int]:
    """Write a split's tokens to `folder`; returns how many there are, and in how many rows the text was cut."""
    texts = split["text"][:]
    tokens = tokenizer(texts, truncation=True)["input_ids"]
    uncut = tokenizer(texts)["input_ids"]
    store.save_tokens(folder, tokens=tokens, labels=split["label"][:])
    return {
        "tokens": sum(map(len, tokens)),
        "truncated_rows": sum(len(cut) < len(whole) for cut, whole in zip(tokens, uncut, strict=True)),
    }


def encode_states(folder: Path, about: store.About, options: Encode) -> None:
    """Run the frozen blocks over every split in `folder` and store their output beside its tokens.

    Raises:
        PipelineError: the states would take more than `encode.max_gb`.
    """
    splits = {name: store.load_rows(folder / name, about) for name in paths.SPLITS}
    tokens = {name: len(rows.tokens) for name, rows in splits.items()}
    gigabytes = store.size(sum(tokens.values()), about) / 1e9
    if gigabytes > options.max_gb:
        raise errors.PipelineError(
            f"encode: expected the stored states to fit encode.max_gb = {options.max_gb}, "
            f"they need {gigabytes:.2f} GB; raise it, halve them with encode.dtype: bfloat16, "
            "or store nothing with lora.top_layers: all"
        )
    model = AutoModel.from_pretrained(paths.BASE_MODEL, dtype=torch.float32)
    recorder = prefix.capture(model, about.depth)
    model = model.to(device()).eval()
    with torch.inference_mode(), tqdm(total=sum(tokens.values()), desc="encode", unit="token") as bar:
        for name, rows in splits.items():
            states = store.create_states(folder / name, tokens=tokens[name], about=about)
            for numbers in rows.by_length(options.batch_size):
                batch = rows.batch(numbers)
                model(**{key: batch[key].to(device()) for key in ("input_ids", "attention_mask")})
                store.write_states(states, rows, numbers, recorder.states)
                bar.update(int(rows.lengths[numbers].sum()))
            states.flush()


if __name__ == "__main__":
    errors.run(main)
