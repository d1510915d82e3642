"""The stored states in files of a bounded size, cut where a change elsewhere leaves them as they are."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import chunk_of, described

from stages.backbone import states, store
from stages.common.errors import PipelineError

BOUND = 4_000
"""Bytes: about twenty rows."""


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(states, "MOST_BYTES", BOUND)


def texts(count, *, seed=0):
    """Rows of two to eight tokens each."""
    draw = np.random.default_rng(seed)
    return [draw.integers(5, 60, size=draw.integers(2, 9)).tolist() for _ in range(count)]


def saved(folder, rows, *, seed=0, windows=1):
    """The bytes of each file of a split of these rows, in an order by `seed`, several to a text; the states of a token
    are the token."""
    about = described(hidden_size=8, max_length=1_000)
    found = [rows[start : start + windows] for start in range(0, len(rows), windows)]
    order = np.random.default_rng(seed).permutation(len(found))
    chunk = chunk_of([found[text] for text in order], np.zeros(len(found), dtype=np.int64), order + 1)
    store.save_tokens(folder, [chunk])
    split = store.load_rows(folder, replace(about, depth=0))
    into = store.create_states(folder, split, about)
    for batch in split.to_encode(into, 4):
        store.write_states(into, split, batch, split.batch(batch)["input_ids"][..., None].expand(-1, -1, 8).float())
    for array in into.arrays:
        array.flush()
    return [path.read_bytes() for path in sorted(folder.glob(states.FILES))]


@pytest.mark.parametrize("windows", [1, 3])
def test_rows_in_several_files_are_read_as_from_one(tmp_path, windows):
    rows = texts(300)
    written = saved(tmp_path / "several", rows, windows=windows)
    assert len(written) > 5
    assert all(BOUND / 2 <= len(content) <= BOUND + 128 for content in written[:-1]), "128 bytes are NumPy's header"
    split = store.load_rows(tmp_path / "several", described(hidden_size=8))
    for indices in ([0, 299, 17], np.arange(300)[::-1]):
        batch = split.batch(indices)
        assert torch.equal(batch["states"][..., 7], batch["input_ids"].float())


def test_few_rows_are_in_one_file_and_a_long_row_is_in_one_of_its_own_size(tmp_path):
    assert len(saved(tmp_path / "few", texts(10))) == 1
    long = [5] * 1_000
    sizes = [len(content) for content in saved(tmp_path / "long", [*texts(10), long, *texts(10), long])]
    assert len(sizes) == 2
    assert min(sizes) > 1_000 * 8 * 4


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (lambda rows: [*rows[:150], [9, 9, 9], *rows[151:]], 2),
        (lambda rows: [*rows[:150], *rows[151:]], 2),
        (lambda rows: rows[1:], 2),
        (lambda rows: [*rows, *texts(3, seed=1)], 2),
        (lambda rows: rows[:-1], 2),
        (lambda rows: rows, 0),
    ],
    ids=["corrected", "removed", "first removed", "added at the end", "last removed", "another order"],
)
def test_a_change_of_a_row_leaves_nearly_all_files_as_they_are_in_whatever_order_the_split_is(tmp_path, change, others):
    rows = texts(300)
    before = saved(tmp_path / "before", rows)
    after = saved(tmp_path / "after", change(rows), seed=1)
    assert len(before) > 10
    assert len({*after} - {*before}) <= others


def test_the_width_of_a_batch_depends_on_no_row_of_another_file(tmp_path):
    rows = texts(300)
    widths = []
    for seed, (name, changed) in enumerate([("before", rows), ("after", [[9] * 2, *rows[1:]])]):
        saved(tmp_path / name, changed, seed=seed)
        split = store.load_rows(tmp_path / name, described(hidden_size=8))
        batches = split.to_encode(split.states, 4)
        assert sorted(np.concatenate(batches).tolist()) == list(range(300))
        assert all(len({*split.states.places[batch, 0]}) == 1 for batch in batches)
        longest = [split.lengths[batch].max() for batch in batches]
        assert longest == sorted(longest, reverse=True)
        widths.append({split.source_rows[index]: split.width(batch) for batch in batches for index in batch})
        first_file = split.source_rows[split.states.rows_by_file()[0]]
    assert {row for row in widths[0] if widths[0][row] != widths[1][row]} <= {*first_file}


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found[1].unlink(),
        lambda found: found[-1].unlink(),
        lambda found: found[1].write_bytes(found[1].read_bytes()[:-1]),
        lambda found: found[1].write_bytes(b""),
        lambda found: found[0].write_bytes(found[1].read_bytes()),
        lambda found: swap(found[0], found[1]),
    ],
    ids=["missing", "last missing", "cut off", "empty", "twice", "swapped"],
)
def test_a_file_that_is_damaged_or_missing_is_named_in_one_line_with_the_remedy(tmp_path, damage):
    saved(tmp_path / "train", texts(300))
    damage(sorted((tmp_path / "train").glob(states.FILES)))
    with pytest.raises(PipelineError, match=r"found it damaged .*train`, or make it again with `dvc repro`$"):
        store.load_rows(tmp_path / "train", described(hidden_size=8))


def swap(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_states_that_are_all_missing_or_in_the_one_file_of_an_earlier_version_are_missing(tmp_path):
    saved(tmp_path / "train", texts(5))
    (tmp_path / "train" / states.file_name(0)).rename(tmp_path / "train/states.npy")
    with pytest.raises(FileNotFoundError, match=r"train/states-00000.npy"):
        store.load_rows(tmp_path / "train", described(hidden_size=8))


def test_more_files_than_a_process_may_have_open_are_read(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    rows = texts(1_000)
    saved(tmp_path / "train", rows)
    count = len(list((tmp_path / "train").glob(states.FILES)))
    assert count > 30
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
        split = store.load_rows(tmp_path / "train", described(hidden_size=8))
        assert sum(map(len, split.states.arrays)) == sum(map(len, rows))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("value", [65_504.0, 65_520.0, 1e5, -3e38, 1e-30])
def test_16_bits_hold_states_beyond_the_range_of_float16(tmp_path, value):
    hidden = torch.full((1, 2, 8), value)
    split, into = one_row(tmp_path, dtype="bfloat16")
    store.write_states(into, split, np.array([0]), hidden)
    found = split_of(tmp_path, dtype="bfloat16").batch([0])["states"].float()
    assert torch.allclose(found, hidden, rtol=2**-8, atol=0)


@pytest.mark.parametrize(("value", "dtype"), [(3.4e38, "bfloat16"), (np.nan, "bfloat16"), (np.inf, "float32")])
def test_states_that_are_not_finite_as_they_are_stored_are_refused(tmp_path, value, dtype):
    split, into = one_row(tmp_path, dtype=dtype)
    with pytest.raises(PipelineError, match=r"encode: states of the frozen layers: .* in row 0;"):
        store.write_states(into, split, np.array([0]), torch.full((1, 2, 8), value))


def one_row(folder, *, dtype):
    """A split of a row of two tokens, and its states, to be written."""
    store.save_tokens(folder / "train", [chunk_of([[[5, 6]]], [0])])
    rows = store.load_rows(folder / "train", described(depth=0))
    return rows, store.create_states(folder / "train", rows, described(hidden_size=8, dtype=dtype))


def split_of(folder, *, dtype):
    return store.load_rows(folder / "train", described(hidden_size=8, dtype=dtype))


def test_what_stands_for_an_array_elsewhere_gets_what_is_written_to_a_row():
    written = {}

    class Part:
        def __init__(self, place: slice) -> None:
            self.place = place

        def __getitem__(self, place: slice) -> "Part":
            return Part(place)

        def __setitem__(self, _: slice, values: np.ndarray) -> None:
            written[self.place.start, self.place.stop] = values.tolist()

    found = states.States(arrays=[Part(slice(0, 5))], places=np.array([[0, 3, 5]]))
    found[0][:] = np.ones((2, 1))
    assert written == {(3, 5): [[1], [1]]}
