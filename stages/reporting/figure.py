"""The summary figure: all models on the test rows at a glance. Nothing is computed: metrics and plots are drawn."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.common import files
from stages.common.rivals import LINEAR_PROBE, TUNED, UNTRAINED, ZERO_SHOT
from stages.common.texts import printable, script_safe, shortened
from stages.problems.main_score import MainScore
from stages.problems.problem import Problem
from stages.reporting.wording import METRICS

COLORS = {ZERO_SHOT: "C0", UNTRAINED: "C0", LINEAR_PROBE: "C1", TUNED: "C2"}
"""The models whose curves are drawn, before tuning, the strongest use of the frozen model, and after; each has the same
color everywhere."""

MOST_COUNTS = 12
"""Maximum number of classes for which the cells of a confusion matrix have room for their counts."""

MOST_NAMES = 40
"""Maximum number of classes whose names have room at an axis."""

LONGEST_NAME = 30
"""How many characters of a class's name are drawn; longer ones leave a drawing no room."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One part of the figure."""

    caption: str
    draw: Callable[[Axes], None]


@contextmanager
def as_written() -> Iterator[None]:
    """Text is drawn as it is written: no formula between dollar signs. Of a character that the font does not have
    matplotlib draws a symbol of its script, and warns; that is no news to whoever runs a stage."""
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@as_written()
def summary(problem: Problem, main: MainScore, *, baseline: dict, tuned: dict, plots: Path) -> tuple[bytes, str]:
    """The main scores with their intervals, and up to three further drawings that have files, as PNG; and the caption.

    Args:
        baseline: metrics/baseline.json; tuned: metrics/evaluate.json.
        plots: the folder metrics/plots.
    """
    scores = baseline | {TUNED: tuned}
    parts = [
        Drawing(
            caption=f"{capitalized(METRICS[main.key].name)} with 95 % intervals",
            draw=partial(draw_scores, scores=scores, main=main),
        ),
        *further_drawings(problem, class_names=list(map(script_safe, tuned.get("classes", {}))), plots=plots),
    ][:4]
    figure = Figure(figsize=(10, 8), layout="constrained")
    places = figure.subplots(2, 2).ravel()
    for place, part in zip(places, parts, strict=False):
        part.draw(place)
    for place in places[len(parts) :]:
        place.set_axis_off()
    *captions, last = (part.caption for part in parts)
    caption = f"{', '.join(captions)} and {last}" if captions else last
    return as_png(figure), f"{caption}; {TUNED} is the kept adapter alone" if "seeds" in tuned else caption


