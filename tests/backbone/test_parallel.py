"""Batches computed side by side."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import CAUSAL
from families import sentences, unlabelled
from torch import nn
from transformers import AutoModel, AutoTokenizer

from stages.backbone import frozen_linear, parallel
from stages.backbone.device import device

WORKERS = 2

NEEDS_MKL = pytest.mark.skipif(
    device().type != "cpu" or not torch.backends.mkl.is_available(), reason="needs a CPU alone, and MKL"
)

pytestmark = pytest.mark.usefixtures("two_threads")


class Slow(nn.Module):
    """Keeps its input on itself during a forward pass, as spliced models do, and takes its time over it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        self.kept = x
        time.sleep(0.01)
        return self.kept * self.scale


def test_batches_computed_side_by_side_give_their_own_results_in_order():
    seen = set()

    def compute(model, batch):
        seen.add(threading.get_ident())
        return model(torch.tensor(float(batch[0]), device=device())).item()

    assert each_batch(Slow(), compute, 20) == [2.0 * number for number in range(20)]
    assert len(seen) == WORKERS


def test_replicas_hold_the_models_own_weights():
    model = Slow().to(device())
    addresses = set(each_batch(model, lambda replica, _: replica.scale.data_ptr(), 4))
    assert addresses == {model.scale.data_ptr()}


def test_kept_replicas_serve_every_number_of_batches_and_pack_the_weights_once(monkeypatch):
    packed, kept = [], {}
    monkeypatch.setattr(frozen_linear, "pack", packed.append)
    torch.set_num_threads(8)
    found = {
        count: set(parallel.each_batch(Slow(), lambda replica, _: id(replica), [[0]] * count, progress=None, kept=kept))
        for count in (2, 8, 3, 8)
    }
    assert len(packed) == 1
    assert len(set.union(*found.values())) == kept[True].count <= 8


def test_gradients_are_off_and_the_threads_are_put_back():
    def compute(model, batch):
        return torch.is_inference_mode_enabled(), model.training, torch.get_num_threads()

    assert set(each_batch(Slow(), compute, 4)) == {(True, False, 2 // WORKERS)}
    assert threads_of_a_new_thread() == 2


def test_a_single_batch_gets_all_threads():
    assert each_batch(Slow(), lambda *_: torch.get_num_threads(), 1) == [2]


def test_no_batches_give_no_results():
    assert each_batch(Slow(), lambda *_: 1, 0) == []


@pytest.mark.parametrize("faster", [False, pytest.param(True, marks=NEEDS_MKL)], ids=["torch", "onednn"])
@pytest.mark.parametrize("family", [*CAUSAL, "bert"])
def test_a_single_batch_computed_as_one_of_many_has_the_bits_that_it_has_among_them(
    family, faster, saved_model, monkeypatch
):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", faster)
    model = AutoModel.from_pretrained(saved_model(family))
    tokens = AutoTokenizer.from_pretrained(saved_model(family))([text for text, _ in sentences(32)])["input_ids"]
    rows = unlabelled(tokens, pad_token_id=0)

    def compute(replica, indices):
        batch = {name: values.to(device()) for name, values in rows.batch(indices).items() if name != "labels"}
        packed = sum("forward" in vars(part) for part in replica.modules())
        return replica(**batch).last_hidden_state.cpu().numpy(), torch.get_num_threads(), packed

    batches = rows.by_length(4)
    among = parallel.each_batch(model, compute, batches, progress="test")
    for batch, (expected, threads, packed) in zip(batches, among, strict=True):
        ((alone, *settings),) = parallel.each_batch(model, compute, [batch], progress="test", as_one_of_many=True)
        assert np.array_equal(alone, expected)
        assert settings == [threads, packed]
        assert (packed > 0) is faster


@pytest.mark.skipif(device().type != "cpu", reason="needs a CPU alone")
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_a_workers_share_of_the_cores_does_not_depend_on_the_number_of_batches(count):
    torch.set_num_threads(16)
    options = {"progress": "test", "as_one_of_many": True}
    batches = [[number] for number in range(count)]
    assert set(parallel.each_batch(Slow(), lambda *_: torch.get_num_threads(), batches, **options)) == {2}


def test_an_error_ends_the_run():
    done = []

    def compute(model, batch):
        if batch == [1]:
            raise ValueError("batch 1")
        time.sleep(0.01)
        done.append(batch)

    with pytest.raises(ValueError, match="batch 1"):
        each_batch(Slow(), compute, 200)
    assert len(done) < 20
    assert threads_of_a_new_thread() == 2


@pytest.mark.skipif(device().type != "cpu", reason="needs a CPU alone")
@pytest.mark.parametrize(("threads", "workers", "each"), [(8, 8, 1), (9, 4, 2), (12, 6, 2), (16, 8, 2)])
def test_more_cores_than_batches_at_once_are_shared_out(threads, workers, each):
    torch.set_num_threads(threads)
    seen = set(each_batch(Slow(), lambda model, _: (id(model), torch.get_num_threads()), 2 * threads))
    assert {count for _, count in seen} == {each}
    assert len(seen) <= workers


def each_batch(model, compute, count):
    """The results for so many batches of one row."""
    return parallel.each_batch(model, compute, [[number] for number in range(count)], progress="test")


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()
