"""PEFT's configuration of each method, and what `peft.options` may set in it."""

import typing
from dataclasses import fields
from typing import Any

from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
)
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stages.adapters.params import PEFT_FIELD_OF, Peft
from stages.common import texts
from stages.common.errors import PipelineError

CONFIGS: dict[str, type[PeftConfig]] = {
    "lora": LoraConfig,
    "qlora": LoraConfig,  # on the 4-bit layers of `stages.training.quantized`
    "adalora": AdaLoraConfig,
    "vera": VeraConfig,
    "ia3": IA3Config,
    "loha": LoHaConfig,
    "lokr": LoKrConfig,
    "oft": OFTConfig,
    "boft": BOFTConfig,
    "prompt": PromptTuningConfig,
    "prefix": PrefixTuningConfig,
    "p_tuning": PromptEncoderConfig,
    "ln_tuning": LNTuningConfig,
    "head": LoraConfig,  # with no target module
}
"""PEFT's configuration of each method; `full` has none."""

NOT_OPTIONAL = {
    *(field.name for field in fields(PeftConfig)),
    "modules_to_save",
    "fan_in_fan_out",
    "total_step",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
}
"""Fields of PEFT's configurations that `stages.adapters.methods` sets, or that change layers below the trained ones."""

WITHOUT_CONVERSION = ConfigDict(strict=True, allow_inf_nan=False)
"""How pydantic checks a value's type: "4" is not an integer, and numbers must be finite."""


def check_options(peft: Peft) -> None:
    """Check the names and types of `peft.options` against the fields of PEFT's configuration.

    Raises:
        PipelineError: an option is unknown, of another type, or set elsewhere; names the first such option.
    """
    if peft.options and peft.method in ("head", "full"):
        raise PipelineError(f"peft.options: expected none with peft.method: {peft.method}, found {peft.options}")
    elsewhere = set_elsewhere(peft.method)
    types = typing.get_type_hints(CONFIGS[peft.method]) if peft.options else {}
    valid = [name for name in types if name not in elsewhere and name not in NOT_OPTIONAL]
    for name, value in peft.options.items():
        if name in elsewhere:
            raise PipelineError(f"peft.options.{name}: expected {elsewhere[name]} to set it, found {value!r}")
        if name not in valid:
            near = texts.nearest(name, valid)
            hint = f"did you mean {near!r}?" if near else f"{peft.method} has {', '.join(valid)}"
            raise PipelineError(f"peft.options.{name}: unknown with peft.method: {peft.method}; {hint}")
        check_type(name, value, types[name])


def set_elsewhere(method: str) -> dict[str, str]:
    """The fields of the method's configuration that `peft.options` cannot set, and what sets each."""
    elsewhere = {field: f"lora.{key}" for key, field in PEFT_FIELD_OF.get(method, {}).items()}
    elsewhere |= {"target_modules": "lora.target_modules", "layers_to_transform": "lora.top_layers"}
    if method == "adalora":
        elsewhere |= {"init_r": "lora.r", "r": "lora.r", "rank_pattern": "the training"}
    return elsewhere


def check_type(name: str, value: Any, expected: Any) -> None:
    """Check one option's value against the type of PEFT's field.

    Raises:
        PipelineError: the value is of another type.
    """
    try:
        TypeAdapter(expected, config=WITHOUT_CONVERSION).validate_python(value)
    except ValidationError as error:
        types = " or ".join(one["msg"].removeprefix("Input should be ") for one in error.errors())
        raise PipelineError(f"peft.options.{name}: expected {types}, found {value!r}") from None
