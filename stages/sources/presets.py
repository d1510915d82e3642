"""Presets: what belongs to one dataset and to no other, as presets/NAME.yaml, which `data.source: NAME` chooses.

A preset has the form of params.yaml and gives values to the keys below that are null there. A source of another kind
(`path:`, `hub:`, `package:`) has no preset: what is null is then looked up in its files, see stages/rows/columns.py.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.common import files, paths, texts
from stages.common.errors import PipelineError
from stages.common.section import read_yaml

FOLDER = Path(__file__).resolve().parents[2] / paths.PRESETS

KEYS = {
    "data": ("source", "revision", "file", "format", "columns", "text", "text_pair", "label", "classes"),
    "encode": ("template", "label_words"),
}
"""What a preset may hold, by section of params.yaml."""

Values = dict[str, dict[str, Any]]
"""Values by section and key of params.yaml."""


def names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("[!.]*.yaml"))


def sound() -> Iterator[tuple[str, Values]]:
    """The name and the values of each preset that is one; a broken one harms only who chooses it."""
    for name in names():
        with suppress(PipelineError):
            yield name, load(name)


def load(source: str) -> Values:
    """The values of a source's preset, those that are null left out; of a source that names no preset, itself alone.

    Raises:
        PipelineError: there is no such preset, or its file is not one.
    """
    if ":" in source:
        return {"data": {"source": source}}
    path = FOLDER / f"{source}.yaml"
    if source not in names():
        raise PipelineError(f"data.source: {unknown(source)}")
    shown = f"{paths.PRESETS}/{path.name}"
    try:
        preset = read_yaml(files.readable(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PipelineError(f"{shown} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(preset, dict) or not all(isinstance(values, dict) for values in preset.values()):
        raise PipelineError(f"{shown}: expected the sections {' and '.join(KEYS)}, found {type(preset).__name__}")
    for key in (f"{section}.{key}" for section, values in preset.items() for key in values):
        section, _, name = key.partition(".")
        if name not in KEYS.get(section, ()):
            valid = ", ".join(f"{section}.{name}" for section, names in KEYS.items() for name in names)
            raise PipelineError(f"{shown}: {key} does not belong to a preset, which may have {valid}")
    if ":" not in str(preset.get("data", {}).get("source")):
        raise PipelineError(f"{shown}: expected data.source: package:, hub: or path:, then a name")
    return {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in preset.items()
    }


def unknown(source: str) -> str:
    """What is wrong with a source that is neither a preset nor of another kind."""
    expected = f"expected a preset ({', '.join(names())}), package:NAME==VERSION, hub:ORG/NAME or path:data/raw/NAME"
    near = texts.nearest(source, names())
    hint = f"did you mean {near!r}?" if near else f"a file of your own is path:{paths.RAW_DATA}/NAME"
    return f"{expected}, found {source!r}; {hint}"
