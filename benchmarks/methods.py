"""The methods of PEFT that are compared, and the settings of each that differ from params.yaml.

Learning rates are those of `train.lr: auto`, without the lower one that it may try.
"""

from stages.training.recipe import LEARNING_RATES


def method(name: str) -> dict[str, dict]:
    """The sections of params.yaml for a method, with its own learning rate if it has one."""
    rate = {"train": {"lr": LEARNING_RATES[name]}} if name in LEARNING_RATES else {}
    return {"peft": {"method": name}} | rate


PLAIN = (
    *("qlora", "adalora", "ia3", "loha", "lokr", "ln_tuning", "head", "full", "prompt", "oft", "boft"),
    *("prefix", "p_tuning"),
)
"""The methods that need no other settings."""

SETTINGS: dict[str, dict[str, dict]] = {
    "lora": {},
    "rslora": {"lora": {"use_rslora": True}},
    "dora": {"lora": {"use_dora": True}},
    "pissa": {"lora": {"init": "pissa"}},
    "olora": {"lora": {"init": "olora"}},
    "lora_plus": {"train": {"lora_plus_ratio": 16.0, "lr": 2e-4}},
    "vera": method("vera") | {"lora": {"r": 256}},
    **{name: method(name) for name in PLAIN},
}
"""Sections of params.yaml by method; the first ones are variants of `peft.method: lora`."""
