import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from stages.backbone import parallel
from stages.backbone.device import device

WORKERS = 2 if device().type == "cpu" else 1

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


def test_gradients_are_off_and_the_threads_are_put_back():
    def compute(model, batch):
        return torch.is_inference_mode_enabled(), model.training, torch.get_num_threads()

    assert set(each_batch(Slow(), compute, 4)) == {(True, False, 2 // WORKERS)}
    assert threads_of_a_new_thread() == 2


def test_a_single_batch_gets_all_threads():
    assert each_batch(Slow(), lambda *_: torch.get_num_threads(), 1) == [2]


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


@pytest.mark.skipif(WORKERS == 1, reason="needs a CPU alone")
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
