"""Presets: what belongs to one dataset; a mistake in one is a clear line."""

import os
import subprocess
from pathlib import Path

import pytest

from stages.common.errors import PipelineError
from stages.sources import presets, tracked


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a preset."""
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    return lambda name, text: (tmp_path / f"{name}.yaml").write_text(text)


def test_a_preset_of_ones_own_gives_what_it_says_and_nothing_else(write):
    write("tickets", "data:\n  source: path:data/raw/t.csv\n  label: queue\n  text:\n")
    assert presets.load("tickets") == {"data": {"source": "path:data/raw/t.csv", "label": "queue"}}


def test_a_source_that_is_no_preset_stands_for_itself(write):
    assert presets.load("path:data/raw/t.csv") == {"data": {"source": "path:data/raw/t.csv"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", r"presets/bad.yaml is not valid YAML"),
        ("- 1", r"expected the sections data and encode, found list"),
        ("data: {source: path:x, limit: 3}", r"data.limit does not belong to a preset, which may have data.source, "),
        ("lora: {r: 3}", r"lora.r does not belong to a preset"),
        ("data: {text: a}", r"expected data.source: package:, hub: or path:, then a name"),
        ("data: {source: other}", r"expected data.source: package:, hub: or path:, then a name"),
    ],
)
def test_what_is_no_preset_is_one_clear_line(write, text, message):
    write("bad", text)
    with pytest.raises(PipelineError, match=message):
        presets.load("bad")


def test_broken_presets_are_left_out_where_none_is_chosen(write, tmp_path):
    write("good", "data: {source: path:a}")
    write("bad", "data: [")
    write("._good", "data: {source: path:a}")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "nothing.yaml").symlink_to("absent")
    (tmp_path / "latin.yaml").write_bytes(b"data: \xe9")
    assert list(presets.sound()) == [("good", {"data": {"source": "path:a"}})]
    assert presets.names() == ["bad", "folder", "good", "latin", "nothing"]
    with pytest.raises(PipelineError, match=r"^folder\.yaml: expected a file, found a folder"):
        presets.load("folder")


def test_a_dataset_that_dvc_added_is_tracked_and_a_large_one_is_for_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"123")
    assert tracked.advice(Path("a.csv")) is None
    subprocess.run(["git", "init", "--quiet"], check=True)
    monkeypatch.setattr(tracked, "LARGE", 2)
    assert tracked.advice(Path("a.csv")).endswith(": dvc add a.csv")
    (tmp_path / "a.csv.dvc").touch()
    assert tracked.advice(Path("a.csv")) is None


def test_a_name_that_is_no_unicode_is_tracked_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "data").mkdir()
    odd = Path(os.fsdecode(b"data/caf\xe9.csv"))
    odd.touch()
    assert tracked.advice(Path("data")).endswith(": git add data")
    assert tracked.command(odd) == f"git add '{odd}'"
    odd.with_name(f"{odd.name}.dvc").touch()
    assert tracked.command(odd) is None
