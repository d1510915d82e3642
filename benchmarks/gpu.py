"""What the pipeline reaches on a GPU, beside a plain script: tests, rates, memory, share of the card's matmul rate.

    ./benchmarks/gpu.sh [FOLDER]             runs everything, within GPU_SECONDS (540)
    python -m benchmarks.gpu report [FILE]   takes FOLDER/gpu.json over, and writes benchmarks/RESULTS.md

Needs no network and no data: the models have the shapes of published ones and random weights, the rows are made up. The
stages themselves are run and timed, on files in a temporary folder. Seconds end when the GPU is done; the first pass of
each kind is not counted. Each part has a time limit, what fails is recorded, and the file is written after each part.
Without a GPU it is a dry run of seconds, on tiny models.
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import FrameType
from unittest import mock

import numpy as np
import torch
import transformers
from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars
from ruamel.yaml import YAML
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from benchmarks import plain, results
from benchmarks.share import flops, timed
from stages import encode, evaluate, train
from stages.adapters.load import load
from stages.backbone import parallel, precision, store
from stages.backbone.base import quiet_transformers
from stages.backbone.device import device, to_device
from stages.common import files, paths
from stages.params import Params
from stages.serving.answers import logits
from stages.training import fused

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "Review: {text}\nSentiment:"
REPEATS = 3

OTHER_TESTS = ("backbone", "classifier", "training", "adapters", "encoding", "problems", "test_families.py")
"""Tests that run anywhere; on a GPU they use it."""


@dataclass(frozen=True)
class Shape:
    """A Llama model's sizes, and how many rows it gets."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    rows: tuple[int, int, int]
    """Rows of each split for the rates: enough for seconds."""
    compared_rows: tuple[int, int, int]
    """Rows of each split for the comparison with the plain script."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    shapes: tuple[Shape, ...]
    words: tuple[int, int]
    """Fewest and most words of a text."""
    batch_sizes: tuple[int, ...]
    train_batch: int
    top_layers: int
    predicted: int
    """Texts given to predict."""
    matrix: int
    """Rows and columns of the matrices whose product gives the ceiling."""
    copied: int
    """Bytes of a copy between the memories."""


FULL = Sizes(
    shapes=(  # SmolLM2's
        Shape("1.7B", 24, 2048, 8192, 32, 32, 49_152, rows=(2048, 32, 64), compared_rows=(1000, 100, 300)),
        Shape("135M", 30, 576, 1536, 9, 3, 49_152, rows=(4096, 32, 64), compared_rows=(3000, 500, 1000)),
    ),
    words=(10, 120),
    batch_sizes=(64, 256),
    train_batch=64,
    top_layers=6,
    predicted=512,
    matrix=8192,
    copied=2**28,
)
DRY = Sizes(
    shapes=(Shape("tiny", 2, 64, 128, 4, 2, 512, rows=(16, 8, 8), compared_rows=(16, 8, 8)),),
    words=(5, 5),
    batch_sizes=(8, 16),
    train_batch=8,
    top_layers=1,
    predicted=16,
    matrix=64,
    copied=2**16,
)

Part = tuple[str, float, Callable[[dict], None]]
"""A part's name, its limit in seconds, and what fills a dictionary with its results."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("run", help="measure, into FOLDER/gpu.json")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--seconds", type=float, default=520.0, help="time for all parts (default: %(default)s)")
    reporting = commands.add_parser("report", help="write the section of benchmarks/RESULTS.md")
    reporting.add_argument("file", type=Path, nargs="?", default=results.FOLDER / "gpu.json")
    options = parser.parse_args()
    if options.command == "run":
        run(options.folder.resolve(), options.seconds)
    else:
        report(options.file)


