"""A model whose weights are shared out over processes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stages.backbone.parallel import each_batch
from stages.common.errors import PipelineError
from stages.compute import ranks, shards

BATCHES = [torch.randn(rows, 6, generator=torch.manual_seed(rows)) for rows in (1, 2, 3)]


def model() -> nn.Sequential:
    """One whose rows no two ranks can share equally."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 1))


def compute(of: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return of(batch)


def hold_shares() -> None:
    expected, found = model(), model()
    expected[1].requires_grad_(False)
    found[1].requires_grad_(False)
    assert shards.whole(found) is None
    shards.shard(found, found, found, shards.mesh())

    held = sum(part.to_local().numel() for part in found.parameters())
    assert ranks.gathered(held) == [4 * 6 + 4 + 7 + 1, 3 * 6 + 3]
    with torch.no_grad():
        for batch, answers in zip(BATCHES, each_batch(found, compute, BATCHES, progress=None), strict=True):
            torch.testing.assert_close(answers, expected(batch))
    assert sum(part.to_local().numel() for part in found.parameters()) == held, "what was gathered is freed"

    shards.assign(found[0].weight, 2 * expected[0].weight.detach())
    trained = shards.whole(found)
    if ranks.is_first():
        assert {name: part.shape for name, part in trained.items()} == {"0.weight": (7, 6), "0.bias": (7,)}
        assert torch.equal(trained["0.weight"], 2 * expected[0].weight)
    else:
        assert trained == {}

    single = nn.Sequential(nn.PReLU())
    single[0].weight = nn.Parameter(torch.tensor(0.5))
    with pytest.raises(PipelineError, match=r"compute\.strategy: expected ddp, as fsdp cannot share out .* scalar"):
        shards.shard(single, single, [], shards.mesh())


@pytest.mark.long
def test_each_process_holds_its_share_and_all_compute_what_the_whole_model_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ranks.run(hold_shares, SimpleNamespace(processes=2, engine="local"))
