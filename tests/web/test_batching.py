"""Questions at the same time are answered together, each with its own answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stages.web.batching import Batcher, FullError


@pytest.fixture
def batcher():
    made = Batcher(most=8, capacity=10)
    yield made
    made.close()


def doubled(inputs):
    return [2 * one for one in inputs]


def held(batcher):
    """Have the batcher's thread wait; returns what lets it go on."""
    begun, go = threading.Event(), threading.Event()
    batcher.submit(lambda inputs: [begun.set(), go.wait()], [None])
    begun.wait()
    return go


def test_each_of_many_clients_gets_the_answers_to_its_own_questions(batcher):
    def ask(number):
        inputs = [number * 100 + one for one in range(1 + number % 3)]
        return batcher.submit(doubled, inputs).result() == doubled(inputs)

    batcher.capacity = 1000
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(200)))


def test_what_waits_is_answered_together_by_way_of_answering_and_a_large_question_alone(batcher):
    batches = []

    def noted(inputs):
        batches.append(list(inputs))
        return inputs

    go = held(batcher)
    futures = [batcher.submit(noted, [1, 2]), batcher.submit(doubled, [3]), batcher.submit(noted, [4, 5, 6, 7])]
    assert batcher.waiting == 7
    futures.append(batcher.submit(noted, [8, 9, 10]))
    go.set()
    assert [future.result() for future in futures] == [[1, 2], [6], [4, 5, 6, 7], [8, 9, 10]]
    assert batches == [[1, 2, 4, 5, 6, 7], [8, 9, 10]]
    assert batcher.submit(noted, list(range(10))).result() == batches[-1] == list(range(10))


def test_a_fault_of_one_question_is_not_anothers(batcher):
    def strict(inputs):
        if "bad" in inputs:
            raise ValueError("bad")
        return inputs

    go = held(batcher)
    good, bad = batcher.submit(strict, ["good"]), batcher.submit(strict, ["bad"])
    go.set()
    assert good.result() == ["good"]
    with pytest.raises(ValueError, match="bad"):
        bad.result()


def test_more_than_the_capacity_and_what_comes_after_the_end_is_refused_and_the_rest_is_answered(batcher):
    go = held(batcher)
    waiting = batcher.submit(doubled, list(range(10)))
    with pytest.raises(FullError):
        batcher.submit(doubled, [1])
    go.set()
    batcher.close()
    assert waiting.result() == doubled(range(10))
    with pytest.raises(FullError):
        batcher.submit(doubled, [1])


def test_an_input_counts_as_the_passes_that_it_takes(batcher):
    go = held(batcher)
    waiting = batcher.submit(doubled, [1, 2], passes=4)
    assert batcher.waiting == 8
    with pytest.raises(FullError):
        batcher.submit(doubled, [3], passes=4)
    further = batcher.submit(doubled, [3, 4])
    go.set()
    assert (waiting.result(), further.result()) == ([2, 4], [6, 8])


def test_a_question_that_is_withdrawn_is_not_answered(batcher):
    asked = []
    go = held(batcher)
    withdrawn, other = batcher.submit(asked.extend, [1]), batcher.submit(doubled, [2])
    assert withdrawn.cancel()
    go.set()
    assert other.result() == [4]
    assert asked == []
