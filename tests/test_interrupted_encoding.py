"""An encoding that is interrupted goes on with the batch at which it was, and ends with the same bits."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_params
from families import chunk_of, described, stored

from stages import encode
from stages.backbone import states as files_of_states
from stages.backbone import store
from stages.backbone.base import quiet_transformers
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.params import Params
from stages.resuming import pace, reuse, states

COUNTS = {"train": 40, "validation": 10, "test": 14}
BATCH = 4


class KilledError(Exception):
    """The process ends here, having computed so many rows."""


@pytest.fixture
def base(saved_model, monkeypatch, tmp_path):
    """Enters an empty folder with a base model; what is done is written down after every batch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model("bert"))
    quiet_transformers()
    monkeypatch.setattr(pace, "MOST_TIME", math.inf)


def chunks(*, seed, windows, types):
    """Each split's texts, of one row or several."""
    draw = np.random.default_rng(seed)
    for name, count in COUNTS.items():
        texts = [
            [draw.integers(5, 60, size=draw.integers(2, 9)) for _ in range(draw.integers(1, 4) if windows else 1)]
            for _ in range(count)
        ]
        chunk = chunk_of(texts, np.zeros(count, dtype=np.int64))
        yield name, replace(chunk, token_types=draw.integers(0, 2, len(chunk.tokens)) if types else None)


def encoded(
    monkeypatch, *, killed_at=(None, 0), seed=0, windows=False, types=False, dtype="float32", bound=2**28, **sections
):
    """The states of each split; killed_at: a batch, and how many of its rows are written when the run ends; bound: the
    most bytes of a file."""
    batch, written = killed_at
    params = tiny_params(encode={"batch_size": BATCH}, checkpoints={"minutes": 1e-9}, **sections)
    params = Params.model_validate(params)
    model, depth = encode.load_frozen_blocks(2, matmul_precision=params.precision)
    about, write, computed = described(depth=depth, dtype=dtype), store.write_states, []

    def write_states(array, rows, indices, hidden):
        computed.append(len(indices))
        if batch and len(computed) >= batch:  # another thread may begin one more
            write(array, rows, indices[:written], hidden[:written])
            raise KilledError(sum(computed[: batch - 1]))
        write(array, rows, indices, hidden)

    with monkeypatch.context() as patch, files.replacing(paths.ENCODED) as folder:
        patch.setattr(store, "write_states", write_states)
        patch.setattr(files_of_states, "MOST_BYTES", bound)
        for name, chunk in chunks(seed=seed, windows=windows, types=types):
            store.save_tokens(folder / name, [chunk])
        with encode.place_of_states(folder, about, params) as place:
            encode.encode_states(model, folder, about, params, place)
        about.save(folder)
    return {name: stored(paths.ENCODED / name) for name in COUNTS}, sum(computed)


def left():
    """What interrupted runs have left."""
    return list(Path(".cache/checkpoints").iterdir())


OPTIONS = {
    "plain": {},
    "windows": {"windows": True},
    "token types": {"types": True},
    "stored in 16 bits": {"dtype": "bfloat16"},
    "computed in 16 bits": {"precision": "bfloat16"},
    "several files": {"bound": 4_000},
}
KILLS = {"first": [(1, 2)], "twice": [(4, 0), (5, 3)], "next split": [(12, 4)]}


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        pytest.param(
            OPTIONS[option],
            KILLS[kill],
            id=f"{option}-{kill}",
            marks=[pytest.mark.long] * (option != "plain" and kill != "twice"),
        )
        for option in OPTIONS
        for kill in KILLS
    ],
)
def test_an_interrupted_encoding_ends_as_one_that_was_not(options, kills, base, monkeypatch, capsys):
    expected, every = encoded(monkeypatch, **options)
    done = 0
    for batch, written in kills:
        with pytest.raises(KilledError) as killed:
            encoded(monkeypatch, killed_at=(batch, written), **options)
        done += killed.value.args[0]
    capsys.readouterr()
    found, computed = encoded(monkeypatch, **options)
    assert_equal(found, expected)
    assert computed == every - done
    said = f"encode: goes on after {done} of {every} rows, which an interrupted run has computed"
    assert (said in capsys.readouterr().err) == (done > 0)
    assert left() == []


def assert_equal(found, expected):
    """That states are the same, bit for bit."""
    for name, values in expected.items():
        assert np.array_equal(found[name].view(np.uint8), values.view(np.uint8)), name