def run(folder: Path, seconds: float) -> None:
    """Measure all parts, each within its limit, and write `folder`/gpu.json after each."""
    end = time.monotonic() + seconds
    quiet_transformers()
    disable_progress_bars()
    dry = not torch.accelerator.is_available()
    measured = {"dry": dry, "hardware": hardware(), "parts": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, most, part in parts(DRY if dry else FULL, Path(scratch)):
            limit = min(most, end - time.monotonic())
            print(f"== {name}: {limit:.0f} s at most", flush=True)
            measured["parts"][name] = guarded(part, limit)
            files.write_json(folder / "gpu.json", measured)
            print(json.dumps(measured["parts"][name], indent=1), flush=True)


def report(file: Path) -> None:
    """Take `file` over into the results, and write RESULTS.md."""
    measured = json.loads(file.read_text())
    if measured["dry"]:
        sys.exit(f"{file}: expected what was measured on a GPU, found a dry run")
    files.write_json(results.FOLDER / "gpu.json", measured)
    results.report()


def parts(sizes: Sizes, scratch: Path) -> list[Part]:
    """All parts, the most important first."""
    given = {shape: {"sizes": sizes, "shape": shape, "folder": scratch / shape.name} for shape in sizes.shapes}
    sides = {(shape.name, kind): given[shape] for kind in ("bfloat16", "float32") for shape in sizes.shapes}
    return [
        ("machine", 30, partial(machine, sizes=sizes)),
        *([] if sizes is DRY else [("tests", 100, partial(tests, names=["test_gpu.py"]))]),
        *((f"rates, {shape.name}", 150, partial(rates, **given[shape])) for shape in sizes.shapes),
        *((f"compared, {', '.join(side)}", 100, partial(compared, **sides[side], kind=side[1])) for side in sides),
        ("qlora", 60, partial(qlora, **given[sizes.shapes[0]])),
        *([] if sizes is DRY else [("other tests", 150, partial(tests, names=OTHER_TESTS))]),
    ]


def guarded(part: Callable[[dict], None], limit: float) -> dict:
    """What the part found within `limit` seconds, its seconds, and why it ended early if it did."""
    if limit < 5:
        return {"error": "no time left"}
    found, start = {}, time.perf_counter()

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        part(found)
    except Exception as error:  # another part may still work
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    free_memory()
    return found | {"part_s": time.perf_counter() - start}


def hardware() -> str:
    """The device and the versions of the libraries."""
    name = torch.get_device_module(device()).get_device_name() if device().type != "cpu" else "no GPU"
    return ", ".join([name, *(f"{package} {version(package)}" for package in ("torch", "transformers", "peft"))])


def machine(found: dict, *, sizes: Sizes) -> None:
    """The ceilings: matrix products in every precision, and copies between the memories, in TFLOP/s and GB/s."""
    found["matmul_tflops"] = {kind: ceiling(sizes, kind) / 1e12 for kind in ("bfloat16", "float32")}
    there = torch.empty(sizes.copied, dtype=torch.uint8, device=device())
    here = torch.ones(sizes.copied, dtype=torch.uint8)
    copies = {"to_gpu_pageable": (there.copy_, here), "to_cpu_pageable": (here.copy_, there)}
    if device().type != "cpu":
        pinned = here.pin_memory()
        copies |= {"to_gpu_pinned": (there.copy_, pinned), "to_cpu_pinned": (pinned.copy_, there)}
    found["copies_gb_s"] = {
        name: sizes.copied / median_seconds(partial(copy, source)) / 1e9 for name, (copy, source) in copies.items()
    }


def tests(found: dict, *, names: list[str]) -> None:
    """How many tests passed and failed, and which failed."""
    modules = [str(ROOT / "tests" / name) for name in names]
    spread = ["-n", "8"] if len(names) > 1 and importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *spread, *modules]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    try:
        lines += (line.rstrip() for line in process.stdout)
    finally:
        process.terminate()
        found["failed"] = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))]
        found["summary"] = next((line.strip("= ") for line in reversed(lines) if line), "nothing printed")
        if found["failed"]:
            print("\n".join(lines[-400:]))


def rates(found: dict, *, sizes: Sizes, shape: Shape, folder: Path) -> None:
    """Rates, memory and share of the ceiling of encode, train and predict, by themselves; bfloat16, predict float32."""
    found["ceiling_tflops"] = {kind: ceiling(sizes, kind) / 1e12 for kind in ("bfloat16", "float32")}
    with project(shape, sizes, folder, rows=shape.rows):
        params = settings(sizes)
        encode.main()
        model, _ = encode.load_frozen_blocks(sizes.top_layers, matmul_precision="bfloat16")
        for size in sizes.batch_sizes:
            encode_rates(found, model.to(device()), settings(sizes, encode={"batch_size": size}), size)
        del model
        train_rates(found, f"train, top {sizes.top_layers} layers", params)
        predict_rates(found, sizes)
        params = settings(sizes, lora={"top_layers": "all"})
        encode.main()
        train_rates(found, "train, all layers", params)


