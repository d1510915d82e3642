"""What each PEFT method trains, and how its adapters are added to the base model with its head.

The saved adapter loads with plain PEFT; the model of `full`, which has no adapter, with plain transformers.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.pytorch_utils import Conv1D

from stages.adapters import adalora
from stages.adapters.options import CONFIGS, check_options
from stages.adapters.params import ON_PROJECTIONS, PEFT_FIELD_OF, Lora, Peft
from stages.adapters.peft_internals import NO_TARGET_MODULES, UNMATCHED_PATTERN
from stages.backbone import prefix
from stages.backbone.base import max_tokens
from stages.classifier import last_token
from stages.classifier.model import is_causal
from stages.common import texts
from stages.common.errors import PipelineError

PROMPTS = ("prompt", "prefix", "p_tuning")
"""The methods that put virtual tokens before the text."""

VIRTUAL_TOKENS = 20
"""How many virtual tokens, unless `peft.options` sets it: here the gain levels off (Lester et al. 2021, figure 3b)."""


def depth(method: str, stored: int) -> int:
    """How many of the lowest blocks `method` leaves unchanged, given the number of blocks below the stored states."""
    return 0 if method in (*PROMPTS, "full") else stored


def add(
    model: PreTrainedModel, *, peft: Peft, lora: Lora, max_length: int, depth: int, base: Path
) -> PeftModel | PreTrainedModel:
    """Add the method's adapters to the blocks from `depth` on; only the adapters and the head are trained.

    Args:
        model: with its head, as `stages.classifier.model.load_base` returns it; changed in place.
        max_length: of a text, in tokens.
        base: the folder of the base model, which the saved adapter names.

    Raises:
        PipelineError: the settings do not fit the method or the model, or PEFT refuses them.
    """
    method, options = peft.method, peft.options
    check_options(peft)
    if method == "full":
        return model
    if method in PROMPTS and model.config.is_encoder_decoder:
        raise PipelineError(
            f"peft.method: {method}: expected an encoder or a decoder, found {model.config.model_type}, both, whose "
            "head cannot read virtual tokens; choose a method that adapts layers, such as lora"
        )
    settings = adapted_modules(model, method, lora, depth) | lora_fields(method, lora)
    if method == "adalora":
        settings |= adalora.initial_fields(lora.r)
    if method in PROMPTS:
        settings["num_virtual_tokens"] = options.get("num_virtual_tokens", VIRTUAL_TOKENS)
        check_positions(model, max_length, settings["num_virtual_tokens"])
    model.name_or_path = str(base)
    with peft_errors_in_one_line(method):
        config = CONFIGS[method](
            task_type=TaskType.SEQ_CLS, modules_to_save=modules_to_save(model), **settings | options
        )
        adapted = get_peft_model(model, config)
    if method == "adalora":
        adapted.base_model.__class__ = adalora.AdaLora  # `get_peft_model` takes the class from PEFT's configuration
    if method in PROMPTS and is_causal(model.config):
        last_token.read_last_token(adapted.get_base_model())
    return adapted


def adapted_modules(model: PreTrainedModel, method: str, lora: Lora, depth: int) -> dict[str, Any]:
    """Which modules `method` adapts, as fields of its configuration.

    Raises:
        PipelineError: a name in `lora.target_modules` matches no projection of a block, or PEFT cannot initialize one.
    """
    if method == "head":
        return {"target_modules": NO_TARGET_MODULES}
    blocks = prefix.adapted(model, depth)
    layers = list(range(depth, max([model.config.num_hidden_layers, *map(len, prefix.stacks(model))])))
    if method == "ln_tuning":
        return {"target_modules": modules_pattern(layers, norms(blocks))}
    if method not in ON_PROJECTIONS:
        return {}
    available = projections(blocks)
    targets = available if lora.target_modules == "all-linear" else lora.target_modules
    check_targets(targets, available)
    if method == "ia3":
        paths = [path for path in available if any(ends_with(path, name) for name in targets)]
        settings = {"target_modules": modules_pattern(layers, paths), "feedforward_modules": []}
    else:
        settings = {"target_modules": targets, "layers_to_transform": layers}
    if "fan_in_fan_out" in {field.name for field in fields(CONFIGS[method])}:
        settings["fan_in_fan_out"] = any(isinstance(part, Conv1D) for part in model.modules())
        if settings["fan_in_fan_out"] and "init" in PEFT_FIELD_OF.get(method, {}) and lora.init == "olora":
            raise PipelineError(
                "lora.init: olora: expected a model whose projections are Linear layers, found Conv1D layers in "
                f"{model.config.model_type}, whose outputs OLoRA in PEFT would change; set lora.init: pissa"
            )
    return settings


def check_targets(targets: list[str], available: list[str]) -> None:
    """Check that every name in `lora.target_modules` is the path of an available projection, or the end of one.

    Raises:
        PipelineError: a name is not.
    """
    if unknown := [name for name in targets if not any(ends_with(path, name) for path in available)]:
        raise PipelineError(
            f"lora.target_modules: expected names of a layer's projections, found {', '.join(unknown)}; "
            f"this model has {', '.join(available)}"
        )


def ends_with(path: str, name: str) -> bool:
    """Whether `name` is the module's whole path, or its last parts."""
    return f".{path}".endswith(f".{name}")


