"""The sections `lora` and `peft`: which method adapts which modules."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.common.section import Count, Fraction, Positive, Section, Text, contradiction

ON_ANY_LAYER = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "bias": "bias", "use_rslora": "use_rslora"}
"""LoRA's fields for layers of any kind, 4-bit layers too."""

PEFT_FIELD_OF: dict[str, dict[str, str]] = {
    "lora": ON_ANY_LAYER | {"init": "init_lora_weights", "use_dora": "use_dora"},
    "qlora": ON_ANY_LAYER,
    "adalora": {"r": "target_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "bias": "bias"},
    "vera": {"r": "r", "dropout": "vera_dropout", "bias": "bias"},
    "loha": {"r": "r", "alpha": "alpha"},
    "lokr": {"r": "r", "alpha": "alpha"},
    "boft": {"dropout": "boft_dropout", "bias": "bias"},
    "oft": {"bias": "bias"},
}
"""For each method the keys of `lora` that it uses, and the fields of PEFT's configuration that they set; other methods
use none of these."""

ON_PROJECTIONS = ("lora", "qlora", "adalora", "vera", "ia3", "loha", "lokr", "oft", "boft")
"""The methods that adapt the projections named in `lora.target_modules`."""

ON_WHOLE_WEIGHTS = ("adalora", "prompt", "prefix", "p_tuning")
"""The methods that cannot be used with `compute.strategy: fsdp`: AdaLoRA computes with whole factors after each step,
and prompts change the model before training does."""

ASKS_FOR_NOTHING = {
    "lora.target_modules": "all-linear",
    "lora.dropout": 0.0,
    "lora.bias": "none",
    "lora.init": "default",
    "lora.use_rslora": False,
    "lora.use_dora": False,
    "train.lora_plus_ratio": None,
    "train.activation_checkpointing": False,
}
"""Settings that some methods cannot use, and their neutral values; any other value would be silently ignored."""


def without(method: str) -> dict[str, Any]:
    """The settings that have no meaning with a method, and their neutral values."""
    used = {f"lora.{key}" for key in PEFT_FIELD_OF.get(method, {})}
    if method in ON_PROJECTIONS:
        used.add("lora.target_modules")
    if method in ("lora", "qlora"):
        used.add("train.lora_plus_ratio")
    if method != "prefix":  # keys and values of a prefix cannot be recomputed block by block
        used.add("train.activation_checkpointing")
    return {key: value for key, value in ASKS_FOR_NOTHING.items() if key not in used}


class Lora(Section):
    """LoRA's settings, some of which other methods use too."""

    top_layers: Count | Literal["all"]
    target_modules: Annotated[list[Text], Field(min_length=1)] | Literal["all-linear"]
    r: Count
    alpha: Positive
    dropout: Fraction
    bias: Literal["none", "all", "lora_only"]
    use_rslora: bool
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"]
    use_dora: bool
    head_init: Literal["auto", "probe", "mean_probe", "label_words", "random"]

    @field_validator("init")
    @classmethod
    def orthogonal_rank_is_even(cls, init: str, info: ValidationInfo) -> str:
        if init == "orthogonal" and info.data.get("r", 0) % 2:
            raise contradiction(f"expected an even lora.r with lora.init: orthogonal, found {info.data['r']}")
        return init

    @field_validator("use_dora")
    @classmethod
    def dora_starts_from_the_base(cls, use_dora: bool, info: ValidationInfo) -> bool:
        if use_dora and info.data.get("init") in ("pissa", "olora"):
            raise contradiction(f"expected lora.init: default with lora.use_dora, found {info.data['init']!r}")
        return use_dora


class Peft(Section):
    """The PEFT method, and its options."""

    method: Literal[
        "lora",
        "qlora",
        "adalora",
        "vera",
        "ia3",
        "loha",
        "lokr",
        "oft",
        "boft",
        "prompt",
        "prefix",
        "p_tuning",
        "ln_tuning",
        "head",
        "full",
    ]
    options: dict[Text, Any]
    """Checked against PEFT's own configuration by `stages.adapters.options`, which imports PEFT."""
