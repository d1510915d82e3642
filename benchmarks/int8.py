"""Ways to put an exported model's weights into 8 bits, compared on the validation rows.

    python -m stages.export --onnx && python -m benchmarks.int8

Reads models/onnx, in float32, and data/prepared. Prints a line of JSON for each way: validation accuracy and log loss,
the share of the answers that are those in float32, megabytes, and rows per second of a core.

The ways: `float32`; `smoothed`, that of stages/exporting/int8.py; `tokens`, the same without smoothing; `dynamic`,
onnxruntime's `quantize_dynamic` with a scale for each output; `blocks`, onnxruntime's `MatMulNBits` in blocks of 32
weights with integer products.
"""

import json
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import onnx
import onnx_ir
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from transformers import AutoTokenizer

from stages.adapters.run import Run
from stages.backbone import base
from stages.common import errors, paths
from stages.common.texts import as_inputs
from stages.exporting import equivalence, int8, onnx_export
from stages.serving import answers
from stages.serving.onnx_model import GRAPH, About, OnnxModel


def main() -> None:
    base.quiet_transformers()
    run, about, rows = Run.load(paths.ONNX), About.load(paths.ONNX), equivalence.rows("validation")
    tokenizer = AutoTokenizer.from_pretrained(paths.ONNX)
    labels, expected = run.problem.array(rows["label"].tolist(), about.names), None
    for name, write in WAYS.items():
        with TemporaryDirectory() as scratch:
            path = Path(scratch, GRAPH)
            write(paths.ONNX / GRAPH, path, tokenizer)
            model, size = OnnxModel(path), path.stat().st_size
        start = time.process_time()
        logits = answers.logits(model, as_inputs(rows), tokenizer=tokenizer, stride=run.window_stride)
        rate = len(rows) / (time.process_time() - start)
        predictions = run.problem.decide(run.problem.outputs(logits), about.thresholds)
        found = run.problem.answers(predictions, about.names)
        expected = found if expected is None else expected
        scores = {key: run.problem.main_scores[key].value(labels, predictions) for key in (run.main.key, "log_loss")}
        rest = {"same_answers": float(np.mean(found == expected)), "MB": size / 1e6, "rows_per_core_s": rate}
        print(json.dumps({"way": name} | scores | rest), flush=True)


def copied(path: Path, new: Path, tokenizer) -> None:
    onnx.save(onnx.load(path), new)


def by_int8(path: Path, new: Path, tokenizer, *, smooth: bool) -> None:
    batches = onnx_export.alone(tokenizer, equivalence.calibration())
    factors = int8.smoothing if smooth else lambda largest, weights: np.ones(len(largest), dtype=np.float32)
    with mock.patch.object(int8, "smoothing", factors):
        onnx_ir.save(int8.quantized(path, batches), new)


def dynamic(path: Path, new: Path, tokenizer) -> None:
    model = onnx.load(path)
    del model.graph.value_info[:]  # it has shapes of weights, by which onnxruntime stumbles
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    with TemporaryDirectory() as scratch:
        onnx.save(model, f"{scratch}/{GRAPH}")
        ways = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
        quantize_dynamic(f"{scratch}/{GRAPH}", new, op_types_to_quantize=["MatMul"], extra_options=options, **ways)


def blocks(path: Path, new: Path, tokenizer) -> None:
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(new), False)


WAYS = {
    "float32": copied,
    "smoothed": partial(by_int8, smooth=True),
    "tokens": partial(by_int8, smooth=False),
    "dynamic": dynamic,
    "blocks": blocks,
}

if __name__ == "__main__":
    errors.run_script(main, __doc__)
