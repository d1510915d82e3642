"""The summary figure: all models on the test rows at one glance."""

import io
from functools import partial

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from sklearn.metrics import ConfusionMatrixDisplay

from stages.scoring import multi_label
from stages.scoring import significance as scoring
from stages.scoring.problem import Problem
from stages.scoring.problems import PROBLEMS

matplotlib.use("Agg")

DRAWN = ("zero_shot", "linear_probe", "tuned")
"""The models whose curves are drawn: before tuning, the strongest use of the frozen model, and after."""


def summary(
    problem: str,
    labels: np.ndarray,
    predictions: dict[str, np.ndarray],
    curves: dict[str, dict],
    class_names: list[str],
) -> bytes:
    """The main score with intervals, and three drawings that suit the problem, as PNG.

    Args:
        labels: of the rows.
        predictions: of every model by name; one is `tuned`.
        curves: the problem's, for each.
    """
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 8), layout="constrained")
    draw_scores(axes[0, 0], PROBLEMS[problem], labels, predictions)
    for place, draw in zip(axes.flat[1:], DRAWINGS[problem], strict=True):
        draw(place, labels=labels, predictions=predictions, curves=curves, class_names=class_names)
    content = io.BytesIO()
    figure.savefig(content, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    return content.getvalue()


def draw_scores(axes: Axes, problem: Problem, labels: np.ndarray, predictions: dict[str, np.ndarray]) -> None:
    """A bar for each model, the best on top, with its 95 % interval."""
    means = {name: problem.row_scores(labels, values).mean() for name, values in predictions.items()}
    names = sorted(means, key=means.__getitem__)
    values = problem.MAIN.sign * np.array([means[name] for name in names])
    intervals = [scoring.main_interval(problem, labels, predictions[name]) for name in names]
    errors = [
        values - [interval["low"] for interval in intervals],
        [interval["high"] for interval in intervals] - values,
    ]
    axes.barh(names, values, xerr=np.abs(errors), color=["C2" if name == "tuned" else "C0" for name in names])
    title = problem.MAIN.name[0].upper() + problem.MAIN.name[1:]
    axes.set(title=f"{title} on the test rows, 95 % intervals", xlim=(0, 1) if problem.MAIN.sign > 0 else None)


def draw_roc(axes: Axes, curves: dict[str, dict], **_: object) -> None:
    """The ROC curves."""
    draw_curves(axes, curves, "roc", "false_positive_rate", "true_positive_rate")
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")


def draw_reliability(axes: Axes, curves: dict[str, dict], **_: object) -> None:
    """The reliability diagrams, with the diagonal."""
    draw_curves(axes, curves, "reliability", "confidence", "accuracy", marker="o")
    axes.axline((1, 1), slope=1, color="grey", linestyle=":")
    axes.set(title="Reliability", xlabel="probability of the answer", ylabel="share of right answers")


def draw_errors(axes: Axes, curves: dict[str, dict], **_: object) -> None:
    """The share of rows within every error."""
    draw_curves(axes, curves, "error_characteristic", "error", "rows_within")
    axes.set(title="Error", xlabel="absolute error, up to", ylabel="share of rows", xlim=(0, None))


def draw_curves(axes: Axes, curves: dict[str, dict], kind: str, x: str, y: str, **style: str) -> None:
    """One kind of curve of the models in `DRAWN`."""
    for name in DRAWN:
        if name in curves:
            points = curves[name][kind]
            axes.plot([point[x] for point in points], [point[y] for point in points], label=name, **style)
    axes.legend()


def draw_confusion(
    axes: Axes, labels: np.ndarray, predictions: dict[str, np.ndarray], class_names: list[str], **_: object
) -> None:
    """The tuned model's confusions."""
    answers = predictions["tuned"].argmax(axis=1)
    ConfusionMatrixDisplay.from_predictions(
        labels, answers, labels=range(len(class_names)), display_labels=class_names, ax=axes, colorbar=False
    )
    axes.set_title("Tuned model")


def draw_labels(
    axes: Axes, labels: np.ndarray, predictions: dict[str, np.ndarray], class_names: list[str], **_: object
) -> None:
    """The F1 of every label, of the models in `DRAWN`."""
    for name in DRAWN:
        if name in predictions:
            scores = multi_label.class_scores(labels, predictions[name], class_names)
            axes.plot([score["f1"] for score in scores.values()], class_names, "o", label=name)
    axes.set(title="F1 by label", xlabel="F1", xlim=(0, 1))
    axes.legend()


def draw_numbers(axes: Axes, labels: np.ndarray, predictions: dict[str, np.ndarray], model: str, **_: object) -> None:
    """A model's numbers against the true ones, with the diagonal."""
    axes.scatter(labels, predictions[model], s=8, alpha=0.5)
    axes.axline((labels.mean(), labels.mean()), slope=1, color="grey", linestyle=":")
    axes.set(title=model, xlabel="true", ylabel="predicted")


DRAWINGS = {
    "single_label": (draw_roc, draw_reliability, draw_confusion),
    "multi_label": (draw_roc, draw_reliability, draw_labels),
    "regression": (draw_errors, partial(draw_numbers, model="linear_probe"), partial(draw_numbers, model="tuned")),
}
