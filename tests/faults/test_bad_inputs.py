"""Every bad input of the table ends in the one line that it must give, and changes nothing."""

import re
import shutil
from pathlib import Path

import forked
import inputs
import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.usefixtures("own_sources")


@pytest.mark.parametrize("case", inputs.CASES, ids=str)
def test_a_bad_input_ends_in_one_line_and_changes_nothing(case, finished, tmp_path, record_property):
    folder = shutil.copytree(finished, tmp_path / "project")
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
