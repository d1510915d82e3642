"""The methods of PEFT that are compared, and the settings of each that differ from params.yaml.

Learning rates are the usual ones, not searched for.
"""

SETTINGS: dict[str, dict[str, dict]] = {
    "lora": {},
    "rslora": {"lora": {"use_rslora": True}},
    "dora": {"lora": {"use_dora": True}},
    "pissa": {"lora": {"init": "pissa"}},
    "olora": {"lora": {"init": "olora"}},
    "lora_plus": {"train": {"lora_plus_ratio": 16.0, "lr": 2e-4}},
    "qlora": {"peft": {"method": "qlora"}},
    "adalora": {"peft": {"method": "adalora"}, "train": {"lr": 3e-3}},
    "vera": {"peft": {"method": "vera"}, "lora": {"r": 256}, "train": {"lr": 1e-2}},
    "ia3": {"peft": {"method": "ia3"}, "train": {"lr": 8e-3}},
    "loha": {"peft": {"method": "loha"}},
    "lokr": {"peft": {"method": "lokr"}},
    "ln_tuning": {"peft": {"method": "ln_tuning"}, "train": {"lr": 1e-2}},
    "head": {"peft": {"method": "head"}, "train": {"lr": 1e-2}},
    "full": {"peft": {"method": "full"}, "train": {"lr": 5e-5}},
    "prompt": {"peft": {"method": "prompt"}, "train": {"lr": 0.3}},
    "oft": {"peft": {"method": "oft"}},
    "boft": {"peft": {"method": "boft"}},
    "prefix": {"peft": {"method": "prefix"}, "train": {"lr": 1e-2}},
    "p_tuning": {"peft": {"method": "p_tuning"}, "train": {"lr": 1e-2}},
}
"""Sections of params.yaml by method; the first ones are variants of `peft.method: lora`."""
