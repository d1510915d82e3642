"""The charts of `dvc plots`, filled in as DVC does and drawn by Vega-Lite, from the tables that `evaluate` writes."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from dvc_render.vega import VegaRenderer
from reporting import outputs
from scoring import drawn

from stages.common.rivals import BAG_OF_WORDS, LINEAR_PROBE, TUNED, UNTRAINED, ZERO_SHOT
from stages.scoring import plots
from stages.scoring.kinds import SCORED

vl_convert = pytest.importorskip("vl_convert", reason="Vega-Lite without a browser is in requirements-dev.txt")

CHARTS = {
    Path(path).stem: properties
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    for entry in stage.get("plots", [])
    for path, properties in entry.items()
    if "template" in properties
}
"""What dvc.yaml says of each table that is drawn, by the table's name."""

REVISIONS = ["HEAD", "workspace"]

TRAIN = {
    "loss": pd.DataFrame({"split": ["training", "validation"] * 2, "step": [1, 1, 2, 2], "loss": [0.6, 0.7, 0.4, 0.5]}),
    "main": pd.DataFrame({"split": ["validation"] * 2, "step": [1, 2], "score": [0.7, 0.8]}),
}
"""metrics/train, shortened."""

CASES = {
    "single_label": drawn.of_classes(3, 2),
    "multi_label": drawn.of_labels(2)[:2],
    "regression": drawn.of_numbers(1),
}
"""Labels of rows, and one model's outputs."""

NAMES = {"single_label": ["1", "NA", "</script>"], "multi_label": ["a", "b", "c.d", "$e"], "regression": []}

COLORS = {ZERO_SHOT: "#1f77b4", UNTRAINED: "#1f77b4", LINEAR_PROBE: "#ff7f0e", TUNED: "#2ca02c"}
"""Those of metrics/summary.png."""


@pytest.fixture(scope="module", params=CASES)
def pictures(request):
    """An SVG of each chart with two revisions, by the table's name, and what Vega-Lite warned of."""
    scored, (labels, given) = SCORED[request.param], CASES[request.param]
    answers = scored.decide(given, None)
    before = ZERO_SHOT if request.param == "single_label" else UNTRAINED
    tables = plots.tables(
        scored,
        outputs.run(request.param).main,
        labels,
        dict.fromkeys((BAG_OF_WORDS, before, LINEAR_PROBE, TUNED), answers),
        uncalibrated=answers,
        lengths=np.arange(len(labels)),
        names=NAMES[request.param],
        most=9,
    )
    return {name: picture(name, table) for name, table in (tables | TRAIN).items() if len(table)}


def picture(name: str, table: pd.DataFrame) -> str:
    """The chart of a table that is the same in two revisions; DVC reads values as strings."""
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype=str, keep_default_na=False).to_dict("records")
    rows = [row | {"rev": revision} for revision in REVISIONS for row in read]
    chart = VegaRenderer(rows, name, template_dir=str(ROOT / ".dvc/plots"), **CHARTS[name]).get_filled_template()
    return vl_convert.vegalite_to_svg(chart, vl_version="5.8", show_warnings=True)


def symbol(svg: str, name: str) -> str:
    """What stands before a name in the legend."""
    (found,) = re.findall(
        rf'role-legend-symbol"[^>]*>(<path[^>]*>)</g><g [^>]*><text[^>]*>{re.escape(name)}</text>', svg
    )
    return found


def test_every_chart_has_its_title_axes_and_revisions_and_no_gap(pictures):
    for name, svg in pictures.items():
        said = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        assert {CHARTS[name][key] for key in ("title", "x_label", "y_label")} | set(REVISIONS) <= set(said), name
        assert not {"undefined", "null", "NaN"} & set(said), name


def test_a_model_has_the_color_of_the_summary_in_every_chart(pictures):
    for name, svg in pictures.items():
        for model, color in COLORS.items():
            if f">{model}</text>" in svg and name != "confusion":
                assert color in symbol(svg, model), (name, model)


def test_the_second_revision_is_dashed_wherever_lines_are_drawn(pictures):
    for name, svg in pictures.items():
        if CHARTS[name]["template"] in ("lines", "points", "reliability"):
            solid = ['stroke-dasharray="1,0"' in symbol(svg, revision) for revision in REVISIONS]
            assert solid == [True, False], name


def test_a_confusion_matrix_has_a_number_in_every_cell_and_models_and_revisions_in_the_order_of_the_table():
    counts = [
        (ZERO_SHOT, "b", "a", 1500),
        (ZERO_SHOT, "a", "b", 3),
        (LINEAR_PROBE, "b", "b", 7),
        (LINEAR_PROBE, "a", "a", 2),
    ]
    svg = picture("confusion", pd.DataFrame(counts, columns=plots.COLUMNS["confusion"]))
    said = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [word for word in said if word in (LINEAR_PROBE, ZERO_SHOT)] == [ZERO_SHOT, LINEAR_PROBE]
    assert [word for word in said if word in REVISIONS] == REVISIONS
    assert sorted(word for word in said if re.fullmatch(r"[\d,]+", word)) == sorted(
        ["1,500", "3", "7", "2", *"0000"] * 2
    )


def test_vega_lite_has_nothing_to_warn_of(capfd):
    for name, columns in (plots.COLUMNS | {name: tuple(table) for name, table in TRAIN.items()}).items():
        picture(name, pd.DataFrame([dict.fromkeys(columns, "1")]))
    assert capfd.readouterr() == ("", "")
