"""evaluate: the tuned model on the test rows, and what it gained over each baseline.

    python -m stages.evaluate

Reads models/adapter, as anyone would load it, data/prepared, data/encoded and what `baseline` wrote. Writes
metrics/evaluate.json (the tuned model's scores and their 95 % intervals, and its gain in accuracy over each rival, with
interval and p-value), data/predictions/test.csv (text, label, probability, every rival's answer) and metrics/plots for
`dvc plots`: answers for the confusion matrices, curves, reliability, accuracy by length; and metrics/summary.png.
"""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from stages.common import classifier, errors, figure, output, paths, prefix, scoring, store
from stages.common.params import Params


def main() -> None:
    options = Params.load().evaluate
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "test", about)
    texts = pq.read_table(paths.PREPARED / "test.parquet")["text"].to_pylist()
    rivals = {name: np.stack(column) for name, column in pd.read_parquet(paths.BASELINE_PREDICTIONS).items()}

    probabilities = rivals | {"tuned": tuned(rows, about, options.batch_size)}
    metrics = measure(rows.labels, probabilities["tuned"], rivals, about.class_names, options.resamples)
    table = answers(rows.labels, probabilities, about.class_names)

    with output.replacing(paths.EVALUATE_PLOTS) as folder:
        table.to_csv(folder / "answers.csv", index=False)
        by_length(table, rows.lengths).to_csv(folder / "length.csv")
        for name, values in probabilities.items():
            for curve, points in scoring.curves(rows.labels, values, options.curve_points).items():
                pd.DataFrame(points).to_csv(folder / f"{curve}_{name}.csv", index=False)
    table.insert(0, "text", texts)
    table.insert(3, "probability", probabilities["tuned"].max(axis=1))
    output.write_text(paths.TEST_PREDICTIONS, table.to_csv(index=False))
    output.write_bytes(paths.SUMMARY, figure.summary(rows.labels, probabilities, about.class_names))
    output.write_json(paths.EVALUATE_METRICS, metrics)


def tuned(rows: store.Rows, about: store.About, batch_size: int) -> np.ndarray:
    """The saved adapter's probabilities, (rows, classes)."""
    model = classifier.load_adapter(paths.ADAPTER)
    prefix.splice(model, about.depth)
    return scoring.softmax(classifier.logits(model, rows, batch_size=batch_size, progress="evaluate, test rows"))


def measure(
    labels: np.ndarray, tuned: np.ndarray, rivals: dict[str, np.ndarray], class_names: list[str], resamples: int
) -> dict[str, float | dict]:
    """The tuned model's scores with their intervals, by class too, and its gain over each rival and the strongest."""
    compared = {name: scoring.gain(labels, tuned, rival, resamples) for name, rival in rivals.items()}
    compared["strongest_rival"] = min(compared.values(), key=lambda values: values["gain"])
    return {
        **scoring.score(labels, tuned),
        "classes": scoring.class_scores(labels, tuned, class_names),
        "interval": scoring.intervals(labels, tuned, resamples),
        **{
            key: {name: values[key] for name, values in compared.items()}
            for key in ("gain", "gain_low", "gain_high", "p_value")
        },
    }


def answers(labels: np.ndarray, probabilities: dict[str, np.ndarray], class_names: list[str]) -> pd.DataFrame:
    """The true class and every model's answer, by name: the tuned model's first."""
    names = np.asarray(class_names)
    first = {"label": names[labels], "tuned": names[probabilities["tuned"].argmax(axis=1)]}
    return pd.DataFrame(first | {rival: names[values.argmax(axis=1)] for rival, values in probabilities.items()})


def by_length(answers: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """Every model's accuracy on fifths of the rows by length; `tokens` is the longest row of each."""
    right = answers.drop(columns="label").eq(answers["label"], axis=0).assign(tokens=lengths)
    fifths = right.groupby(pd.qcut(lengths, 5, duplicates="drop"), observed=True)
    return fifths.mean().assign(rows=fifths.size(), tokens=fifths["tokens"].max()).set_index("tokens")


if __name__ == "__main__":
    errors.run(main)
