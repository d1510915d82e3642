"""What the head of a causal classifier reads: one token of each row, so the last block need not finish the others."""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common import prefix


def last_tokens(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Where the head reads: each row's last token that is not the pad token, (batch,); transformers' own rule."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(dim=1)


def narrow(model: PreTrainedModel) -> None:
    """Run the last block's feed-forward part at the tokens that the head reads alone, in place.

    The logits stay the same; the final hidden states of all other tokens lose their meaning. Blocks without a part
    named `mlp` are left as they are.
    """
    feed_forward = getattr(prefix.blocks(model)[-1], "mlp", None)
    if feed_forward is None:
        return

    def find(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        rows = torch.arange(len(ids), device=ids.device)
        prefix.blocks(model)[-1].mlp.read = rows, last_tokens(ids, model.config.pad_token_id)

    def pick(feed_forward: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        feed_forward.shape = args[0].shape
        return args[0][feed_forward.read].unsqueeze(1)

    def put_back(feed_forward: nn.Module, args: tuple[torch.Tensor], computed: torch.Tensor) -> torch.Tensor:
        result = computed.new_zeros(feed_forward.shape)
        result[feed_forward.read] = computed.squeeze(1)
        return result

    model.register_forward_pre_hook(find, with_kwargs=True)
    feed_forward.register_forward_pre_hook(pick)
    feed_forward.register_forward_hook(put_back)