def as_png(figure: Figure, **options: str) -> bytes:
    """The same bytes for the same figure: without the version of the program that drew it.

    Args:
        options: of `savefig`.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None}, **options)
    return content.getvalue()


def further_drawings(problem: Problem, *, class_names: list[str], plots: Path) -> Iterator[Drawing]:
    """The drawings that suit the problem and have a file in `plots`."""
    if curves := curves_of("roc", plots):
        yield Drawing(caption="ROC", draw=partial(draw_roc, curves=curves))
    if curves := curves_of("reliability", plots):
        yield Drawing(caption="reliability", draw=partial(draw_reliability, curves=curves))
    if curves := curves_of("error_characteristic", plots):
        yield Drawing(caption="error curves", draw=partial(draw_errors, curves=curves))
    for name, numbers in curves_of("numbers", plots).items():
        if name in (LINEAR_PROBE, TUNED):
            draw = partial(draw_numbers, labels=numbers["label"], answers=numbers["answer"], name=name)
            yield Drawing(caption=f"{name} against the true numbers", draw=draw)
    if problem.several_answers and len(scores := read_names("by_class", plots)):
        table = scores.astype({"f1": float}).pivot(index="class", columns="model", values="f1")
        table = table.reindex(scores["class"].unique())
        yield Drawing(caption=f"F1 by {problem.noun}", draw=partial(draw_f1, scores=table, noun=problem.noun))
    if len(answers := read_names("confusion", plots)):
        counts = answers[answers["model"] == TUNED].astype({"rows": int})
        counts = counts.pivot(index="label", columns="answer", values="rows")
        counts = counts.reindex(index=class_names, columns=class_names).fillna(0).astype(int)
        yield Drawing(caption="confusion matrix of the tuned model", draw=partial(draw_confusion, counts=counts))


def curves_of(kind: str, plots: Path) -> dict[str, pd.DataFrame]:
    """The points of one kind of curve, for each model in `COLORS` that has any."""
    points = dict(iter(files.load(plots / f"{kind}.csv", pd.read_csv).groupby("model")))
    return {name: points[name].reset_index(drop=True) for name in COLORS if name in points}


def read_names(name: str, plots: Path) -> pd.DataFrame:
    """A table of `plots`, with all cells as text: names of classes may look like numbers or missing values."""
    return files.load(plots / f"{name}.csv", partial(pd.read_csv, dtype=str, keep_default_na=False))


def draw_scores(axes: Axes, *, scores: dict[str, dict], main: MainScore) -> None:
    """A bar for each model, the best on top, with its value and its 95 % interval."""
    metric = METRICS[main.key]
    names = sorted(scores, key=lambda name: main.sign * scores[name][main.key])
    values = np.array([scores[name][main.key] for name in names])
    low, high = (np.array([scores[name]["interval"][main.key][end] for name in names]) for end in ("low", "high"))
    colors = [COLORS[TUNED] if name == TUNED else "lightgrey" for name in names]
    bars = axes.barh(names, values, xerr=np.abs([values - low, high - values]), color=colors, capsize=3)
    axes.bar_label(bars, [metric.score(value) for value in values], padding=4)
    axes.set(title=f"{capitalized(metric.name)} on the test rows, with 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)
    if metric.percent:
        axes.set_xlim(0, 1.15)  # room for the values
        axes.set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    else:
        axes.margins(x=0.2)


def draw_roc(axes: Axes, *, curves: dict[str, pd.DataFrame]) -> None:
    """The ROC curves."""
    draw_curves(axes, curves, x="false_positive_rate", y="true_positive_rate")
    axes.axline((0, 0), slope=1, color="grey", linestyle=":")
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")


def draw_reliability(axes: Axes, *, curves: dict[str, pd.DataFrame]) -> None:
    """The reliability diagrams, with the diagonal."""
    draw_curves(axes, curves, x="confidence", y="accuracy", marker="o")
    axes.axline((1, 1), slope=1, color="grey", linestyle=":")
    axes.set(
        title="Reliability: calibrated on the dotted line",
        xlabel="probability of the answer",
        ylabel="share of right answers",
    )


def draw_errors(axes: Axes, *, curves: dict[str, pd.DataFrame]) -> None:
    """The share of rows within each absolute error."""
    draw_curves(axes, curves, x="error", y="rows_within")
    axes.set(
        title="Rows within an absolute error", xlabel="absolute error, up to", ylabel="share of rows", xlim=(0, None)
    )


def draw_curves(axes: Axes, curves: dict[str, pd.DataFrame], *, x: str, y: str, **style: str) -> None:
    """A line for each model, in its color, as is its name."""
    for name, points in curves.items():
        axes.plot(points[x], points[y], label=name, color=COLORS[name], **style)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, labelcolor="linecolor", handlelength=1)


def draw_numbers(axes: Axes, *, labels: pd.Series, answers: pd.Series, name: str) -> None:
    """A model's numbers against the true ones, with the diagonal."""
    axes.scatter(labels, answers, s=8, alpha=0.5)
    axes.axline((labels[0], labels[0]), slope=1, color="grey", linestyle=":")
    axes.set(title=f"Numbers of {name}", xlabel="true", ylabel="predicted")


def draw_f1(axes: Axes, *, scores: pd.DataFrame, noun: str) -> None:
    """The F1 of every label, of the models in `COLORS`."""
    places = range(len(scores))
    for name, color in COLORS.items():
        if name in scores:
            axes.plot(scores[name], places, "o", label=name, color=color)
    axes.set_yticks(*name_ticks(scores.index))
    axes.set(title=f"F1 by {noun}", xlabel="F1", xlim=(0, 1))
    axes.legend(frameon=False, labelcolor="linecolor", handletextpad=0)


def draw_confusion(axes: Axes, *, counts: pd.DataFrame) -> None:
    """How many rows of each class, from top to bottom, were predicted as each class; shaded by their share of it."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(*name_ticks(counts.columns), rotation=0 if len(counts) < 5 else 90)
    axes.set_yticks(*name_ticks(counts.index))
    if len(counts) <= MOST_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares.iat[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    axes.set(title="Confusion matrix of the tuned model, in rows", xlabel="answer", ylabel="true class")


def name_ticks(names: pd.Index) -> tuple[range, list[str]]:
    """The places of classes at an axis, and the beginnings of their names, without characters that have no shape; none
    where there are more than `MOST_NAMES`."""
    shown = names if len(names) <= MOST_NAMES else names[:0]
    return range(len(shown)), [shortened(printable(name), LONGEST_NAME) for name in shown]


def capitalized(name: str) -> str:
    """The name with its first letter in upper case."""
    return name[0].upper() + name[1:]
