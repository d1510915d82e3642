"""The section `train`."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.common.section import Count, Fraction, Positive, Section, Seed, contradiction


class Train(Section):
    """The training loop."""

    seeds: Seed | Annotated[list[Seed], Field(min_length=1)]
    epochs: Count | Literal["auto"]
    lr: Positive | Literal["auto"]
    lora_plus_ratio: Annotated[float, Field(ge=1)] | None
    batch_size: Count
    gradient_accumulation: Count
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    adam_beta1: Fraction
    adam_beta2: Fraction
    max_grad_norm: Annotated[float, Field(ge=0)]
    label_smoothing: Fraction
    balance: Literal["auto", "weights", "sampling"] | None
    activation_checkpointing: bool
    early_stopping: Count | None
    select_by: Literal["loss", "main"]
    logging_steps: Count

    @field_validator("seeds")
    @classmethod
    def seeds_differ(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            raise contradiction(f"expected different seeds, found {seeds}")
        return seeds

    @field_validator("warmup")
    @classmethod
    def constant_has_no_warmup(cls, warmup: float, info: ValidationInfo) -> float:
        if warmup and info.data.get("scheduler") == "constant":
            raise contradiction("expected 0 with train.scheduler: constant; use constant_with_warmup for a warmup")
        return warmup
