"""evaluate: the tuned model on the test rows, and what it gained over each baseline.

    python -m stages.evaluate

Reads models/adapter, as anyone would load it, data/prepared, data/encoded and what `baseline` wrote. Writes
metrics/evaluate.json (the tuned model's scores, and its accuracy minus each rival's), data/predictions/test.csv (text,
label, probability, every rival's answer) and metrics/plots for `dvc plots`: answers for the confusion matrices, ROC and
precision-recall curves.
"""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from stages.common import classifier, errors, output, paths, prefix, scoring, store
from stages.common.params import Params


def main() -> None:
    options = Params.load().evaluate
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "test", about)
    texts = pq.read_table(paths.PREPARED / "test.parquet")["text"].to_pylist()
    rivals = {name: np.stack(column) for name, column in pd.read_parquet(paths.BASELINE_PREDICTIONS).items()}
    baseline = json.loads(paths.BASELINE_METRICS.read_text())

    probabilities = rivals | {"tuned": tuned(rows, about, options.batch_size)}
    scores = scoring.score(rows.labels, probabilities["tuned"])
    table = answers(rows.labels, probabilities, about.class_names)

    with output.replacing(paths.EVALUATE_PLOTS) as folder:
        table.to_csv(folder / "answers.csv", index=False)
        for name, values in probabilities.items():
            roc = scoring.roc_points(rows.labels, values, options.curve_points)
            precision_recall = scoring.precision_recall_points(rows.labels, values, options.curve_points)
            pd.DataFrame(roc).to_csv(folder / f"roc_{name}.csv", index=False)
            pd.DataFrame(precision_recall).to_csv(folder / f"precision_recall_{name}.csv", index=False)
    table.insert(0, "text", texts)
    table.insert(3, "probability", probabilities["tuned"].max(axis=1))
    output.write_text(paths.TEST_PREDICTIONS, table.to_csv(index=False))
    output.write_json(paths.EVALUATE_METRICS, scores | {"gain": gains(scores["accuracy"], baseline)})


def tuned(rows: store.Rows, about: store.About, batch_size: int) -> np.ndarray:
    """The saved adapter's probabilities, (rows, classes)."""
    model = classifier.load_adapter(paths.ADAPTER)
    prefix.splice(model, about.depth)
    return scoring.softmax(classifier.logits(model, rows, batch_size=batch_size, progress="evaluate, test rows"))


def answers(labels: np.ndarray, probabilities: dict[str, np.ndarray], class_names: list[str]) -> pd.DataFrame:
    """The true class and every model's answer, by name: the tuned model's first."""
    names = np.asarray(class_names)
    first = {"label": names[labels], "tuned": names[probabilities["tuned"].argmax(axis=1)]}
    return pd.DataFrame(first | {rival: names[values.argmax(axis=1)] for rival, values in probabilities.items()})


def gains(accuracy: float, baseline: dict[str, dict[str, float]]) -> dict[str, float]:
    """The tuned model's accuracy minus each rival's, and minus the strongest's."""
    gain = {name: accuracy - scores["accuracy"] for name, scores in baseline.items()}
    return gain | {"strongest_rival": min(gain.values())}


if __name__ == "__main__":
    errors.run(main)
