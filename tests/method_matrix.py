"""Which method uses which setting, as the checks of params.yaml and the code that adds adapters have it.

python -m tests.method_matrix > docs/methods.md
"""

import typing

from stages.adapters.methods import depth
from stages.adapters.options import CONFIGS
from stages.adapters.params import ASKS_FOR_NOTHING, PEFT_FIELD_OF, Lora, Peft, without

METHODS = typing.get_args(Peft.model_fields["method"].annotation)
SCALES = ("lora.r", "lora.alpha")
"""What no method refuses."""

SETTINGS = (*SCALES, *ASKS_FOR_NOTHING)
EVERY_METHOD = [f"lora.{key}" for key in Lora.model_fields if f"lora.{key}" not in SETTINGS]

HEAD = f"""\
# Methods and their settings

Made by `python -m tests.method_matrix > docs/methods.md` from the tables in `stages/adapters`.

Which settings a method (`peft.method`) uses. A name in the table is the field of PEFT's configuration that the setting
fills; ✓: the method uses the setting in another way. Where the table has nothing, a changed value is refused, so that
it is not ignored silently; {" and ".join(f"`{key}`" for key in SCALES)} are ignored instead. Every method uses
{" and ".join(f"`{key}`" for key in EVERY_METHOD)}, except that those without stored states change all layers,
not only `lora.top_layers`. All other fields of PEFT's configuration can be set by `peft.options`.
"""


def table() -> str:
    """The page."""
    header = ["method", "PEFT's configuration", "stored states", *(f"`{key}`" for key in SETTINGS)]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *map(row, METHODS))]
    return "\n".join([HEAD, *lines])


def row(method: str) -> list[str]:
    """The cells of a method's line."""
    config = CONFIGS.get(method)
    named = f"`{config.__name__}`" if config else ""
    return [f"`{method}`", named, "✓" if depth(method, 1) else "", *(cell(method, key) for key in SETTINGS)]


def cell(method: str, setting: str) -> str:
    """The field that the setting fills, ✓, or nothing."""
    section, _, key = setting.partition(".")
    field = PEFT_FIELD_OF.get(method, {}).get(key) if section == "lora" else None
    used = setting not in without(method) and setting not in SCALES
    return f"`{field}`" if field else "✓" if used else ""


if __name__ == "__main__":
    print(table())
