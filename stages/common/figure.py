"""The summary figure: all models on the test rows at one glance."""

import io

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from sklearn.metrics import ConfusionMatrixDisplay

from stages.common import scoring

matplotlib.use("Agg")

DRAWN = ("zero_shot", "linear_probe", "tuned")
"""The models whose curves are drawn: before tuning, the strongest use of the frozen model, and after."""


def summary(
    labels: np.ndarray, probabilities: dict[str, np.ndarray], curves: dict[str, dict], class_names: list[str]
) -> bytes:
    """Accuracies with intervals, ROC curves, reliability before and after, and the tuned model's confusions, as PNG.

    Args:
        labels: (rows,).
        probabilities: of every model by name, (rows, classes) each; one is `tuned`.
        curves: what `scoring.curves` gives for each.
    """
    figure, ((accuracy, roc), (reliability, confusion)) = pyplot.subplots(2, 2, figsize=(10, 8), layout="constrained")
    draw_accuracies(accuracy, labels, probabilities)
    for name in DRAWN:
        if name in probabilities:
            draw_curve(roc, curves[name]["roc"], "false_positive_rate", "true_positive_rate", label=name)
            draw_curve(reliability, curves[name]["reliability"], "confidence", "accuracy", label=name, marker="o")
    reliability.axline((1, 1), slope=1, color="grey", linestyle=":")
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    reliability.set(title="Reliability", xlabel="probability of the answer", ylabel="share of right answers")
    roc.legend()
    reliability.legend()
    answers = probabilities["tuned"].argmax(axis=1)
    ConfusionMatrixDisplay.from_predictions(
        labels, answers, labels=range(len(class_names)), display_labels=class_names, ax=confusion, colorbar=False
    )
    confusion.set_title("Tuned model")
    content = io.BytesIO()
    figure.savefig(content, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    return content.getvalue()


def draw_accuracies(axes: Axes, labels: np.ndarray, probabilities: dict[str, np.ndarray]) -> None:
    """A bar for each model, the most accurate on top, with its 95 % interval."""
    accuracies = {name: scoring.correct(labels, values).mean() for name, values in probabilities.items()}
    names = sorted(accuracies, key=accuracies.__getitem__)
    values = np.array([accuracies[name] for name in names])
    intervals = [scoring.accuracy_interval(labels, probabilities[name]) for name in names]
    errors = [
        values - [interval["low"] for interval in intervals],
        [interval["high"] for interval in intervals] - values,
    ]
    axes.barh(names, values, xerr=np.abs(errors), color=["C2" if name == "tuned" else "C0" for name in names])
    axes.set(title="Accuracy on the test rows, 95 % intervals", xlim=(0, 1))


def draw_curve(axes: Axes, points: list[dict[str, float]], x: str, y: str, **style: str) -> None:
    """One curve through the points."""
    axes.plot([point[x] for point in points], [point[y] for point in points], **style)