def encode_rates(found: dict, model: torch.nn.Module, params: Params, batch_size: int) -> None:
    """All rows through the frozen layers, as the stage does it, and without writing the states."""
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "train", about, "bfloat16")
    everything = [store.load_rows(paths.ENCODED / name, about, "bfloat16") for name in paths.SPLITS]
    work = work_per_token(partial(forward, model), rows, "bfloat16")

    def whole() -> None:
        with tempfile.TemporaryDirectory(dir=paths.ENCODED) as place:
            encode.encode_states(model, paths.ENCODED, about, params, Path(place))

    def alone() -> None:
        def compute(model: torch.nn.Module, indices: np.ndarray) -> None:
            batch = rows.batch(indices)
            model(input_ids=to_device(batch["input_ids"]), attention_mask=to_device(batch["attention_mask"]))

        parallel.each_batch(model, compute, rows.by_length(batch_size), progress="model", precision="bfloat16")

    for name, call, splits in (
        ("encode", whole, everything),
        ("encode, model alone", alone, [rows]),
    ):
        add(found, f"{name}, batch {batch_size}", *measured(call), splits, work=work, kind="bfloat16")


def train_rates(found: dict, name: str, params: Params) -> None:
    """An epoch of the stage after its first, and single training steps on batches that are already on the GPU."""
    about, rows = train.load_rows(params)
    model, _, _ = train.build(params, about, rows["train"], seed=0)
    model.to(device()).train()
    work = work_per_token(partial(step, model), rows["train"], "bfloat16")
    fused.fuse(model, example=rows["train"].batch([0]))
    batches = rows["train"].by_length(params.train.batch_size)
    chosen = batches[len(batches) // 2]
    batch = {key: part.to(device()) for key, part in rows["train"].batch(chosen).items()}
    seconds, memory = measured(partial(step, model, batch), repeats=10)
    tokens = int(rows["train"].lengths[chosen].sum())
    add(found, f"{name}, steps alone", seconds, memory, tokens=tokens, count=len(chosen), work=work, kind="bfloat16")
    del model, batch
    gc.collect()
    free_memory()

    reset_memory()
    seconds = median(epochs_of(train.main)[1:])
    add(found, name, seconds, peak_memory(), [rows["train"]], work=work, kind="bfloat16")


def predict_rates(found: dict, sizes: Sizes) -> None:
    """Raw texts through the adapter of the last training, as the stage does it, in float32."""
    model, tokenizer = load(paths.ADAPTER).to(device()), AutoTokenizer.from_pretrained(paths.ADAPTER)
    texts = made_up_texts(sizes.predicted, sizes)
    lengths = [len(tokens) for tokens in tokenizer(texts)["input_ids"]]
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "train", about)
    work = work_per_token(partial(forward, model), rows, "float32")
    for size in sizes.batch_sizes:
        seconds, memory = measured(partial(logits, model, texts, tokenizer=tokenizer, batch_size=size), repeats=2)
        counts = {"tokens": sum(lengths), "count": len(texts)}
        add(found, f"predict, batch {size}", seconds, memory, **counts, work=work, kind="float32")


