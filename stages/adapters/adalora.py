"""AdaLoRA: training moves rank from the layers where it matters least to others (Zhang et al. 2023)."""

import math
from typing import Any

import torch
from peft import AdaLoraModel, PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_outputs import ModelOutput

from stages.common.errors import PipelineError

INITIAL_RANK = 1.5
"""The mean rank at the start, in multiples of the mean rank at the end (section 4)."""

UNKNOWN_STEPS = 2**31
"""A placeholder: PEFT requires the number of training steps; `RankAllocation` sets it once it is known."""

NOT_GIVEN = -UNKNOWN_STEPS
"""Stands for a `tinit` or `tfinal` that `peft.options` does not set: PEFT's default, 0, is a choice, too."""


def initial_fields(r: int) -> dict[str, int]:
    """The fields of PEFT's configuration, unless `peft.options` sets them, for a training that ends at a mean rank of
    `r`."""
    return {
        "init_r": math.ceil(INITIAL_RANK * r),
        "total_step": UNKNOWN_STEPS,
        "tinit": NOT_GIVEN,
        "tfinal": NOT_GIVEN,
    }


class AdaLora(AdaLoraModel):
    """PEFT's model with another `forward`.

    PEFT's own `forward` calls the base model without its hooks, which insert the stored states, and adds the penalty to
    the model's own loss alone, but to that of validation rows too.
    """

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return self.model(*args, **kwargs)

    def penalty(self) -> torch.Tensor:
        """What any loss gets in training: `orth_reg_weight` times the mean of |F F' - I| over the factors F, (r, in) or
        (r, out), as a scalar (equation 4)."""
        factors = [
            part if ".lora_A." in name else part.T
            for name, part in self.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        norms = [torch.linalg.norm(part @ part.T - torch.eye(len(part)).to(part)) for part in factors]
        return self.peft_config[self.active_adapters[0]].orth_reg_weight * torch.stack(norms).mean()


class RankAllocation(TrainerCallback):
    """Lets PEFT move rank after every step (algorithm 1).

    Unless `peft.options` says otherwise, ranks keep their initial values for the first tenth of the steps, and have
    their final values for the last half.
    """

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold: the importance of each rank so far, and which ranks are on."""
        allocator = self.model.base_model.rankallocator
        importance = {name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        return {"importance": importance, "rank_pattern": self.model.active_peft_config.rank_pattern}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        vars(self.model.base_model.rankallocator).update(state["importance"])
        self.model.active_peft_config.rank_pattern = state["rank_pattern"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        """Set the number of training steps in PEFT's configuration.

        Raises:
            PipelineError: there are too few steps for the default `tinit` and `tfinal`, or those of `peft.options`.
        """
        self.model = model
        config, steps = model.active_peft_config, state.max_steps
        given = {config.tinit, config.tfinal} != {NOT_GIVEN}
        config.total_step = steps
        config.tinit = steps // 10 if config.tinit == NOT_GIVEN else config.tinit
        config.tfinal = steps // 2 if config.tfinal == NOT_GIVEN else config.tfinal
        if max(config.tinit, 1) + config.tfinal >= steps:  # at first PEFT has not seen yet what ranks are worth
            if not given:
                line = f"train.epochs: expected 3 training steps or more for AdaLoRA, found {steps}"
                raise PipelineError(f"{line}; raise train.epochs, or lower train.batch_size")
            raise PipelineError(
                f"peft.options: expected tinit (1 or more) + tfinal below the run's {steps} steps, "
                f"found {config.tinit} + {config.tfinal}; change them, or raise train.epochs"
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        model.base_model.update_and_allocate(state.global_step + 1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        """Have all ranks saved: `rank_pattern` is that of the last epoch, but an earlier epoch's weights may be kept.

        Zeros in the kept epoch's `lora_E` switch off the ranks that it does not use.
        """
        model.active_peft_config.rank_pattern = None
