"""Rows per second of `stages.predict` and of transformers' pipeline, on the same adapter and texts.

    python -m benchmarks.inference

Reads models/base, models/adapter and data/prepared. The test texts are cut into three portions, which both classify
in turn, in memory, with loaded models. Prints one line of JSON: medians, and the share of texts with the same label.
"""

import json
import time
from statistics import median

import numpy as np
import pyarrow.parquet as pq
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

from stages.backbone.device import device
from stages.classifier.labels import load_labels
from stages.common import errors, paths
from stages.serving import evaluated
from stages.serving.answers import Classifier

PORTIONS = 3


def main() -> None:
    texts = pq.read_table(paths.PREPARED / "test.parquet")["text"].to_pylist()[:1000]
    tokenizer = AutoTokenizer.from_pretrained(paths.ADAPTER)
    tuned = Classifier.tuned(evaluated.Model())
    plain = AutoPeftModelForSequenceClassification.from_pretrained(paths.ADAPTER, **load_labels(paths.ADAPTER))
    plain_pipeline = pipeline("text-classification", model=plain, tokenizer=tokenizer, device=device())
    rates: dict[str, list[float]] = {"predict": [], "pipeline": []}
    same = 0
    for portion in np.array_split(np.asarray(texts, dtype=object), PORTIONS):
        start = time.perf_counter()
        ours = tuned.answers(list(portion))["label"].tolist()
        middle = time.perf_counter()
        theirs = [answer["label"] for answer in plain_pipeline(list(portion))]
        rates["predict"].append(len(portion) / (middle - start))
        rates["pipeline"].append(len(portion) / (time.perf_counter() - middle))
        same += sum(one == other for one, other in zip(ours, theirs, strict=True))
    medians = {name: median(values) for name, values in rates.items()}
    print(
        json.dumps(
            {"texts": len(texts), "rows_per_s": medians, "ratio": medians["predict"] / medians["pipeline"]}
            | {"same_label": same / len(texts)}
        )
    )


if __name__ == "__main__":
    errors.run_script(main, __doc__)