def compared(found: dict, *, sizes: Sizes, shape: Shape, folder: Path, kind: str) -> None:
    """The stages and the plain script on the same model and rows, one after the other; loading counts on both sides."""
    plainly = partial(plain.run, precision=kind)
    with project(shape, sizes, folder, rows=shape.compared_rows):
        settings(sizes, precision=kind, train={"batch_size": 16, "epochs": 1})
        reset_memory()
        pipeline = found["pipeline"] = {"encode_s": timed(encode.main)}
        start = time.perf_counter()
        (pipeline["epoch_s"],) = epochs_of(train.main)
        pipeline["train_s"] = time.perf_counter() - start
        pipeline |= {"evaluate_s": timed(evaluate_test), "peak_gib": peak_memory()}
        train_rows, _, test_rows = shape.compared_rows
        plainly(train_rows=16, test_rows=8)  # its first kernels are not counted either
        reset_memory()
        start = time.perf_counter()
        phases = plainly(train_rows=train_rows, test_rows=test_rows)
        seconds = time.perf_counter() - start
        found["plain"] = {"first_run_s": seconds, "rerun_s": seconds - phases["before_s"]}
        found["plain"] |= {"epoch_s": phases["train_s"], "peak_gib": peak_memory()}
    rerun = pipeline["train_s"] + pipeline["evaluate_s"]
    found["rows"] = shape.compared_rows
    found["rerun_times_faster"] = found["plain"]["rerun_s"] / rerun
    found["epoch_times_faster"] = found["plain"]["epoch_s"] / pipeline["epoch_s"]
    found["first_run_times_faster"] = found["plain"]["first_run_s"] / (pipeline["encode_s"] + rerun)


def evaluate_test() -> None:
    """The tuned model on the test rows, as `evaluate` runs it."""
    rows = store.load_rows(paths.ENCODED / "test", store.About.load(paths.ENCODED))
    evaluate.tuned_logits(paths.ADAPTER, rows, Params.load().evaluate.batch_size)


def qlora(found: dict, *, sizes: Sizes, shape: Shape, folder: Path) -> None:
    """An epoch of QLoRA on all layers, from tokens, and its memory beside LoRA's."""
    if importlib.util.find_spec("bitsandbytes") is None:
        found["not_measured"] = "bitsandbytes is not installed"
        return
    with project(shape, sizes, folder, rows=shape.compared_rows):
        for method in ("lora", "qlora"):
            settings(sizes, lora={"top_layers": "all"}, peft={"method": method}, train={"epochs": 1})
            encode.main()
            reset_memory()
            found[method] = {"train_s": timed(train.main), "peak_gib": peak_memory()}


