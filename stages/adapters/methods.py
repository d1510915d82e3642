"""The adapters: what each method of PEFT trains, put on the base model with its head, and loaded again.

What is saved from here loads with plain PEFT; `full`, which has no adapter, with plain transformers.
"""

import dataclasses
import difflib
import math
import re
import textwrap
import typing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import AutoPeftModelForSequenceClassification, PeftConfig, PeftModel, PeftType, TaskType, get_peft_model
from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import ModelOutput
from transformers.pytorch_utils import Conv1D

from stages.backbone import prefix
from stages.backbone.base import load_config
from stages.classifier import last_token as pooled
from stages.classifier import model as classifier
from stages.common.errors import PipelineError
from stages.params import HEEDS, TARGETED, Lora, Params, Peft

CONFIGS: dict[str, type[PeftConfig]] = {
    "lora": peft.LoraConfig,
    "qlora": peft.LoraConfig,  # on layers that `stages.training.quantized` has put in four bits
    "adalora": peft.AdaLoraConfig,
    "vera": peft.VeraConfig,
    "ia3": peft.IA3Config,
    "loha": peft.LoHaConfig,
    "lokr": peft.LoKrConfig,
    "oft": peft.OFTConfig,
    "boft": peft.BOFTConfig,
    "prompt": peft.PromptTuningConfig,
    "prefix": peft.PrefixTuningConfig,
    "p_tuning": peft.PromptEncoderConfig,
    "ln_tuning": peft.LNTuningConfig,
    "head": peft.LoraConfig,  # that adapts no module
}
"""PEFT's configuration of each method; `full` has none."""

PROMPTS = ("prompt", "prefix", "p_tuning")
"""The methods that put virtual tokens before the text."""

STRICT = ConfigDict(strict=True, allow_inf_nan=False)

OURS = {
    *(field.name for field in dataclasses.fields(PeftConfig)),
    "modules_to_save",
    "fan_in_fan_out",
    "total_step",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
}
"""Fields that are set here, or that reach below the layers that are trained."""

VIRTUAL_TOKENS = 20
"""How many, unless `peft.options` says otherwise: where Lester et al. 2021 (figure 3b) see the gain level off."""


def depth(method: str, stored: int) -> int:
    """How many of the lowest blocks `method` leaves as they are, of those whose output is stored."""
    return 0 if method in (*PROMPTS, "full") else stored


def add(model: PreTrainedModel, params: Params, *, depth: int, base: Path) -> PeftModel | PreTrainedModel:
    """Put the method's adapters on the blocks from `depth` on; with the head, they are all that is trained.

    Raises:
        PipelineError: the settings do not fit the method or the model, or PEFT refuses them.
    """
    method, options = params.peft.method, params.peft.options
    check_options(params.peft)
    if method == "full":
        return model
    arguments = modules(model, method, params.lora, depth) | heeded(method, params.lora)
    if (
        method == "adalora"
    ):  # the mean rank falls from 1.5 r to r (Zhang et al. 2023, section 4); `RankAllocation` counts
        arguments |= {"init_r": math.ceil(1.5 * params.lora.r), "total_step": 2**31}
    if method in PROMPTS:
        arguments["num_virtual_tokens"] = options.get("num_virtual_tokens", VIRTUAL_TOKENS)
        check_length(model, params.encode.max_length, arguments["num_virtual_tokens"])
    model.name_or_path = str(base)
    with one_line(method):
        config = CONFIGS[method](
            task_type=TaskType.SEQ_CLS, modules_to_save=trained_whole(model), **arguments | options
        )
        adapted = get_peft_model(model, config)
    if method == "adalora":
        adapted.base_model.__class__ = AdaLora
    if method in PROMPTS and classifier.is_causal(model.config):
        pooled.read_last(adapted.get_base_model())
    return adapted


