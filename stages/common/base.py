"""The base model's folder."""

from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig


def load_config(base: Path, **changes: object) -> PreTrainedConfig:
    """The base model's configuration, with the given changes.

    Raises:
        FileNotFoundError: `base` has no config.json; transformers would look for a model of that name on the hub.
    """
    (base / "config.json").stat()
    return AutoConfig.from_pretrained(base, **changes)
