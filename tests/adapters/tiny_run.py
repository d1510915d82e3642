"""What the tests of the methods share: a folder in which a tiny model is trained, and its logits, loaded plainly."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_params
from peft import AutoPeftModelForSequenceClassification
from ruamel.yaml import YAML
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from stages import encode, train
from stages.adapters import methods
from stages.backbone import store
from stages.classifier import inference
from stages.classifier.labels import label_arguments, load_labels
from stages.common import files, paths
from stages.params import Params
from stages.problems.kinds import PROBLEMS

CLASSES = ["bad", "good"]
LABELS = label_arguments(PROBLEMS["single_label"], CLASSES, pad_token_id=0)
DEPTH = 2
RATES = {"prompt": 0.03, "prefix": 0.03, "ia3": 0.03, "vera": 0.03, "ln_tuning": 0.02, "head": 0.02, "full": 3e-3}
"""Learning rates; 0.01 for every other method."""


def write_params(method: str, **changes: dict) -> Params:
    """params.yaml for a tiny run of a method."""
    sections = {
        "peft": {"method": method, "options": {"num_virtual_tokens": 4} if method in methods.PROMPTS else {}},
        "lora": {"r": 4, "head_init": "random"},
        "train": {"epochs": 3 if method in methods.PROMPTS else 2, "lr": RATES.get(method, 1e-2), "logging_steps": 1},
    }
    for section, values in changes.items():
        sections[section] |= values
    params = tiny_params(**sections)
    YAML().dump(params, paths.PARAMS)
    return Params.model_validate(params)


def encode_rows(model: Path) -> dict[str, store.Rows]:
    """The rows that `encode` leaves in this folder, with a copy of `model`; their first token gives the class away."""
    shutil.copytree(model, paths.BASE_MODEL)
    source = {"source": "path:models/raw/tiny", "revision": None, "license": "MIT"}
    files.write_json(paths.BASE_MODEL / "source.json", source)
    about = store.About(
        problem="single_label",
        class_names=CLASSES,
        depth=DEPTH,
        hidden_size=32,
        dtype="float32",
        pad_token_id=0,
        layers=None,
        max_length=64,
    )
    paths.ENCODED.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, count in (("train", 48), ("validation", 16), ("test", 10)):
        labels = np.arange(count) % 2
        tokens = [[10 + label, *generator.integers(20, 60, size=generator.integers(2, 9))] for label in labels]
        chunk = store.Chunk(
            tokens=np.concatenate(tokens),
            lengths=np.array([len(row) for row in tokens]),
            counts=np.ones(count, dtype=np.int64),
            labels=labels,
            source_rows=np.arange(count),
        )
        store.save_tokens(paths.ENCODED / name, [chunk])
    lower, _ = encode.load_frozen_blocks(DEPTH)
    encode.encode_states(lower, paths.ENCODED, about, write_params("lora"), Path("place"))
    AutoTokenizer.from_pretrained(paths.BASE_MODEL).save_pretrained(paths.ENCODED / "tokenizer")
    about.save(paths.ENCODED)
    return {name: store.load_rows(paths.ENCODED / name, about) for name in paths.SPLITS}


def train_and_keep(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The model that `train` saves, as it is in memory, and after its whole run."""
    kept = []
    save = train.save

    def keep(model: torch.nn.Module, *rest: object, **named: object) -> None:
        kept.append(model)
        save(model, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(train, "save", keep)
        train.main()
    return kept[0].eval()


def load_plainly() -> torch.nn.Module:
    """The saved model, loaded with nothing but PEFT and transformers."""
    whole = (paths.ADAPTER / "config.json").exists()
    kind = AutoModelForSequenceClassification if whole else AutoPeftModelForSequenceClassification
    set_seed(99)  # what is not in the file starts otherwise than in training
    return kind.from_pretrained(paths.ADAPTER, dtype=torch.float32, **load_labels(paths.ADAPTER)).eval()


def one_by_one(model: torch.nn.Module, rows: store.Rows) -> np.ndarray:
    """The logits of every row, each computed alone from its tokens."""
    with torch.inference_mode():
        batches = [inference.inputs(replace(rows, states=None), [index]) for index in range(len(rows))]
        return np.concatenate([model(**batch).logits.numpy() for batch in batches])


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """That logits are the same but for rounding."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
