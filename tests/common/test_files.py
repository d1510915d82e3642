"""Outputs appear whole or not at all."""

import json

import pandas as pd
import pytest

from stages.common import files


def test_a_folder_is_replaced_when_the_block_succeeds(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with files.replacing(tmp_path / "out") as folder:
        (folder / "new").touch()
        assert (tmp_path / "out/old").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_failing_block_leaves_the_former_folder_and_nothing_else(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "out") as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_metrics_are_rounded_to_what_no_machine_changes_and_whole_numbers_are_not(tmp_path):
    files.write_metrics(
        tmp_path / "a.json", {"p": 0.12345649, "rows": 1234567, "of": [{"loss": 1234567.8}], "ok": True}
    )
    files.write_metrics(
        tmp_path / "b.json", {"p": 0.12345651, "rows": 1234567, "of": [{"loss": 1234567.9}], "ok": True}
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "p": 0.12346,
        "rows": 1234567,
        "of": [{"loss": 1234600}],
        "ok": True,
    }
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    files.write_table(tmp_path / "a.csv", pd.DataFrame({"class": ["0.123456"], "step": [123456], "loss": [1.23456e-9]}))
    assert (tmp_path / "a.csv").read_text() == "class,step,loss\n0.123456,123456,1.235e-09\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, value):
    files.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"accuracy": value})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "accuracy": 0.5\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
