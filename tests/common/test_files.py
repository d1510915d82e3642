"""Outputs appear whole or not at all."""

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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, value):
    files.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"accuracy": value})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "accuracy": 0.5\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
