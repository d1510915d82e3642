"""Work that is spread over processes: the same bits, and a clear end whatever happens to a process."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import LAYERS, ROOT
from families import described, labels_of, sentences, unlabelled
from torch import nn

from stages import encode
from stages.backbone import base, parallel, states, store
from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common.errors import PipelineError
from stages.compute import engine, pool
from stages.encoding.template import load_tokenizer
from stages.serving import answers

BATCH = 3


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)])
def processes(request, tmp_path_factory):
    """Some processes, which all tests use: it takes seconds to start them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("processes"))
        with pool.Processes(request.param) as spread:
            yield spread


def used(processes):
    """What is computed within the block is spread over these processes."""
    return parallel.spread_over(nullcontext(processes))


def local(processes):
    """The settings for so many processes of this machine."""
    return SimpleNamespace(processes=processes, engine="local", address=None)


@pytest.fixture
def rows():
    """Rows of unequal lengths."""
    draw = np.random.default_rng(0)
    return unlabelled([draw.integers(5, 50, draw.integers(2, 12)) for _ in range(40)], 0)


def classifier(folder):
    """A model that other processes can load."""
    return parallel.loaded(partial(load_base, folder, labels=labels_of(["bad", "good"], 0), seed=1))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_logits_features_and_answers_are_those_of_one_process(family, processes, rows, saved_model):
    model = classifier(saved_model(family))
    tokenizer = load_tokenizer(saved_model(family), pairs=False, template=None, truncation="head")
    texts, computed = [text for text, _ in sentences(30)], []

    def compute():
        options = {"batch_size": BATCH, "progress": "test"}
        logits, features = inference.logits_and_features(model, rows, after=(1, LAYERS), **options)
        answered = answers.logits(model, texts, tokenizer=tokenizer, batch_size=BATCH, kept={})
        return [logits, *features, inference.logits(model, rows, **options), answered]

    expected = compute()
    with used(processes), pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "in_threads", lambda *given: computed.append(given))
        found = compute()
    assert not computed, "all was computed in other processes"
    assert_same(found, expected)


def test_states_that_processes_write_to_the_same_files_are_those_of_one_process(
    processes, saved_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(states, "MOST_BYTES", 10_000)
    folder, how = saved_model("llama"), {"depth": 2, "matmul_precision": "float32"}
    model = parallel.loaded(partial(encode.lowest_blocks, folder, config=base.load_config(folder), **how))
    draw = np.random.default_rng(0)
    rows = unlabelled([draw.integers(5, 50, draw.integers(2, 12)) for _ in range(40)], 0)
    rows.tokens.astype(np.int32).tofile(tmp_path / "tokens.bin")
    rows = replace(rows, tokens=np.memmap(tmp_path / "tokens.bin", np.int32, mode="r"))
    made, noted = [], []
    for name, spread in (("alone", None), ("spread", processes)):
        (tmp_path / name).mkdir()
        into = store.create_states(tmp_path / name, rows, described(depth=2))
        compute = partial(encode.encode_batch, rows=rows, states=into)
        with used(spread):
            batches = rows.to_encode(into, BATCH)
            parallel.each_batch(model, compute, batches, progress="test", note=lambda batch: noted.append(batch[0]))
        for array in into.arrays:
            array.flush()
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) > 1
    assert noted == [batch[0] for batch in batches] * 2, "each batch is noted, in order"


def test_an_error_in_a_process_is_that_of_one_process(processes, rows, saved_model):
    damaged = replace(rows, tokens=np.where(rows.tokens == rows.tokens[0], 10**6, rows.tokens))  # no such token
    model = classifier(saved_model("llama"))
    with used(processes), pytest.raises(IndexError, match="out of range"):
        inference.logits(model, damaged, batch_size=BATCH, progress="test")


def process(_):
    return os.getpid()


def test_a_map_over_processes_is_that_of_one_and_takes_parts_as_results_are_taken(processes):
    taken = []
    found = processes.map(partial(np.add, 1), (taken.append(number) or number for number in range(50)))
    assert next(found) == 1
    assert len(taken) <= pool.WAITING * processes.count, "the others are not in memory yet"
    assert list(found) == list(range(2, 51))
    with pytest.raises(TypeError, match="bad operand"):
        list(processes.map(abs, [1, "x", 2]))


def test_several_parts_are_computed_in_other_processes_and_one_alone_in_this_one(processes):
    spread = partial(engine.map_over, processes)
    assert list(spread(process, [])) == []
    assert list(spread(process, [1])) == [os.getpid()]
    assert os.getpid() not in set(spread(process, range(4)))


def test_work_that_is_left_while_long_answers_are_on_their_way_ends(tmp_path):
    leaving = "with Processes(2) as two: next(two.map(np.ones, [3_000_000] * 100))"
    command = f"import numpy as np; from stages.compute.pool import Processes\n{leaving}"
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0
    assert not any(tmp_path.glob(".cache/scratch/*")), "nothing is left"


def test_a_process_that_is_killed_ends_the_work_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(1, 1)
    model.load = partial(signal.raise_signal, signal.SIGKILL)
    killed = "expected all processes to run to the end, found one that was killed.*run the command again"
    with pool.Processes(2) as two:
        with pytest.raises(PipelineError, match=killed), used(two):
            parallel.each_batch(model, print, [[1], [2]], progress="test")
        with pytest.raises(PipelineError, match=killed):
            list(two.map(abs, [1, 2]))
    assert parallel.SPREAD.get() is None
    assert not any(tmp_path.glob(".cache/scratch/*")), "nothing is left"


def test_one_process_is_this_one():
    with parallel.spread_over(engine.workers(local(1))):
        assert parallel.SPREAD.get() is None
    with engine.mapping(local(1)) as spread:
        assert spread is map
