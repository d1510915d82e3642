"""The last block's feed-forward part at the tokens that the head reads alone."""

import pytest
import torch
from conftest import CAUSAL, LAYERS
from transformers import AutoModelForSequenceClassification

from stages.backbone import prefix
from stages.classifier import last_token

PAD = 0
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, PAD, 12, PAD, PAD], [13, 14, 15, 16, PAD]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])


def test_the_head_reads_the_last_token_that_is_not_the_pad_token():
    assert last_token.last_tokens(IDS, PAD).tolist() == [4, 2, 3]


@pytest.mark.parametrize("family", CAUSAL)
def test_logits_and_gradients_stay_and_other_tokens_are_not_computed(family, saved_model):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(saved_model(family), num_labels=3, pad_token_id=PAD)
    model.eval()
    widths = []
    prefix.blocks(model)[LAYERS - 1].mlp.register_forward_pre_hook(lambda part, args: widths.append(args[0].shape))
    inner = next(prefix.blocks(model)[LAYERS - 1].mlp.children())
    inner.register_forward_pre_hook(lambda part, args: widths.append(args[0].shape))

    def results():
        model.zero_grad()
        logits = model(input_ids=IDS, attention_mask=MASK).logits
        logits.logsumexp(dim=1).sum().backward()
        return logits.detach(), {name: part.grad.clone() for name, part in model.named_parameters()}

    logits, gradients = results()
    last_token.mlp_at_last_token_only(model)
    new_logits, new_gradients = results()
    assert widths == [(3, 5, 32), (3, 5, 32), (3, 5, 32), (3, 1, 32)]
    torch.testing.assert_close(new_logits, logits, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(new_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_a_model_without_such_a_part_is_left_as_it_is(saved_model):
    model = AutoModelForSequenceClassification.from_pretrained(saved_model("bert"), pad_token_id=PAD).eval()
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    last_token.mlp_at_last_token_only(model)
    assert torch.equal(model(input_ids=IDS, attention_mask=MASK).logits, expected)


@pytest.mark.parametrize("family", CAUSAL)
def test_from_embeddings_the_head_reads_each_rows_last_token_too(family, saved_model):
    model = AutoModelForSequenceClassification.from_pretrained(saved_model(family), num_labels=3, pad_token_id=PAD)
    model.eval()
    embeddings = model.get_input_embeddings()(IDS)
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    last_token.read_last_token(model)
    logits = model(inputs_embeds=embeddings, attention_mask=MASK).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert torch.equal(model(input_ids=IDS, attention_mask=MASK).logits, expected)