@contextlib.contextmanager
def project(shape: Shape, sizes: Sizes, folder: Path, *, rows: tuple[int, int, int]) -> Iterator[None]:
    """Enters `folder`, with a base model of that shape, made once, and so many made-up rows in each split."""
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        if not paths.BASE_MODEL.exists():
            save_base(shape)
        files.write_json(paths.DATASET, {})
        kinds = Features({"row": Value("int64"), "text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
        for name, count in zip(paths.SPLITS, rows, strict=True):
            texts = made_up_texts(count, sizes)
            columns = {"row": range(count), "text": texts, "label": [number % 2 for number in range(count)]}
            Dataset.from_dict(columns, features=kinds).to_parquet(paths.PREPARED / f"{name}.parquet")
        yield


def save_base(shape: Shape) -> None:
    """A model with random weights, and a tokenizer that knows every word of the made-up texts and of the template."""
    special = ["<unk>", "<eos>", "Review", "Sentiment", ":", "good", "bad"]
    words = [*special, *(f"w{number}" for number in range(shape.vocabulary - len(special)))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>").save_pretrained(
        paths.BASE_MODEL
    )
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    with device():
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(paths.BASE_MODEL)
    source = {"source": "path:models/raw/made-up", "revision": None, "license": "not stated"}
    files.write_json(paths.BASE_MODEL / "source.json", source)


def made_up_texts(count: int, sizes: Sizes) -> list[str]:
    """Texts of words that any vocabulary has, their lengths evenly spread."""
    draw = np.random.default_rng(count)
    least, most = sizes.words
    return [
        " ".join(f"w{word}" for word in draw.integers(0, 400, length))
        for length in draw.integers(least, most + 1, count)
    ]


def settings(sizes: Sizes, **sections: dict | str) -> Params:
    """Write params.yaml: the committed one with the measured sizes and the given changes."""
    params = YAML(typ="safe").load(ROOT / paths.PARAMS)
    chosen = {
        "precision": "bfloat16",
        "model": {"layers": None},
        "encode": {"template": TEMPLATE, "label_words": None, "max_gb": 1000.0, "batch_size": sizes.batch_sizes[0]},
        "lora": {"top_layers": sizes.top_layers},
        "train": {"batch_size": sizes.train_batch, "epochs": REPEATS, "lr": 1e-3},
        "data": {"classes": {"bad": [None, 0], "good": [0, None]}},
    }
    for changes in (chosen, sections):
        for section, values in changes.items():
            params[section] = params[section] | values if isinstance(values, dict) else values
    YAML().dump(params, paths.PARAMS)
    return Params.load()


class Epochs(TrainerCallback):
    """The seconds of every epoch of a training, without its evaluation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        synchronize()
        self.start = time.perf_counter()

    def on_epoch_end(self, *args: object, **kwargs: object) -> None:
        synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def epochs_of(training: Callable[[], None]) -> list[float]:
    """The seconds of each epoch of a stage that trains."""
    epochs = Epochs()
    defaults = [*transformers.trainer.DEFAULT_CALLBACKS, epochs]
    with mock.patch.object(transformers.trainer, "DEFAULT_CALLBACKS", defaults):
        training()
    return epochs.seconds


def forward(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """The model's answers for a batch."""
    with torch.inference_mode():
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """A forward and a backward pass in bfloat16; the optimizer's work is small beside them."""
    with precision.autocast("bfloat16"):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()


def work_per_token(call: Callable[[dict], None], rows: store.Rows, kind: str) -> float:
    """Floating-point operations of the matrix products per token, counted on rows of equal length, without padding.

    In training, before the adapters are fused: those of PEFT.
    """
    middle = np.argsort(rows.lengths)[len(rows) // 2]
    batch = {key: part.to(device()) for key, part in rows.batch([middle] * 8).items()}
    width = -(-int(rows.lengths[middle]) // rows.multiple) * rows.multiple
    with precision.autocast(kind):
        return flops(call, batch) / (8 * width)


def add(
    found: dict,
    name: str,
    seconds: float,
    memory: float | None,
    splits: list[store.Rows] | None = None,
    *,
    tokens: int = 0,
    count: int = 0,
    work: float,
    kind: str,
) -> None:
    """Note a rate under `name`, in rows, tokens and operations, and its share of the ceiling measured before."""
    tokens = tokens or int(sum(rows.lengths.sum() for rows in splits))
    count = count or sum(map(len, splits))
    rate = work * tokens / seconds / 1e12
    found[name] = {
        "seconds": seconds,
        "rows_per_s": count / seconds,
        "tokens_per_s": tokens / seconds,
        "tflops": rate,
        "share": rate / found["ceiling_tflops"][kind],
        "peak_gib": memory,
    }
    print(f"   {name}: {count / seconds:,.0f} rows/s, {rate:.4g} TFLOP/s, {found[name]['share']:.1%}", flush=True)


def ceiling(sizes: Sizes, kind: str) -> float:
    """Operations per second of a large matrix product of random numbers."""
    square = torch.randn(sizes.matrix, sizes.matrix, device=device()).to(getattr(torch, kind))

    def products() -> None:
        for _ in range(10):
            square @ square

    return 10 * 2 * sizes.matrix**3 / median_seconds(products, repeats=5)


def measured(call: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float | None]:
    """The median of the seconds of some calls after a first one, and their peak memory on the GPU in GiB."""
    reset_memory()
    return median_seconds(call, repeats), peak_memory()


def median_seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of the seconds of some calls after a first one."""
    timed(call)
    return median(timed(call) for _ in range(repeats))


def synchronize() -> None:
    """Wait until the GPU has done its work."""
    if device().type != "cpu":
        torch.accelerator.synchronize()


def free_memory() -> None:
    """Give memory that is not used back to the GPU."""
    if device().type != "cpu":
        torch.get_device_module(device()).empty_cache()


def reset_memory() -> None:
    """Begin to measure the peak memory anew."""
    if device().type != "cpu":
        torch.get_device_module(device()).reset_peak_memory_stats()


def peak_memory() -> float | None:
    """The most memory on the GPU that tensors took since then, GiB."""
    return torch.get_device_module(device()).max_memory_allocated() / 2**30 if device().type != "cpu" else None


if __name__ == "__main__":
    main()
