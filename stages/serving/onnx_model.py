"""A model in ONNX, run by ONNX Runtime: the folder that `python -m stages.export --onnx` writes.

    model.onnx        the graph: token ids in, logits out; above 2 GB its weights are in model.onnx.data
    classifier.json   how texts become token ids and logits answers, see `About`
    tokenizer.json    with the template, the truncation and the padding, for the tokenizers library alone
    run.json, abstention.json, check.json, example.py, README.md

ONNX Runtime is an optional dependency.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stages.common import files
from stages.common.errors import PipelineError
from stages.common.texts import shortened

GRAPH = "model.onnx"

ABOUT = "classifier.json"

LOGITS = "logits"
"""The name of the graph's output."""

EXECUTION = ["CPUExecutionProvider"]


@dataclass(frozen=True, kw_only=True)
class About:
    """What an answer depends on besides the graph and the tokenizer; the fields are the keys of classifier.json."""

    names: list[str]
    """Of the outputs, in their order."""
    answer: str
    """What a logit is: of a `softmax` over all of them, of a `sigmoid` of its own, or the `number` itself."""
    thresholds: list[float]
    """The probability above which a label is given; empty unless a text can have several labels."""
    windows: bool
    """Whether a long text is read in windows, whose logits are averaged; else it is cut."""
    precision: str
    """`float32` or `int8`."""

    def save(self, folder: Path) -> None:
        files.write_json(folder / ABOUT, vars(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        values = files.read_json(folder / ABOUT)
        with files.reading(folder / ABOUT):
            return cls(**values)


class OnnxModel:
    """A graph that is loaded to be run."""

    def __init__(self, path: Path) -> None:
        """Load the graph in a file.

        Raises:
            PipelineError: ONNX Runtime is not installed, or the file is damaged.
            FileNotFoundError: there is no such file.
        """
        require("onnxruntime")
        import onnxruntime  # an optional dependency

        path.stat()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches share the cores, see `each_batch`
        options.log_severity_level = 3
        with files.reading(path):
            self.session = onnxruntime.InferenceSession(str(path), options, providers=EXECUTION)
        self.takes = [given.name for given in self.session.get_inputs()]

    def __call__(self, batch: Mapping[str, np.ndarray], outputs: Sequence[str] = (LOGITS,)) -> list[np.ndarray]:
        """The outputs for the rows of a batch; of the logits, (batch, outputs) float32.

        Raises:
            PipelineError: ONNX Runtime cannot compute them.
        """
        given = {name: batch[name].astype(np.int64) for name in self.takes}
        try:
            return self.session.run(list(outputs), given)
        except Exception as error:  # onnxruntime has a class for each of its error codes, and no common one
            found = shortened(" ".join(str(error).split()), 200)
            raise PipelineError(
                f"{GRAPH}: expected a graph that ONNX Runtime can run, found: {found}; export it without --onnx"
            ) from error

    def each_batch(self, compute: Callable[["OnnxModel", Any], Any], batches: Sequence[Any]) -> list[Any]:
        """`compute(model, batch)` for every batch, in order, one batch on each core: as `parallel.each_batch` does."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            try:
                return list(pool.map(lambda batch: compute(self, batch), batches))
            finally:
                pool.shutdown(cancel_futures=True)  # an interruption waits for the current batches alone


def is_in(folder: Path) -> bool:
    """Whether a folder holds a model in ONNX."""
    return (folder / GRAPH).exists()


def require(*packages: str) -> None:
    """Check that optional packages are installed.

    Raises:
        PipelineError: one is not.
    """
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise PipelineError(
            f"expected {', '.join(packages)} for models in ONNX, found no {', '.join(absent)}; install with: "
            f"pip install {' '.join(packages)}"
        )
