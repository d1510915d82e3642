"""The base class of the sections of params.yaml, the types of their values, the error that their checks raise, how its
text is read, and how null keys are filled.

A section's checks refuse values but never change them. So a stage depends on the values that it reads, which dvc.yaml
lists, and never on the checks. Filling changes values: so it is here, on which every stage depends.
"""

import contextlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]

YAML_BYTES, YAML_DEPTH = 200_000, 20
"""Size and nesting of a file of settings; params.yaml has about 20,000 and 3."""


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, no infinities, no later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def contradiction(message: str) -> PydanticCustomError:
    """An error of our own that pydantic reports among its others; braces in `message` are taken literally."""
    return PydanticCustomError("contradiction", "{message}", {"message": message})


def fill(params: Any, values: dict[str, dict[str, Any]]) -> Any:
    """params.yaml with the values of a dataset for its null keys, and with the source that a preset names."""
    if not isinstance(params, dict):
        return params
    filled = dict(params)
    for section, known in values.items():
        if isinstance(own := params.get(section), dict):
            open_keys = {key for key in own if own[key] is None or key == "source"}
            filled[section] = own | {key: value for key, value in known.items() if key in open_keys}
    return filled


def read_yaml(text: str) -> Any:
    """The value of a text of YAML.

    Raises:
        ValueError: it is not valid, is longer or nested deeper than settings are, or has an alias, by which a small
            file can unfold to any size.
    """
    import yaml
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > YAML_BYTES:
        raise ValueError(f"expected at most {YAML_BYTES:,} characters, found {len(text):,}")
    depth = 0
    with contextlib.suppress(yaml.YAMLError):  # as ruamel.yaml knows YAML 1.2, by its own words below
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"expected no alias, found *{event.anchor} in line {line}; write the value itself")
            if depth > YAML_DEPTH:
                raise ValueError(f"expected at most {YAML_DEPTH} levels, found more in line {line}")
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:  # the latter: of an integer with thousands of digits
        raise ValueError(" ".join(str(error).split())) from None
