"""A model split at a block: the output of the frozen lower blocks is computed once, and reused in every later run.

LoRA on the top k of n blocks leaves the lower n - k a fixed function of the text. `capture` runs only those lower
blocks and returns their output, the input of block n - k; `splice` removes them from a model, which then takes the
stored output instead. Indices, masks, rotary tables and position ids stay those of the full model, so the spliced
model's logits are the full model's, and an adapter trained on the spliced model loads on the full model.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from stages.common.errors import PipelineError
from stages.common.texts import shortened


class PassThrough(nn.Module):
    """Replaces a block and returns the hidden states that it gets: alone or first in a tuple, as the block did.

    Models read attributes of their blocks (`attention_type`, `layer_idx`); those are kept, the weights are not.
    """

    def __init__(self, block: nn.Module, *, others: int | None) -> None:
        super().__init__()
        self.__dict__ |= {name: value for name, value in vars(block).items() if isinstance(value, str | int | bool)}
        self.others = others

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | tuple:
        return hidden_states if self.others is None else (hidden_states, *[None] * self.others)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks: its `ModuleList` of length `config.num_hidden_layers`.

    Empty where there is not exactly one such list: in ALBERT, whose layers share their weights, and in an
    encoder-decoder, which has two.
    """
    found = stacks(model)
    return found[0] if len(found) == 1 else nn.ModuleList()


def stacks(model: nn.Module) -> list[nn.ModuleList]:
    """The model's list of transformer blocks, or the lists of its encoder and its decoder; none in ALBERT."""
    if model.config.is_encoder_decoder:
        return [first_list(part) for part in (model.get_encoder(), model.get_decoder())]
    count = model.config.num_hidden_layers
    found = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    return found if len(found) == 1 else []


def first_list(model: nn.Module) -> nn.Module:
    """The first `ModuleList` in a model, or the model, which has none."""
    return next((part for part in model.modules() if isinstance(part, nn.ModuleList)), model)


def adapted(model: nn.Module, depth: int) -> list[nn.Module]:
    """The lowest module that gets adapters: block `depth`. The blocks above it have projections of the same names.

    Of an encoder-decoder, the lowest block of each. Where there is no list of blocks, the first list in the model,
    which holds the modules that the layers share.
    """
    return [layers[depth] for layers in stacks(model)] or [first_list(model)]


def depth(layers: int, top_layers: int | str) -> int:
    """How many of the blocks in use are below the top layers, which are trained; 0 if there are no others."""
    return 0 if top_layers == "all" else max(0, layers - top_layers)


def check_split(model: PreTrainedModel, depth: int) -> None:
    """Check that `model` split at `depth` computes the same as the whole, on two short rows of unequal lengths.

    Raises:
        PipelineError: it does not, or the whole computes numbers that are not finite.
    """
    ids = torch.arange(2, 12).view(2, 5) % model.config.vocab_size  # of letters there may be fewer (DNA)
    rows = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}
    tokens = rows["attention_mask"].bool()
    weights = {id(part): part for part in [*model.parameters(), *model.buffers()]}
    lower, upper = copy.deepcopy(model.eval(), dict(weights)), copy.deepcopy(model, dict(weights))
    with torch.inference_mode():
        expected = model(**rows).last_hidden_state
        if not expected[tokens].isfinite().all():
            raise PipelineError(
                "models/base: expected a model with finite output, found NaN or infinity on two short rows; restore "
                "it with: dvc checkout --force models/base, or choose another model.source"
            )
        try:
            capture(lower, depth)
            splice(upper, depth)
            states = lower(**rows)
            found = upper(**rows, states=states).last_hidden_state
        except Exception as error:  # an unusual model may need what was removed, and raise any error
            told = shortened(" ".join(str(error).split()), 200)
            raise cannot_split(model, depth, f"where the parts fail ({type(error).__name__}: {told})") from error
    if states.shape != (*tokens.shape, model.config.hidden_size):
        raise cannot_split(model, depth, f"whose layers return states of another shape, {(*states.shape,)}")
    if not torch.allclose(found[tokens], expected[tokens], rtol=1e-4, atol=1e-5):
        most = (found - expected)[tokens].abs().max().item()
        raise cannot_split(model, depth, f"whose output differs by {most:.2g} if they are")


def cannot_split(model: PreTrainedModel, depth: int, found: str) -> PipelineError:
    """The error that says why the lower layers cannot be run separately."""
    return PipelineError(
        f"lora.top_layers: expected a model whose lowest {depth} layers can be run separately, found "
        f"{model.config.model_type}, {found}; set lora.top_layers: all, which trains all layers and stores no states"
    )


def capture(model: PreTrainedModel, depth: int) -> None:
    """Cut `model`, in place, above its lowest `depth` blocks; its forward then returns their output.

    The output has the shape (batch, tokens, hidden).
    """
    remove(model, range(depth, len(blocks(model))))

    def record(block: PassThrough, args: tuple) -> None:
        block.states = args[0]

    def states(model: PreTrainedModel, args: tuple, output: ModelOutput) -> torch.Tensor:
        return blocks(model)[depth].states

    blocks(model)[depth].register_forward_pre_hook(record)
    model.register_forward_hook(states)


def splice(model: PreTrainedModel, depth: int) -> None:
    """Remove the lowest `depth` blocks from `model`, in place; its forward then also takes their output, `states`.

    `states` has the shape (batch, tokens, hidden). At depth 0 nothing changes.
    """
    if not depth:
        return
    remove(model, range(depth))

    def take(model: PreTrainedModel, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        blocks(model)[depth].states = kwargs.pop("states")
        return args, kwargs

    def hand_over(block: nn.Module, args: tuple) -> tuple:
        return block.states.to(args[0]), *args[1:]

    model.register_forward_pre_hook(take, with_kwargs=True)
    blocks(model)[depth].register_forward_pre_hook(hand_over)


def remove(model: PreTrainedModel, indices: range) -> None:
    """Replace each block at `indices` with a pass-through."""
    layers, others = blocks(model), extra_outputs_of_a_block(model)
    for index in indices:
        layers[index] = PassThrough(layers[index], others=others)


def extra_outputs_of_a_block(model: PreTrainedModel) -> int | None:
    """How many values a block returns besides the hidden states, tried on one token; None: it returns no tuple."""
    outputs = []
    hook = blocks(model)[0].register_forward_hook(lambda block, args, output: outputs.append(output))
    with torch.no_grad():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))
    hook.remove()
    return len(outputs[0]) - 1 if isinstance(outputs[0], tuple | list) else None
