"""Encoded rows on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import chunk_of, described

from stages.backbone import store
from stages.backbone.states import size
from stages.common.errors import PipelineError

TOKENS = [[5, 6, 7], [8], [9, 10]]
ROWS = [[row] for row in TOKENS]
"""The same as texts of one row each."""


def about(**changes):
    return described(**{"depth": 1, "hidden_size": 4} | changes)


def written(folder, description):
    """A split of three rows; the states of token t are t, t, t, t."""
    store.save_tokens(folder, [chunk_of(ROWS[:2], [0, 1], [7, 9]), chunk_of(ROWS[2:], [1], [8])])
    rows = store.load_rows(folder, replace(description, depth=0))
    states = store.create_states(folder, rows, description)
    for numbers in rows.by_length(2):
        hidden = rows.batch(numbers)["input_ids"][..., None].expand(-1, -1, 4).float()
        store.write_states(states, rows, numbers, hidden)
    for array in states.arrays:
        array.flush()
    return store.load_rows(folder, description)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_batch_holds_its_rows_padded_on_the_right(tmp_path, dtype, torch_dtype):
    batch = written(tmp_path / "train", about(dtype=dtype)).batch([2, 0])
    assert batch["input_ids"].tolist() == [[9, 10, 0], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["states"].dtype == torch_dtype
    assert batch["states"][..., 3].tolist() == [[9, 10, 0], [5, 6, 7]]


def test_a_batch_holds_the_types_of_its_tokens_where_there_are_any(tmp_path):
    assert "token_type_ids" not in written(tmp_path / "plain", about()).batch([0])
    chunks = [chunk_of(ROWS[:2], [0, 1]), chunk_of(ROWS[2:], [1])]
    typed = [replace(chunks[0], token_types=np.array([0, 0, 1, 1])), replace(chunks[1], token_types=np.array([0, 1]))]
    store.save_tokens(tmp_path / "typed", typed)
    rows = store.load_rows(tmp_path / "typed", about(depth=0))
    assert rows.batch([2, 0])["token_type_ids"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert rows.batch([2, 0])["token_type_ids"].dtype == torch.int64
    assert len({rows.bytes_of(0), replace(rows, token_types=1 - rows.token_types).bytes_of(0)}) == 2


def test_a_batch_is_padded_to_a_multiple_of_tokens(tmp_path):
    one = written(tmp_path / "train", about())
    rows = store.load_rows(tmp_path / "train", about(), "bfloat16")
    plain, padded = one.batch([0, 2]), rows.batch([0, 2])
    assert {tensor.shape[1] for name, tensor in padded.items() if name != "labels"} == {8}
    for name, tensor in plain.items():
        if name != "labels":
            assert torch.equal(padded[name][:, :3], tensor)
            assert not padded[name][:, 3:].any()


def test_no_batch_is_padded_beyond_the_most_tokens_of_a_row(tmp_path):
    description = about(max_length=5)
    written(tmp_path / "train", description)
    rows = store.load_rows(tmp_path / "train", description, "bfloat16")
    assert rows.batch([0, 2])["input_ids"].shape == (2, 5)
    assert rows.width([1]) == 5


def test_bfloat16_halves_the_disk(tmp_path):
    whole, half = (size(1000, hidden_size=4, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert whole == 1000 * 4 * 4 == 2 * half
    (array,) = written(tmp_path / "train", about()).states.arrays
    assert array.nbytes == size(6, hidden_size=4, dtype="float32")
    assert isinstance(array, np.memmap)


def test_batches_by_length_hold_every_row_once_longest_first(tmp_path):
    rows = written(tmp_path / "train", about())
    assert [numbers.tolist() for numbers in rows.by_length(2)] == [[0, 2], [1]]


def test_without_states_a_batch_has_tokens_only(tmp_path):
    store.save_tokens(tmp_path / "train", [chunk_of(ROWS, [0, 1, 1])])
    assert set(store.load_rows(tmp_path / "train", about(depth=0)).batch([0])) == {
        "input_ids",
        "attention_mask",
        "labels",
    }


def test_what_all_splits_share_survives_the_disk(tmp_path):
    about(layers=3, problem="multi_label").save(tmp_path)
    assert store.About.load(tmp_path) == about(layers=3, problem="multi_label")


def test_tokens_are_counted_as_they_are_written(tmp_path):
    assert store.save_tokens(tmp_path / "train", [chunk_of(ROWS[:2], [0, 1]), chunk_of(ROWS[2:], [1])]) == 6
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        "labels.npy",
        "offsets.npy",
        "rows.npy",
        "tokens.bin",
    ]


def test_texts_keep_their_rows_numbers_in_the_source_and_a_table_of_others_is_refused(tmp_path):
    rows = written(tmp_path / "train", about())
    assert rows.source_rows.tolist() == [7, 9, 8]
    rows.check_same_rows(np.array([7, 9, 8]), tmp_path)
    for others in ([7, 8, 9], [7, 9], [7, 9, 8, 8]):
        with pytest.raises(PipelineError, match=r"expected the rows of data/encoded, found others; .* dvc repro"):
            rows.check_same_rows(np.array(others), tmp_path)


def test_the_width_of_a_batch_is_that_of_its_tensors(tmp_path):
    plain = written(tmp_path / "train", about())
    for rows in (plain, store.load_rows(tmp_path / "train", about(), "bfloat16")):
        for indices in ([0, 2], [1], np.array([1, 2])):
            assert rows.width(indices) == rows.batch(indices)["input_ids"].shape[1]
    assert plain.width([1, 2]) == 2


def test_a_text_of_several_rows_has_their_mean_and_one_label(tmp_path):
    store.save_tokens(tmp_path / "train", [chunk_of([[TOKENS[0]], TOKENS[1:]], [0, 1]), chunk_of([[[11]]], [0])])
    rows = store.load_rows(tmp_path / "train", about(depth=0))
    assert rows.labels.tolist() == [0, 1, 1, 0]
    assert rows.text_labels.tolist() == [0, 1, 0]
    assert rows.text_lengths.tolist() == [3, 3, 1]
    assert rows.pooled(np.array([[1.0], [2.0], [4.0], [8.0]], dtype=np.float32)).tolist() == [[1], [3], [8]]


def test_texts_of_one_row_each_are_their_rows(tmp_path):
    store.save_tokens(tmp_path / "train", [chunk_of(ROWS, [0, 1, 1])])
    rows, values = store.load_rows(tmp_path / "train", about(depth=0)), np.ones((3, 2))
    assert not (tmp_path / "train/windows.npy").exists()
    assert rows.pooled(values) is values
    assert rows.text_labels is rows.labels
    assert rows.text_lengths is rows.lengths
