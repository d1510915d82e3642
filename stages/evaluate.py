"""evaluate: the tuned model on the test rows, and what it gained over each baseline.

    python -m stages.evaluate

Reads models/adapter, as anyone would load it, data/prepared, data/encoded and what `baseline` wrote. Writes
metrics/evaluate.json (the tuned model's scores and their 95 % intervals, and its gain over each rival in the main
score, with interval and p-value), data/predictions/test.csv (text, label, probability, every rival's answer) and
metrics/plots for `dvc plots`: answers for the confusion matrices, curves, reliability, score and errors by length; and
metrics/summary.png.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from stages.adapters import methods as adapters
from stages.backbone import prefix, store
from stages.classifier import model as classifier
from stages.common import errors, files, paths, texts
from stages.params import Params
from stages.reporting import figure
from stages.scoring import significance as scoring
from stages.scoring.problem import Problem
from stages.scoring.problems import PROBLEMS

HISTOGRAM_BINS = 20


def main() -> None:
    options = Params.load().evaluate
    about = store.About.load(paths.ENCODED)
    problem, names = PROBLEMS[about.problem], about.class_names
    rows = store.load_rows(paths.ENCODED / "test", about)
    labels = rows.text_labels
    given = pd.read_parquet(paths.PREPARED / "test.parquet").filter(texts.COLUMNS)
    rivals = {name: np.stack(column) for name, column in pd.read_parquet(paths.BASELINE_PREDICTIONS).items()}

    made = json.loads((paths.ADAPTER / "run.json").read_text())
    logits, fitted = tuned(rows, made["depth"], options.batch_size), made["metrics"]
    thresholds = list(fitted.get("thresholds", {}).values())
    predictions = rivals | {"tuned": problem.decide(problem.predictions(logits), thresholds)}
    # as they were before the temperature was divided out of the head
    before = problem.decide(problem.predictions(logits * fitted.get("temperature", 1)), thresholds)
    metrics = measure(problem, labels, predictions["tuned"], before, rivals, names, options.resamples)
    curves = {name: problem.curves(labels, values, options.curve_points) for name, values in predictions.items()}
    uncalibrated = problem.curves(labels, before, options.curve_points)
    curves["tuned_uncalibrated"] = {kind: points for kind, points in uncalibrated.items() if kind == "reliability"}
    table = answers(problem, labels, predictions, names)

    save_plots(problem, table, row_scores(problem, labels, predictions), rows.text_lengths, curves)
    files.write_bytes(paths.SUMMARY, figure.summary(about.problem, labels, predictions, curves, names))
    for column, values in problem.confidence(predictions["tuned"]).items():
        table.insert(2, column, values)
    files.write_text(paths.TEST_PREDICTIONS, given.join(table).to_csv(index=False))
    files.write_json(paths.EVALUATE_METRICS, metrics)


def tuned(rows: store.Rows, depth: int, batch_size: int) -> np.ndarray:
    """The saved adapter's logits, (texts, outputs), from the depth that it was trained from."""
    model = adapters.load(paths.ADAPTER)
    prefix.splice(model, depth)
    if not depth:
        rows = replace(rows, states=None)
    return rows.pooled(classifier.logits(model, rows, batch_size=batch_size, progress="evaluate, test rows"))


def measure(
    problem: Problem,
    labels: np.ndarray,
    tuned: np.ndarray,
    uncalibrated: np.ndarray,
    rivals: dict[str, np.ndarray],
    class_names: list[str],
    resamples: int,
) -> dict[str, float | dict]:
    """The tuned model's scores with their intervals, by class too, and its gain over each rival and the strongest.

    Args:
        labels: of the rows; tuned, uncalibrated, and each of rivals: predictions for them.
    """
    compared = {name: scoring.gain(problem, labels, tuned, rival, resamples) for name, rival in rivals.items()}
    compared["strongest_rival"] = min(compared.values(), key=lambda values: values["gain"])
    parts = {
        "classes": problem.class_scores(labels, tuned, class_names),
        "interval": scoring.intervals(problem, labels, tuned, resamples),
        "uncalibrated": {
            name: value
            for name, value in scoring.score(problem, labels, uncalibrated).items()
            if name in ("log_loss", "brier", "calibration_error")
        },
    }
    return {
        **scoring.score(problem, labels, tuned),
        **{name: part for name, part in parts.items() if part},
        **{
            key: {name: values[key] for name, values in compared.items()}
            for key in ("gain", "gain_low", "gain_high", "p_value")
        },
    }


def answers(
    problem: Problem, labels: np.ndarray, predictions: dict[str, np.ndarray], class_names: list[str]
) -> pd.DataFrame:
    """The true answer and every model's, as people read them: the tuned model's first."""
    told = {name: problem.answers(values, class_names) for name, values in predictions.items()}
    return pd.DataFrame({"label": problem.truth(labels, class_names), "tuned": told["tuned"]} | told)


def row_scores(problem: Problem, labels: np.ndarray, predictions: dict[str, np.ndarray]) -> pd.DataFrame:
    """How good every model's answer is, row by row: the tuned model's first."""
    scores = {name: problem.row_scores(labels, values) for name, values in predictions.items()}
    return pd.DataFrame({"tuned": scores["tuned"]} | scores)


def save_plots(
    problem: Problem, answers: pd.DataFrame, scores: pd.DataFrame, lengths: np.ndarray, curves: dict[str, dict]
) -> None:
    """Write metrics/plots."""
    with files.replacing(paths.EVALUATE_PLOTS) as folder:
        answers.to_csv(folder / f"{problem.ANSWERS}.csv", index=False)
        by_length(problem.MAIN.sign * scores, lengths).to_csv(folder / "length.csv")
        errors_by_length(problem.MAIN.shortfall(scores), lengths).to_csv(folder / "errors.csv")
        for name, kinds in curves.items():
            for kind, points in kinds.items():
                pd.DataFrame(points).to_csv(folder / f"{kind}_{name}.csv", index=False)


def by_length(scores: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """Every model's main score on fifths of the rows by length; `tokens` is the longest row of each."""
    longest = np.unique(np.quantile(lengths, np.arange(1, 6) / 5))
    fifths = scores.assign(tokens=lengths).groupby(np.searchsorted(longest, lengths))
    return fifths.mean().assign(rows=fifths.size(), tokens=fifths["tokens"].max()).set_index("tokens")


def errors_by_length(errors: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """A histogram of the rows, and of every model's errors, by length; `tokens` is the upper edge of each bin."""
    edges = np.unique(np.linspace(lengths.min() - 1, lengths.max(), HISTOGRAM_BINS + 1).round().astype(int))
    bins = pd.cut(lengths, edges, labels=edges[1:])
    summed = errors.groupby(bins, observed=False)
    return summed.sum().assign(rows=summed.size()).rename_axis("tokens")


if __name__ == "__main__":
    errors.run(main)