def load(folder: Path) -> PreTrainedModel | PeftModel:
    """The tuned classifier, loaded as anyone would, with what makes it fast.

    An adapter is merged into its base model where it can be; one of virtual tokens cannot. A folder without an adapter
    holds a whole model.
    """
    labels = classifier.load_labels(folder)
    if not (folder / "adapter_config.json").exists():
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **labels)
    adapter = AutoPeftModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **labels)
    causal = classifier.is_causal(load_config(Path(adapter.active_peft_config.base_model_name_or_path)))
    if adapter.active_peft_config.is_prompt_learning:
        if causal:
            pooled.read_last(adapter.get_base_model())
        return adapter
    model = adapter.merge_and_unload()
    for name, part in list(model.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):  # where PEFT's merging of layer norms leaves the head
            model.set_submodule(name, part.unload_and_optionally_merge_module(True, False, None))
    if causal:
        pooled.narrow(model)
    return model


def check_options(chosen: Peft) -> None:
    """Check the names and types of `peft.options` against the fields of PEFT's configuration.

    Raises:
        PipelineError: on the first that is unknown, of another type, or set elsewhere.
    """
    if chosen.options and chosen.method in ("head", "full"):
        raise PipelineError(f"peft.options: expected none with peft.method: {chosen.method}, found {chosen.options}")
    elsewhere = {field: f"lora.{key}" for key, field in HEEDS.get(chosen.method, {}).items()}
    elsewhere |= {"target_modules": "lora.target_modules", "layers_to_transform": "lora.top_layers"}
    if chosen.method == "adalora":
        elsewhere |= {"init_r": "lora.r", "r": "lora.r", "rank_pattern": "the training"}
    fields = typing.get_type_hints(CONFIGS[chosen.method]) if chosen.options else {}
    valid = [name for name in fields if name not in elsewhere and name not in OURS]
    for name, value in chosen.options.items():
        if name in elsewhere:
            raise PipelineError(f"peft.options.{name}: expected {elsewhere[name]} to set it, found {value!r}")
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"{chosen.method} has {', '.join(valid)}"
            raise PipelineError(f"peft.options.{name}: unknown with peft.method: {chosen.method}; {hint}")
        try:
            TypeAdapter(fields[name], config=STRICT).validate_python(value)
        except ValidationError as error:
            expected = " or ".join(one["msg"].removeprefix("Input should be ") for one in error.errors())
            raise PipelineError(f"peft.options.{name}: expected {expected}, found {value!r}") from None


def modules(model: PreTrainedModel, method: str, lora: Lora, depth: int) -> dict[str, Any]:
    """Which modules `method` adapts, in the terms of its configuration.

    Raises:
        PipelineError: `lora.target_modules` names nothing within a block.
    """
    if method == "head":
        return {"target_modules": DUMMY_TARGET_MODULES}
    layers, block = list(range(depth, model.config.num_hidden_layers)), prefix.adapted(model, depth)
    if method == "ln_tuning":
        return {"target_modules": pattern(layers, norms(block))}
    if method not in TARGETED:
        return {}
    available = projections(block)
    targets = available if lora.target_modules == "all-linear" else lora.target_modules
    check_targets(targets, available)
    if method == "ia3":
        paths = [path for path in available if any(ends(path, name) for name in targets)]
        arguments = {"target_modules": pattern(layers, paths), "feedforward_modules": []}
    else:
        arguments = {"target_modules": targets, "layers_to_transform": layers}
    if "fan_in_fan_out" in CONFIGS[method].__dataclass_fields__:
        arguments["fan_in_fan_out"] = any(isinstance(part, Conv1D) for part in model.modules())
    return arguments


def check_targets(targets: list[str], available: list[str]) -> None:
    """Check that every name that `lora.target_modules` gives is, or ends, one of the projections available.

    Raises:
        PipelineError: one is not.
    """
    if unknown := [name for name in targets if not any(ends(path, name) for path in available)]:
        raise PipelineError(
            f"lora.target_modules: expected names of a layer's projections, found {', '.join(unknown)}; "
            f"this model has {', '.join(available)}"
        )


def ends(path: str, name: str) -> bool:
    """Whether `name` is the module's path, or its last parts."""
    return f".{path}".endswith(f".{name}")


def pattern(layers: list[int], names: list[str]) -> str:
    """The regular expression of the modules `names` in the blocks `layers`, for methods that know no layers."""
    return rf".*\.({'|'.join(map(str, layers))})\.({'|'.join(map(re.escape, names))})"