@pytest.mark.parametrize("change", [{"seed": 1}, {"dtype": "bfloat16"}, {"precision": "bfloat16"}, {"types": True}])
def test_other_tokens_or_parameters_take_nothing_up(change, base, monkeypatch):
    with pytest.raises(KilledError):
        encoded(monkeypatch, killed_at=(4, 0))
    _, computed = encoded(monkeypatch, **change)
    assert computed == sum(COUNTS.values())
    assert len(left()) == 1


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / files_of_states.file_name(0)),
        lambda folder: (folder / files_of_states.file_name(0)).write_bytes(b""),
        lambda folder: (folder / files_of_states.file_name(0)).unlink(),
        lambda folder: (folder / files_of_states.file_name(1)).unlink(),
        lambda folder: cut(folder / states.DONE),
    ],
)
def test_what_was_left_damaged_is_computed_again(damage, base, monkeypatch):
    expected, _ = encoded(monkeypatch, bound=4_000)
    with pytest.raises(KilledError):
        encoded(monkeypatch, killed_at=(8, 0), bound=4_000)
    damage(left()[0] / "states/train")
    found, computed = encoded(monkeypatch, bound=4_000)
    assert computed == sum(COUNTS.values())
    assert_equal(found, expected)


def test_states_are_on_the_disk_before_their_batch_counts_as_done(tmp_path, monkeypatch):
    store.save_tokens(tmp_path / "train", [chunk_of([[[5, 6]], [[7]], [[8]]], [0, 0, 0])])
    rows = store.load_rows(tmp_path / "train", described(depth=0))
    unfinished = states.UnfinishedStates(tmp_path / "place", rows, described(), seconds=1e9)
    written, write = [], files.write_json
    array = type("", (), {"flush": lambda self: written.append("states")})()
    monkeypatch.setattr(unfinished, "stored", replace(unfinished.stored, arrays=[array]))
    monkeypatch.setattr(files, "write_json", lambda path, value: (written.append(path.name), write(path, value)))
    unfinished.note(np.array([0, 1]))
    assert written == []
    unfinished.pace.seconds = 0
    unfinished.note(np.array([2]))
    assert written == ["states", states.DONE]
    assert json.loads((tmp_path / "place" / states.DONE).read_text()) == [0, 2]


def test_states_move_where_a_file_cannot_have_two_names(base, monkeypatch):
    expected, _ = encoded(monkeypatch)

    def link(*paths):
        raise OSError

    monkeypatch.setattr(states.os, "link", link)
    found, _ = encoded(monkeypatch)
    assert_equal(found, expected)


def test_known_states_that_do_not_come_out_again_are_given_up_even_if_that_is_interrupted(base, monkeypatch, capsys):
    monkeypatch.setattr(reuse, "row_by_row", lambda model: True)
    monkeypatch.setattr(reuse, "fingerprint", lambda *given, **options: {"base_model": "known"})
    expected, every = encoded(monkeypatch)
    tampered = np.load(paths.ENCODED / "test" / files_of_states.file_name(0), mmap_mode="r+")
    tampered += 1
    tampered.flush()
    monkeypatch.setattr(reuse.KnownStates, "reproduced_by", lambda *given: True)
    monkeypatch.setattr(reuse.KnownStates, "fill", lambda known, array, rows, batch: batch)  # all are computed again
    for killed_at in (10, 20):
        with pytest.raises(KilledError):
            encoded(monkeypatch, killed_at=(killed_at, 0))
        assert "computing all of them again" in capsys.readouterr().err or killed_at == 10
    found, computed = encoded(monkeypatch)
    assert_equal(found, expected)
    assert every - computed == (20 - 1 - 8) * BATCH, "the second run computed eight batches before it gave up"


def test_states_that_are_no_numbers_end_it_with_the_texts_row_and_are_not_kept(base, monkeypatch):
    compute = reuse.run_batch

    def run_batch(model, indices, *, rows):
        hidden = compute(model, indices, rows=rows)
        for place, length in enumerate(rows.lengths[indices]):
            hidden[place, length:] = np.nan  # padding, which nothing reads
            hidden[place, length - 1, 3] = np.inf if indices[place] == 7 else 0
        return hidden

    monkeypatch.setattr(reuse, "run_batch", run_batch)
    line = (
        r"encode: states of the frozen layers: expected finite numbers, found NaN or infinity in row 7; if precision is"
    )
    with pytest.raises(PipelineError, match=line):
        encoded(monkeypatch)
    assert not paths.ENCODED.exists()
