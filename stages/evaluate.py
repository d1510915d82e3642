"""evaluate: the tuned model on the test rows, and what it gained over each baseline.

    python -m stages.evaluate

Reads models/adapter, as anyone would load it, data/prepared, data/encoded and what `baseline` wrote. Writes
metrics/evaluate.json (the tuned model's scores and their 95 % intervals, and its gain in accuracy over each rival, with
interval and p-value), data/predictions/test.csv (text, label, probability, every rival's answer) and metrics/plots for
`dvc plots`: answers for the confusion matrices, curves, reliability, accuracy and errors by length; and
metrics/summary.png.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from stages.common import classifier, errors, figure, output, paths, prefix, scoring, store, texts
from stages.common.params import Params

HISTOGRAM_BINS = 20


def main() -> None:
    options = Params.load().evaluate
    about = store.About.load(paths.ENCODED)
    rows = store.load_rows(paths.ENCODED / "test", about)
    given = pd.read_parquet(paths.PREPARED / "test.parquet").filter(texts.COLUMNS)
    rivals = {name: np.stack(column) for name, column in pd.read_parquet(paths.BASELINE_PREDICTIONS).items()}

    made = json.loads((paths.ADAPTER / "run.json").read_text())
    logits = tuned(rows, made["depth"], options.batch_size)
    probabilities = rivals | {"tuned": scoring.softmax(logits)}
    # as they were before the temperature was divided out of the head
    before = scoring.softmax(logits * made["metrics"]["temperature"])
    metrics = measure(rows.labels, probabilities["tuned"], before, rivals, about.class_names, options.resamples)
    curves = {name: scoring.curves(rows.labels, rival, options.curve_points) for name, rival in probabilities.items()}
    curves["tuned_uncalibrated"] = {"reliability": scoring.reliability_points(rows.labels, before)}
    table = answers(rows.labels, probabilities, about.class_names)

    save_plots(table, rows.lengths, curves)
    output.write_bytes(paths.SUMMARY, figure.summary(rows.labels, probabilities, curves, about.class_names))
    table.insert(2, "probability", probabilities["tuned"].max(axis=1))
    output.write_text(paths.TEST_PREDICTIONS, given.join(table).to_csv(index=False))
    output.write_json(paths.EVALUATE_METRICS, metrics)


def tuned(rows: store.Rows, depth: int, batch_size: int) -> np.ndarray:
    """The saved adapter's logits, (rows, classes), from the depth that it was trained from."""
    model = classifier.load_adapter(paths.ADAPTER)
    prefix.splice(model, depth)
    if not depth:
        rows = replace(rows, states=None)
    return classifier.logits(model, rows, batch_size=batch_size, progress="evaluate, test rows")


def measure(
    labels: np.ndarray,
    tuned: np.ndarray,
    uncalibrated: np.ndarray,
    rivals: dict[str, np.ndarray],
    class_names: list[str],
    resamples: int,
) -> dict[str, float | dict]:
    """The tuned model's scores with their intervals, by class too, and its gain over each rival and the strongest.

    Args:
        labels: (rows,).
        tuned, uncalibrated, and each of rivals: probabilities, (rows, classes).
    """
    compared = {name: scoring.gain(labels, tuned, rival, resamples) for name, rival in rivals.items()}
    compared["strongest_rival"] = min(compared.values(), key=lambda values: values["gain"])
    return {
        **scoring.score(labels, tuned),
        "classes": scoring.class_scores(labels, tuned, class_names),
        "interval": scoring.intervals(labels, tuned, resamples),
        "uncalibrated": {
            name: value
            for name, value in scoring.score(labels, uncalibrated).items()
            if name in ("log_loss", "brier", "calibration_error")
        },
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


def save_plots(answers: pd.DataFrame, lengths: np.ndarray, curves: dict[str, dict[str, list]]) -> None:
    """Write metrics/plots."""
    with output.replacing(paths.EVALUATE_PLOTS) as folder:
        answers.to_csv(folder / "answers.csv", index=False)
        by_length(answers, lengths).to_csv(folder / "length.csv")
        errors_by_length(answers, lengths).to_csv(folder / "errors.csv")
        for name, kinds in curves.items():
            for kind, points in kinds.items():
                pd.DataFrame(points).to_csv(folder / f"{kind}_{name}.csv", index=False)


def by_length(answers: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """Every model's accuracy on fifths of the rows by length; `tokens` is the longest row of each."""
    right = answers.drop(columns="label").eq(answers["label"], axis=0).assign(tokens=lengths)
    fifths = right.groupby(pd.qcut(lengths, 5, duplicates="drop"), observed=True)
    return fifths.mean().assign(rows=fifths.size(), tokens=fifths["tokens"].max()).set_index("tokens")


def errors_by_length(answers: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """A histogram of the rows, and of every model's errors, by length; `tokens` is the upper edge of each bin."""
    edges = np.histogram_bin_edges(lengths, bins=HISTOGRAM_BINS)
    bins = pd.cut(lengths, edges, include_lowest=True, labels=edges[1:].round(1))
    wrong = answers.drop(columns="label").ne(answers["label"], axis=0).groupby(bins, observed=False)
    return wrong.sum().assign(rows=wrong.size()).rename_axis("tokens")


if __name__ == "__main__":
    errors.run(main)
