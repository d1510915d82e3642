"""Rows per second of `stages.predict` with the adapter and with its exports, on the same texts.

    python -m stages.export --onnx && python -m stages.export --onnx --int8 --output models/onnx-int8
    python -m benchmarks.onnx models/onnx models/onnx-int8 [--texts 1000]

Reads models/base, models/adapter, data/prepared and the folders. The test texts are cut into portions, which all models
classify in turn, in memory, loaded; then texts one by one. Prints one line of JSON: for each model the medians of rows
per second and per second of a core, and of the milliseconds for one text with their 95th percentile; for each folder
the ratio of its rows per second to the adapter's, the median over the portions, and the share of texts with the same
answer.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from stages.backbone import base
from stages.common import errors, paths
from stages.common.texts import as_inputs
from stages.serving import evaluated
from stages.serving.answers import Classifier, Inputs

PORTIONS = 5
ALONE = 20
"""How many texts are classified one by one."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx")
    parser.add_argument("folders", nargs="+", type=Path, help="what stages.export wrote")
    parser.add_argument("--texts", type=int, default=1000, help="how many test texts (default: %(default)s)")
    options = parser.parse_args()
    base.quiet_transformers()
    inputs = as_inputs(pd.read_parquet(paths.PREPARED / "test.parquet").head(options.texts))
    models = {"adapter": Classifier.tuned(evaluated.Model())}
    for folder in options.folders:
        with evaluated.model(folder) as model:
            models[str(folder)] = Classifier.tuned(model)
    print(json.dumps(compared(models, inputs)))


def compared(models: dict[str, Classifier], inputs: Inputs) -> dict:
    """What the module's docstring says of models, of which the first is the adapter."""
    rates, of_cores, alone, answers = ({name: [] for name in models} for _ in range(4))
    for portion in np.array_split(np.arange(len(inputs)), PORTIONS):
        texts = [inputs[index] for index in portion]
        for name, model in models.items():
            start, used = time.perf_counter(), time.process_time()
            answers[name] += model.answers(texts).iloc[:, 0].tolist()
            rates[name].append(len(texts) / (time.perf_counter() - start))
            of_cores[name].append(len(texts) / (time.process_time() - used))
    for text in inputs[:ALONE]:
        for name, model in models.items():
            start = time.perf_counter()
            model.answers([text])
            alone[name].append(1e3 * (time.perf_counter() - start))
    adapter = next(iter(models))
    return {"texts": len(inputs)} | {
        name: {
            "rows_per_s": median(rates[name]),
            "rows_per_core_s": median(of_cores[name]),
            "ms_for_one": median(alone[name]),
            "ms_for_one_p95": float(np.quantile(alone[name], 0.95)),
            "ratio": median(np.divide(rates[name], rates[adapter])),
            "ratio_of_cores": median(np.divide(of_cores[name], of_cores[adapter])),
            "same_answers": float(np.mean(np.equal(answers[name], answers[adapter]))),
        }
        for name in models
    }


if __name__ == "__main__":
    errors.run(main)
