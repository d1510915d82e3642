"""Write the tuned model in ONNX: the graph, the tokenizer, and an example that needs neither transformers nor torch.

The exporters of transformers trace the model that `stages.adapters.load` returns, in which the adapter is merged and
the last feed-forward module reads one token of each row. They fuse what ONNX Runtime has faster operations for.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.exporters import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

from stages.adapters.load import load
from stages.adapters.run import Run
from stages.backbone.base import pretrained
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.common.texts import shortened
from stages.exporting import int8
from stages.serving import evaluated
from stages.serving.answers import Inputs, class_names
from stages.serving.onnx_model import GRAPH, About, OnnxModel

MOST_IN_ONE_FILE = 2**31 - 2**20
"""Bytes of weights; a protobuf message has less than 2 GB."""

ROW_OF_ONE_AND_OF_TWO = ("A text.", "Another text, which is longer.")
"""What the model is traced with: the sizes of a batch are symbols in the graph."""

FUSIONS = ("cpu", None)
"""What is tried in turn. T5's attention, which is not divided by the root of its size, is fused to one that is."""

EXAMPLE = '''\
"""Classify {texts}: python example.py {arguments}

Needs onnxruntime, tokenizers and numpy.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

here = Path(__file__).parent
about = json.loads((here / "classifier.json").read_text(encoding="utf-8"))
session = InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # those written out in a text are plain text
takes = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}

for text in sys.argv[1:]:
    encoded = tokenizer.encode({encoded})
    rows = [encoded{windows}]
    names = [given.name for given in session.get_inputs()]
    inputs = {{name: np.array([getattr(row, takes[name]) for row in rows]) for name in names}}
    logits = session.run(["logits"], inputs)[0].astype(float).mean(axis=0)
{answer}
'''

ANSWERS = {
    "softmax": """\
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    print(about["names"][probabilities.argmax()], f"{probabilities.max():.4f}", sep="\\t")""",
    "sigmoid": """\
    probabilities = 1 / (1 + np.exp(-logits))
    rows = zip(about["names"], probabilities, about["thresholds"])
    print(*(f"{name} {value:.4f}" for name, value, threshold in rows if value > threshold), sep="\\t")""",
    "number": """\
    print(f"{logits[0]:.4f}")""",
}
"""How `example.py` prints the answer, by `About.answer`."""


def write(model: evaluated.Model, folder: Path, run: Run, *, calibrate: Inputs | None) -> None:
    """Write the graph, the tokenizer, classifier.json and example.py.

    Args:
        calibrate: texts by which activations are scaled for weights in int8; None: all is in float32.

    Raises:
        PipelineError: the model cannot be written in ONNX.
    """
    tokenizer = pretrained(AutoTokenizer, model.adapter)
    save_tokenizer(tokenizer, folder, run.window_stride)
    save_model(load(model.adapter), tokenizer, folder / GRAPH)
    if calibrate is not None:
        save_graph(int8.quantized(folder / GRAPH, alone(tokenizer, calibrate)), folder / GRAPH)
    about = About(
        names=class_names(model),
        answer="number" if run.problem.numeric else "sigmoid" if run.problem.several_answers else "softmax",
        thresholds=run.thresholds,
        windows=run.window_stride is not None,
        precision="float32" if calibrate is None else "int8",
    )
    about.save(folder)
    files.write_text(folder / "example.py", example(about, pairs=len(run.columns) > 1))


def save_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write the model's graph, for batches of any size: with ONNX Runtime's fused operations, unless they change what
    the model computes.

    Raises:
        PipelineError: it has virtual tokens, or something that the exporter does not know.
    """
    if isinstance(model, PeftModel):
        raise PipelineError(
            f"{paths.ADAPTER}: expected an adapter that can be merged into the base model, found virtual tokens "
            f"({model.peft_type.value}), which are not exported to ONNX"
        )
    model.config.use_cache = False
    model = model.cpu().eval()
    sample = tokenizer.pad([tokenizer(text) for text in ROW_OF_ONE_AND_OF_TWO], return_tensors="pt")
    with torch.no_grad():
        expected = model(**sample).logits.numpy()
    for fusions in FUSIONS:
        save_graph(traced(model, dict(sample), fusions), path)
        (found,) = OnnxModel(path)({name: values.numpy() for name, values in sample.items()})
        if np.allclose(found, expected, rtol=1e-3, atol=1e-3):
            return


def traced(model: PreTrainedModel, sample: dict[str, torch.Tensor], fusions: str | None) -> onnx_ir.Model:
    """The model's graph.

    Args:
        sample: a batch; fusions: see `OnnxConfig.ort_fusions`.

    Raises:
        PipelineError: the model has something that the exporter does not know.
    """
    config = OnnxConfig(dynamic=True, ort_fusions=fusions)
    with torch.no_grad(), quiet():
        try:
            graph = OnnxExporter().export(model, sample, config=config).program
        except Exception as error:  # the exporter, torch's and onnxscript's have errors of their own
            found = shortened(" ".join(str(error).split()), 200)
            raise PipelineError(
                f"--onnx: expected a model that transformers can export, found {model.config.model_type}: {found}; "
                "export it without --onnx"
            ) from error
    ClearMetadataAndDocStringPass()(graph)  # they name the files of this machine
    return graph


@contextlib.contextmanager
def quiet():
    """Keep back what torch's exporter logs and prints."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def save_graph(graph: onnx_ir.Model, path: Path) -> None:
    """Write a graph; its weights are in a file of their own only if one file cannot hold them."""
    weights = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
    fresh, further = path.with_suffix(".fresh"), path.with_name(f"{path.name}.data")
    if weights > MOST_IN_ONE_FILE:
        onnx_ir.save(graph, fresh, external_data=further.name)
    else:
        onnx_ir.save(onnx_ir.external_data.load_to_model(graph), fresh)
        further.unlink(missing_ok=True)
    fresh.replace(path)  # from which the graph may have read its weights


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, stride: int | None) -> None:
    """Write the tokenizer, with its truncation and padding in tokenizer.json."""
    tokenizer.save_pretrained(folder)
    path = str(folder / "tokenizer.json")
    backend = Tokenizer.from_file(path)
    backend.enable_truncation(tokenizer.model_max_length, stride=stride or 0, direction=tokenizer.truncation_side)
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    backend.save(path)


def alone(tokenizer: PreTrainedTokenizerBase, inputs: Inputs) -> list[dict[str, np.ndarray]]:
    """Each text or pair as a batch of its own, cut where it is long."""
    return [tokenizer.pad(tokenizer([given], truncation=True), return_tensors="np") for given in inputs]


def example(about: About, *, pairs: bool) -> str:
    """The content of example.py."""
    return EXAMPLE.format(
        texts="pairs of texts, each with a TAB between them" if pairs else "texts",
        arguments="$'A question.\\tAn answer.' …" if pairs else '"A text." …',
        encoded='*text.split("\\t")' if pairs else "text",
        windows=", *encoded.overflowing" if about.windows else "",
        answer=ANSWERS[about.answer],
    )
