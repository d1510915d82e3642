"""The head of a causal classifier reads one token of each row, so the last block need not finish the others."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.backbone import prefix


def last_tokens(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Where the head reads in each row, (batch,): its last token that is not padding, as in transformers."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(dim=1)


def mlp_at_last_token_only(model: PreTrainedModel) -> None:
    """Run the last block's feed-forward module only at the tokens that the head reads; changes `model` in place.

    The logits stay the same; the final hidden states of all other tokens become meaningless. Nothing changes where the
    block has no module named `mlp` that takes only hidden states, nor in a pass that gets embeddings instead of tokens.
    """
    feed_forward = next((block.mlp for block in prefix.blocks(model)[-1:] if hasattr(block, "mlp")), None)
    if feed_forward is None or len(inspect.signature(feed_forward.forward).parameters) != 1:
        return

    def find(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        read = None
        if ids is not None:
            read = torch.arange(ids.shape[0], device=ids.device), last_tokens(ids, model.config.pad_token_id)
        prefix.blocks(model)[-1].mlp.read = read

    def pick(feed_forward: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        feed_forward.shape = args[0].shape
        return args[0] if feed_forward.read is None else args[0][feed_forward.read].unsqueeze(1)

    def put_back(feed_forward: nn.Module, args: tuple[torch.Tensor], computed: torch.Tensor | tuple) -> Any:
        if feed_forward.read is None:
            return computed
        states, *others = computed if isinstance(computed, tuple) else (computed,)  # GPT-OSS: its router's scores too
        result = states.new_zeros(feed_forward.shape)
        result[feed_forward.read] = states.squeeze(1)
        return (result, *others) if others else result

    model.register_forward_pre_hook(find, with_kwargs=True)
    feed_forward.register_forward_pre_hook(pick)
    feed_forward.register_forward_hook(put_back)


def read_last_token(model: PreTrainedModel) -> None:
    """Make the head read each row's last token where the model gets embeddings instead of tokens, in place.

    transformers finds that token by the token ids; without ids it reads the last position, which is padding in the
    shorter rows of a batch.
    """

    def find(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
        mask = None if kwargs.get("inputs_embeds") is None else kwargs["attention_mask"]
        model.score.last = None if mask is None else last_tokens(mask, pad_token_id=0)

    def pick(head: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        if head.last is None:
            return args[0]
        return args[0][torch.arange(len(head.last)), head.last].unsqueeze(1)

    model.register_forward_pre_hook(find, with_kwargs=True)
    model.score.register_forward_pre_hook(pick)