def projections(block: nn.Module) -> list[str]:
    """The names, within a block, of the linear layers that can be adapted."""
    return [name for name, part in block.named_modules() if isinstance(part, nn.Linear | Conv1D)]


def norms(block: nn.Module) -> list[str]:
    """The names, within a block, of its layer norms, by the way their classes are named (LayerNorm, LlamaRMSNorm)."""
    return [name for name, part in block.named_modules() if type(part).__name__.endswith("Norm")]


def heeded(method: str, lora: Lora) -> dict[str, Any]:
    """What `lora` says that the method knows, in the method's own terms."""
    values = {field: getattr(lora, key) for key, field in HEEDS.get(method, {}).items()}
    if values.get("bias") == "lora_only" and method in ("vera", "oft", "boft"):
        values["bias"] = f"{method}_only"
    if values.get("init_lora_weights") == "default":
        values["init_lora_weights"] = True
    return values


def trained_whole(model: PreTrainedModel) -> list[str]:
    """The names of the modules that are trained and saved whole.

    They are those on top of the base model, and what the base lacks beneath them (BERT's pooler, where the base was
    saved from a language model): left out, it would start at random again in every loading.
    """
    tops = [(name, part) for name, part in model.named_children() if name != model.base_model_prefix]
    heads = [name for name, part in tops if any(True for _ in part.parameters())]
    return heads + [name for name in model.fresh_modules if name.split(".")[0] not in heads]


def check_length(model: PreTrainedModel, text: int, virtual: int) -> None:
    """Check that text and virtual tokens together have positions in the model.

    Raises:
        PipelineError: the model has fewer positions.
    """
    positions = getattr(model.config, "max_position_embeddings", text + virtual)
    if text + virtual > positions:
        raise PipelineError(
            f"encode.max_length: expected at most {positions - virtual}, as the model has {positions} positions and "
            f"{virtual} of them go to virtual tokens, found {text}"
        )


@contextmanager
def one_line(method: str) -> Iterator[None]:
    """Turn PEFT's refusal, or its warning that a pattern fits no module, into one line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The following .* did not match any targeted module")
            yield
    except (ValueError, TypeError, RuntimeError, RuntimeWarning) as error:
        reason = textwrap.shorten(str(error), width=300)
        raise PipelineError(f"peft.method: {method}: PEFT does not take these settings: {reason}") from None


def callbacks(model: nn.Module) -> list[TrainerCallback]:
    """What the method needs done while it trains."""
    return [RankAllocation()] if isinstance(model, PeftModel) and model.peft_type == PeftType.ADALORA else []


class AdaLora(peft.AdaLoraModel):
    """PEFT's, but the model is called with its hooks, and only training's loss holds the penalty."""

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        output = self.model(*args, **kwargs)
        if self.training and output.loss is not None:
            output.loss = output.loss + self.peft_config[self.trainable_adapter_name].orth_reg_weight * self.penalty()
        return output

    def penalty(self) -> torch.Tensor:
        """The mean of |F F' - I| over the factors F, (r, in) or (r, out) (Zhang et al. 2023, equation 4)."""
        factors = [
            part if ".lora_A." in name else part.T
            for name, part in self.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        return torch.stack(
            [torch.linalg.norm(part @ part.T - torch.eye(len(part)).to(part)) for part in factors]
        ).mean()


class RankAllocation(TrainerCallback):
    """AdaLoRA's moves of rank from where it matters least (Zhang et al. 2023, algorithm 1).

    Unless `peft.options` says otherwise, the rank is full in the first tenth of the steps and final in the last half.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        config, steps = model.active_peft_config, state.max_steps
        config.total_step, config.tinit, config.tfinal = steps, config.tinit or steps // 10, config.tfinal or steps // 2
        if config.tinit + config.tfinal >= steps:
            raise PipelineError(
                f"peft.options: expected tinit + tfinal below the run's {steps} steps, "
                f"found {config.tinit} + {config.tfinal}"
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        model.base_model.update_and_allocate(state.global_step + 1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: PeftModel, **kwargs: Any
    ) -> None:
        model.active_peft_config.rank_pattern = None  # an earlier epoch may be kept; zeros in its lora_E say the ranks
