"""The summary figure: what is drawn for each kind of problem, from files alone."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from reporting import outputs

from stages.problems.kinds import PROBLEMS
from stages.reporting import figure
from stages.reporting.wording import METRICS
from stages.scoring.kinds import SCORED
from stages.scoring.plots import tables

CAPTIONS = {
    "single_label": "Accuracy with 95 % intervals, ROC, reliability and confusion matrix of the tuned model",
    "multi_label": "Row F1 with 95 % intervals, ROC, reliability and F1 by label",
    "regression": "MAE with 95 % intervals, error curves, linear_probe against the true numbers and tuned against the "
    "true numbers",
}


@pytest.fixture
def plots(tmp_path):
    """A folder that does not exist yet."""
    return tmp_path / "plots"


def drawn(name: str, plots) -> tuple[bytes, str]:
    """The figure for a made-up problem."""
    metrics = {"baseline": outputs.baseline(name), "tuned": outputs.tuned(name)}
    return figure.summary(PROBLEMS[name], outputs.run(name).main, **metrics, plots=plots)


def empty(file):
    """Leave nothing of a table but its header."""
    file.write_text(file.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize("name", CAPTIONS)
def test_each_problem_has_its_figure_from_the_files_and_a_caption_of_what_was_drawn(name, plots):
    outputs.write_plots(name, plots)
    picture, caption = drawn(name, plots)
    assert picture.startswith(b"\x89PNG")
    assert caption == CAPTIONS[name]


@pytest.mark.parametrize("name", CAPTIONS)
def test_the_same_files_give_the_same_bytes_and_others_give_others(name, plots):
    outputs.write_plots(name, plots)
    picture, _ = drawn(name, plots)
    assert drawn(name, plots)[0] == picture
    assert b"atplotlib" not in picture  # its version would change the bytes
    changed = figure.summary(
        PROBLEMS[name],
        outputs.run(name).main,
        baseline=outputs.baseline(name),
        tuned=outputs.tuned(name, **{outputs.MAIN[name]: 0.1}),
        plots=plots,
    )
    assert changed[0] != picture


def test_with_several_seeds_the_caption_says_that_the_kept_adapter_is_drawn(plots):
    outputs.write_plots("single_label", plots)
    given = {"baseline": outputs.baseline("single_label"), "tuned": outputs.tuned_with_seeds("single_label")}
    _, caption = figure.summary(PROBLEMS["single_label"], outputs.run("single_label").main, **given, plots=plots)
    assert caption == CAPTIONS["single_label"] + "; tuned is the kept adapter alone"


def test_what_has_no_rows_is_neither_drawn_nor_named(plots):
    outputs.write_plots("single_label", plots)
    empty(plots / "roc.csv")
    assert drawn("single_label", plots)[1] == (
        "Accuracy with 95 % intervals, reliability and confusion matrix of the tuned model"
    )
    for file in plots.iterdir():
        empty(file)
    assert drawn("single_label", plots)[1] == "Accuracy with 95 % intervals"


def test_curves_are_drawn_of_the_models_that_have_points(plots):
    outputs.write_plots("multi_label", plots)
    curves = figure.curves_of("roc", plots)
    assert list(curves) == ["linear_probe", "tuned"]
    axes = Figure().subplots()
    figure.draw_roc(axes, curves=curves)
    assert [line.get_label() for line in axes.lines[:2]] == ["linear_probe", "tuned"]
    assert axes.lines[1].get_xydata().tolist() == [[0, 0], [0.2, 0.8], [1, 1]]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("single_label", ["majority", "bag_of_words", "zero_shot", "linear_probe", "tuned"]),
        ("regression", ["median", "linear_probe", "bag_of_words", "tuned"]),
    ],
)
def test_the_bars_are_the_scores_of_the_files_the_best_on_top(name, order):
    axes, main = Figure().subplots(), outputs.run(name).main
    scores = outputs.baseline(name) | {"tuned": outputs.tuned(name)}
    figure.draw_scores(axes, scores=scores, main=main)
    assert [label.get_text() for label in axes.get_yticklabels()] == order  # from bottom to top
    metric = METRICS[main.key]
    assert [text.get_text() for text in axes.texts] == [metric.score(scores[model][main.key]) for model in order]
    bars, (errors,) = axes.containers[1], axes.collections
    assert [bar.get_width() for bar in bars] == [scores[model][main.key] for model in order]
    for segment, model in zip(errors.get_segments(), order, strict=True):
        interval = scores[model]["interval"][main.key]
        assert segment[:, 0].tolist() == pytest.approx([interval["low"], interval["high"]])


def test_the_confusion_matrix_has_a_row_for_every_class_and_names_that_are_no_formulas():
    names = ["1", "NA", "$\\broken{$", "never"]
    counts = pd.DataFrame([[3, 1, 0, 0], [0, 12, 0, 0], [2, 0, 5, 0], [0, 0, 0, 0]], index=names, columns=names)
    canvas = Figure()
    with figure.as_written():
        axes = canvas.subplots()
        figure.draw_confusion(axes, counts=counts)
        picture = figure.as_png(canvas)
    shares = [[3 / 4, 1 / 4, 0, 0], [0, 1, 0, 0], [2 / 7, 0, 5 / 7, 0], [0, 0, 0, 0]]
    assert axes.images[0].get_array().tolist() == shares, "of the rows of each class"
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [text.get_text() for text in axes.texts] == list(map(str, counts.to_numpy().ravel()))
    assert picture.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_names_of_any_script_and_length_are_drawn_without_a_warning(plots, monkeypatch, capfd):
    names = ["under_$50", "$50_$100\n\x1b[31m", "\U0001f600 / <b> \u05d0\u200f \u4e2d", "</script>" + "x" * 300]
    monkeypatch.setitem(outputs.CLASSES, "multi_label", names[:2])
    outputs.write_plots("multi_label", plots)
    drawn("multi_label", plots)
    counts = pd.DataFrame(1, index=names, columns=names)
    with figure.as_written():
        canvas = Figure(layout="constrained")
        axes = canvas.subplots(2, 2).ravel()[0]
        figure.draw_confusion(axes, counts=counts)
        figure.as_png(canvas)
    *shown, long = (label.get_text() for label in axes.get_xticklabels())
    assert shown == ["under_$50", "$50_$100 \\x1b[31m", names[2]]
    assert long == names[3][:29] + "…"
    assert capfd.readouterr() == ("", "")


def test_many_classes_have_no_counts_in_their_cells():
    names = [f"class {number}" for number in range(40)]
    axes = Figure().subplots()
    figure.draw_confusion(axes, counts=pd.DataFrame(1, index=names, columns=names))
    assert not axes.texts


def test_many_classes_are_drawn_without_their_names():
    names = [f"class {number}" for number in range(figure.MOST_NAMES + 1)]
    for most, shown in ((len(names), 0), (figure.MOST_NAMES, figure.MOST_NAMES)):
        confusion, of_labels = Figure().subplots(2)
        figure.draw_confusion(confusion, counts=pd.DataFrame(1, index=names[:most], columns=names[:most]))
        figure.draw_f1(of_labels, scores=pd.DataFrame(0.5, index=names[:most], columns=["tuned"]), noun="label")
        for ticks in (confusion.get_xticklabels(), confusion.get_yticklabels(), of_labels.get_yticklabels()):
            assert len(ticks) == shown


def test_classes_that_no_row_has_or_is_given_are_in_the_matrix(plots):
    outputs.write_plots("single_label", plots)
    parts = figure.further_drawings(PROBLEMS["single_label"], class_names=["0", "1", "NA"], plots=plots)
    *_, confusion = parts
    axes = Figure().subplots()
    confusion.draw(axes)
    assert axes.images[0].get_array().tolist() == [[0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]]


def test_the_f1_of_each_label_is_drawn_at_its_name(plots):
    outputs.write_plots("multi_label", plots)
    *_, labels = figure.further_drawings(PROBLEMS["multi_label"], class_names=[], plots=plots)
    axes = Figure().subplots()
    labels.draw(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["blame", "$praise"]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0.5, 0], [0.75, 1]]] * 2


def test_numbers_are_drawn_against_the_true_ones(plots):
    outputs.write_plots("regression", plots)
    *_, probe, tuned = figure.further_drawings(PROBLEMS["regression"], class_names=[], plots=plots)
    for drawing, column in ((probe, "linear_probe"), (tuned, "tuned")):
        axes = Figure().subplots()
        drawing.draw(axes)
        expected = zip(*(outputs.ANSWERS["regression"][name] for name in ("label", column)), strict=True)
        assert axes.collections[0].get_offsets().tolist() == list(map(list, expected))
        assert axes.get_title() == f"Numbers of {column}"


def test_a_class_whose_name_would_end_a_script_is_drawn_and_is_safe_in_the_page_of_dvc(plots, monkeypatch):
    seen, names = [], ["</script>", "<!--<script>"]
    monkeypatch.setattr(figure, "draw_confusion", lambda axes, counts: seen.append(counts))
    monkeypatch.setitem(outputs.CLASSES, "single_label", names)
    labels, main = np.array([0, 1, 1, 0]), outputs.run("single_label").main
    certain = np.eye(2)[labels]
    given = {"uncalibrated": certain, "lengths": np.arange(4), "names": names, "most": 10}
    models = {"bag_of_words": certain, "untrained": certain, "linear_probe": certain, "tuned": certain}
    plots.mkdir()
    for name, table in tables(SCORED["single_label"], main, labels, models, **given).items():
        table.to_csv(plots / f"{name}.csv", index=False)
    drawn("single_label", plots)
    assert seen[0].to_numpy().tolist() == [[2, 0], [0, 2]]
    for file in plots.iterdir():
        assert not re.search("<(/?script|!--)", file.read_text())