def modules_pattern(layers: list[int], names: list[str]) -> str:
    """A regular expression for modules `names` in the blocks `layers`, for methods without `layers_to_transform`."""
    return rf".*\.({'|'.join(map(str, layers))})\.({'|'.join(map(re.escape, names))})"


def projections(blocks: list[nn.Module]) -> list[str]:
    """The names, within a block, of the linear layers that can be adapted."""
    return names_of(blocks, lambda part: isinstance(part, nn.Linear | Conv1D))


def norms(blocks: list[nn.Module]) -> list[str]:
    """The names, within a block, of its layer norms, recognized by their class names (LayerNorm, LlamaRMSNorm)."""
    return names_of(blocks, lambda part: type(part).__name__.endswith("Norm"))


def names_of(blocks: list[nn.Module], wanted: Callable[[nn.Module], bool]) -> list[str]:
    """The names of the wanted modules within the blocks, each once."""
    return list(dict.fromkeys(name for block in blocks for name, part in block.named_modules() if wanted(part)))


def lora_fields(method: str, lora: Lora) -> dict[str, Any]:
    """The fields of the method's configuration that the section `lora` sets, under PEFT's names."""
    values = {field: getattr(lora, key) for key, field in PEFT_FIELD_OF.get(method, {}).items()}
    if values.get("bias") == "lora_only" and method in ("vera", "oft", "boft"):
        values["bias"] = f"{method}_only"
    if values.get("init_lora_weights") == "default":
        values["init_lora_weights"] = True
    return values


def modules_to_save(model: PreTrainedModel) -> list[str]:
    """The names of the modules that are trained and saved whole.

    They are the modules on top of the base model, and the modules within it that it was saved without (BERT's pooler,
    where the base was saved from a language model), which would otherwise start at random again in every loading.
    """
    tops = [(name, part) for name, part in model.named_children() if name != model.base_model_prefix]
    heads = [name for name, part in tops if any(True for _ in part.parameters())]
    return heads + [name for name in model.fresh_modules if name.split(".")[0] not in heads]


def check_positions(model: PreTrainedModel, text: int, virtual: int) -> None:
    """Check that the model takes the tokens of a text and the virtual tokens together.

    Raises:
        PipelineError: it takes fewer.
    """
    most = max_tokens(model.config)
    if text + virtual > most:
        raise PipelineError(
            f"encode.max_length: expected at most {most - virtual}, as the model takes {most} tokens and {virtual} of "
            f"them are virtual, found {text}"
        )


@contextmanager
def peft_errors_in_one_line(method: str) -> Iterator[None]:
    """Turn PEFT's refusal, or its warning that a pattern names no module, into one line.

    Raises:
        PipelineError: PEFT refuses the settings, or gives that warning.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=UNMATCHED_PATTERN)
            yield
    except (ValueError, TypeError, RuntimeError, RuntimeWarning) as error:
        reason = texts.shortened(str(error), 300)
        raise PipelineError(f"peft.method: {method}: PEFT rejects these settings: {reason}") from None


def callbacks(model: nn.Module) -> list[TrainerCallback]:
    """The callbacks that the method needs in training."""
    return [adalora.RankAllocation()] if is_adalora(model) else []


def penalty(model: nn.Module) -> Tensor | float:
    """What the method adds to the loss in training."""
    return model.base_model.penalty() if is_adalora(model) else 0.0


def is_adalora(model: nn.Module) -> bool:
    """Whether the adapters are AdaLoRA's."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, adalora.AdaLora)
