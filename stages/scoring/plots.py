"""The tables of metrics/plots, one for each chart of `dvc plots` and the report's figure."""

from typing import Any

import numpy as np
import pandas as pd

from stages.common.rivals import LINEAR_PROBE, TUNED, TUNED_UNCALIBRATED, UNTRAINED, ZERO_SHOT, bag
from stages.common.texts import script_safe
from stages.problems.main_score import MainScore
from stages.scoring.scored import ScoredProblem

COLUMNS = {
    "confusion": ("model", "label", "answer", "rows"),
    "numbers": ("model", "label", "answer"),
    "roc": ("model", "false_positive_rate", "true_positive_rate"),
    "precision_recall": ("model", "recall", "precision"),
    "reliability": ("model", "confidence", "accuracy", "rows"),
    "risk_coverage": ("model", "coverage", "risk"),
    "error_characteristic": ("model", "error", "rows_within"),
    "by_class": ("model", "class", "f1"),
    "length": ("model", "tokens", "rows", "score"),
    "errors": ("model", "tokens", "rows"),
}
"""The columns of each table. Every run writes every table: `dvc plots` draws nothing for one without rows, but warns if
its file is missing."""

ALL_ROWS = "all rows"
"""In place of a model in the table `errors`: the rows, whatever the answer."""

HISTOGRAM_BINS = 20


def tables(
    problem: ScoredProblem,
    main: MainScore,
    labels: np.ndarray,
    predictions: dict[str, Any],
    *,
    uncalibrated: Any,
    lengths: np.ndarray,
    names: list[str],
    most: int,
) -> dict[str, pd.DataFrame]:
    """Every table, by its name; those that the problem has no use for have no rows.

    Args:
        labels: of the rows; predictions: every model's, by the model's name; uncalibrated: the tuned model's without
            temperature scaling; lengths: of the texts in tokens, (rows,); names: of the classes.
        most: the number of points of a curve, at most.
    """
    names = list(map(script_safe, names))
    shown = {name: predictions[name] for name in drawn(predictions)}
    answers = {name: problem.answers(shown[name], names) for name in shown if name != bag(shown)}
    found = curves(problem, labels, shown, most)
    before = problem.curves(labels, uncalibrated, most).get("reliability", [])
    found["reliability"] = found.get("reliability", []) + series(TUNED_UNCALIBRATED, before)
    found |= problem.answer_tables(problem.truth(labels, names), answers)
    found |= {
        "by_class": by_class(problem, labels, shown, names),
        "length": by_length(main, labels, shown, lengths),
        "errors": errors_by_length(problem, labels, shown, lengths),
    }
    return {name: pd.DataFrame(found.get(name, []), columns=columns) for name, columns in COLUMNS.items()}


def drawn(predictions: dict[str, Any]) -> tuple[str, ...]:
    """The models that are drawn: of all rivals one without a model, the model before tuning and the linear probe."""
    return (bag(predictions), ZERO_SHOT if ZERO_SHOT in predictions else UNTRAINED, LINEAR_PROBE, TUNED)


def curves(problem: ScoredProblem, labels: np.ndarray, predictions: dict[str, Any], most: int) -> dict[str, list[dict]]:
    """The points of every model's curves, by the name of the curve."""
    found: dict[str, list[dict]] = {}
    for model, values in predictions.items():
        for name, points in problem.curves(labels, values, most).items():
            found.setdefault(name, []).extend(series(model, points))
    return found


def series(model: str, points: list[dict]) -> list[dict]:
    """A curve's points with the model's name; none if there is one alone, which is no curve."""
    return [{"model": model} | point for point in points] if len(points) > 1 else []


def by_class(problem: ScoredProblem, labels: np.ndarray, predictions: dict[str, Any], names: list[str]) -> list[dict]:
    """Every model's F1 of each class or label; nothing for regression."""
    return [
        {"model": model, "class": name, "f1": scores["f1"]}
        for model, values in predictions.items()
        for name, scores in problem.class_scores(labels, values, names).items()
    ]


def by_length(main: MainScore, labels: np.ndarray, predictions: dict[str, Any], lengths: np.ndarray) -> list[dict]:
    """Every model's main score in each fifth of the rows by length; `tokens` is the length of its longest row."""
    fifth = np.searchsorted(np.unique(np.quantile(lengths, np.arange(1, 6) / 5)), lengths)
    parts = [np.flatnonzero(fifth == number) for number in np.unique(fifth)]
    return [
        {"model": model, "tokens": lengths[rows].max(), "rows": len(rows), "score": main.value(labels[rows], of[rows])}
        for model, of in predictions.items()
        for rows in parts
    ]


def errors_by_length(
    problem: ScoredProblem, labels: np.ndarray, predictions: dict[str, Any], lengths: np.ndarray
) -> list[dict]:
    """A histogram of the rows, and of every model's errors, by length; `tokens` is the upper edge of each bin."""
    edges = np.unique(np.linspace(lengths.min() - 1, lengths.max(), HISTOGRAM_BINS + 1).round().astype(int))
    counted = {model: problem.row_errors(labels, values).astype(float) for model, values in predictions.items()}
    counted[ALL_ROWS] = np.ones(len(labels))
    return [
        {"model": model, "tokens": edge, "rows": float(count)}
        for model, weights in counted.items()
        for edge, count in zip(edges[1:], np.histogram(lengths, edges + 0.5, weights=weights)[0], strict=True)
    ]
