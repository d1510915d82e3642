"""Every bad input of the table ends in the one line that it must give, and changes nothing."""

import filecmp
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import forked
import inputs
import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.usefixtures("own_sources")


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory) -> Path:
    """A copy of the finished folder for all cases: to copy it takes longer than what most of them do."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("bad") / "project")


@pytest.fixture
def folder(shared, finished) -> Iterator[Path]:
    """The copy, put back after the test."""
    yield shared
    put_back(shared, finished)


@pytest.mark.parametrize("case", inputs.CASES, ids=str)
def test_a_bad_input_ends_in_one_line_and_changes_nothing(case, folder, tmp_path, record_property):
    spoil(folder, case)
    before = forked.contents(folder)
    record_property("input", {"where": case.where})
    done = forked.run(folder, case.command, tmp_path / "told")
    print(done.stderr)
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    assert re.search(case.line, done.stderr.splitlines()[-1])
    assert len(re.findall(r"^(error|python -m stages\.\w+: error): ", done.stderr, re.MULTILINE)) == 1
    assert forked.contents(folder) == before


def put_back(folder: Path, original: Path) -> None:
    """Give a folder the contents of the one that it is a copy of."""
    compared = filecmp.dircmp(original, folder, ignore=[], hide=[])
    changed = compared.diff_files + compared.common_funny
    for name in changed + compared.right_only:
        inputs.remove(folder / name)
    for name in changed + compared.left_only:
        copy = shutil.copytree if (original / name).is_dir() else shutil.copy2
        copy(original / name, folder / name)
    for name in compared.common_dirs:
        put_back(folder / name, original / name)


def spoil(folder: Path, case: inputs.Case) -> None:
    """Make the input bad."""
    path = folder / "params.yaml"
    params = YAML(typ="safe").load(path)
    for key, value in case.params.items():
        *sections, last = key.split(".")
        at = params
        for section in sections:
            at = at[section]
        at[last] = value
    if case.params:
        YAML().dump(params, path)
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    case.change(folder)
