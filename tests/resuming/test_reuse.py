"""States that an earlier run computed: taken over bit for bit, and only where this run would compute the same."""

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LAYERS, tiny_params
from families import chunk_of, described, save_model, stored

from stages import encode
from stages.backbone import frozen_linear, store
from stages.backbone.device import device
from stages.backbone.states import STORED_AS, file_name
from stages.common import files, paths
from stages.params import Params
from stages.resuming import reuse

SIZES = {"llama": {"intermediate_size": 64}, "bert": {"intermediate_size": 64}, "gpt2": {}}
"""Activations are computed 32 numbers at a time, and what is left over by other code, whose last bits differ: rows are
taken over only where nothing is left."""

BATCH = 8

on_a_cpu = pytest.mark.skipif(device().type != "cpu", reason="on a GPU all states are computed again")
needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL")

pytestmark = on_a_cpu


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of tiny models by family, as `fetch` leaves them."""
    home = tmp_path_factory.mktemp("bases")
    for family, sizes in SIZES.items():
        save_model(family, home / family, **sizes)
        files.write_json(home / family / "source.json", {"sha256": {"model.safetensors": family}})
    return home


@pytest.fixture
def base(bases, monkeypatch, tmp_path, request):
    """Enters an empty folder, whose base model is of the family; that of the tests without families is Llama."""
    family = request.node.callspec.params.get("family", "llama") if hasattr(request.node, "callspec") else "llama"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "BASE_MODEL", bases / family)
    return bases / family


@pytest.fixture
def computed(monkeypatch):
    """The numbers of rows in the batches that `encode` computed."""
    batches, compute = [], encode.encode_batch

    def note(model, indices, **given):
        batches.append(len(indices))
        return compute(model, indices, **given)

    monkeypatch.setattr(encode, "encode_batch", note)
    return batches


def texts(*, seed, count, lengths=(4, 8)):
    """Rows of tokens, many of the same length."""
    draw = np.random.default_rng(seed)
    return [draw.integers(5, 60, size=draw.integers(*lengths)).tolist() for _ in range(count)]


def encoded(splits, *, top_layers=2, precision="float32", **about):
    """What `encode` stores for splits of rows: the states, (tokens, hidden), of each."""
    params = Params.model_validate(tiny_params(precision=precision, encode={"batch_size": BATCH}))
    model, depth = encode.load_frozen_blocks(top_layers, matmul_precision=precision)
    description = described(depth=depth, **about)
    with files.replacing(paths.ENCODED) as folder:
        for name, rows in splits.items():
            store.save_tokens(folder / name, [chunk_of([[row] for row in rows], np.zeros(len(rows), dtype=np.int64))])
        with encode.place_of_states(folder, description, params) as place:
            encode.encode_states(model, folder, description, params, place)
        description.save(folder)
    return states(paths.ENCODED)


def states(folder):
    return {name: stored(folder / name) for name in paths.SPLITS}


def from_nothing(splits, where, monkeypatch, **options):
    """The same without an earlier encoding."""
    with monkeypatch.context() as patch:
        patch.setattr(paths, "ENCODED", where)
        return encoded(splits, **options)


def first():
    """Three splits; two hundred rows in all."""
    rows = texts(seed=0, count=200)
    return {"train": rows[:120], "validation": rows[120:150], "test": rows[150:]}


def changed(splits):
    """Some rows dropped, some added, some moved to another split, in another order."""
    rows, new = [*splits["train"], *splits["validation"], *splits["test"]], texts(seed=1, count=12)
    order = np.random.default_rng(2).permutation(len(rows))
    kept = [rows[number] for number in order[:185]]
    return {"train": kept[:110] + new[:8], "validation": new[8:] + kept[110:145], "test": kept[145:]}


def rows_computed(told):
    """For each split how many rows were computed, and how many it has, as `encode` says."""
    (line,) = [line for line in told.splitlines() if "rows computed" in line]
    return {name: (int(some), int(every)) for name, some, every in re.findall(r"(\w+) (\d+) of (\d+)", line)}


def assert_equal(found, expected):
    """That states are the same, bit for bit."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name].view(np.uint8), values.view(np.uint8)), name


@pytest.mark.parametrize("faster", [False, pytest.param(True, marks=needs_mkl)], ids=["torch", "onednn"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", SIZES)
def test_states_after_a_change_of_rows_are_those_of_an_encoding_from_nothing_and_few_are_computed(
    family, dtype, faster, base, computed, two_threads, monkeypatch, capsys
):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", faster)
    before, splits = first(), changed(first())
    encoded(before, dtype=dtype)
    assert sum(computed) == 200
    expected = from_nothing(splits, Path("other"), monkeypatch, dtype=dtype)
    assert sum(computed) == 200 + 197
    capsys.readouterr()
    found = encoded(splits, dtype=dtype)
    assert_equal(found, expected)
    assert expected["train"].dtype == STORED_AS[dtype]
    last = sum(computed) - 200 - 197
    assert 12 <= last < 150
    counts = rows_computed(capsys.readouterr().err)
    assert sum(some for some, _ in counts.values()) == last
    assert {name: every for name, (_, every) in counts.items()} == {name: len(rows) for name, rows in splits.items()}


def test_16_bit_products_are_taken_over_too(base, computed, two_threads, monkeypatch):
    encoded(first(), precision="bfloat16")
    splits = changed(first())
    expected = from_nothing(splits, Path("other"), monkeypatch, precision="bfloat16")
    computed.clear()
    assert_equal(encoded(splits, precision="bfloat16"), expected)
    assert 12 <= sum(computed) < 150


def test_the_same_rows_are_all_taken_over(base, computed):
    expected = encoded(first())
    computed.clear()
    assert_equal(encoded(first()), expected)
    assert not computed


def test_a_second_encoding_after_a_change_is_taken_over_as_well(base, computed, monkeypatch):
    encoded(first())
    splits = changed(first())
    encoded(splits)
    expected = from_nothing(first(), Path("other"), monkeypatch)
    computed.clear()
    assert_equal(encoded(first()), expected)
    assert sum(computed) < 200


@needs_mkl
@pytest.mark.parametrize("faster", [False, True], ids=["torch", "onednn"])
@pytest.mark.parametrize("family", SIZES)
def test_rows_of_few_tokens_have_the_bits_of_an_encoding_from_nothing_too(
    family, faster, base, two_threads, monkeypatch
):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", faster)
    short = [[number] for number in range(5, 25)]
    known, new = short[: BATCH + 1], short[BATCH + 1 :]  # the last row is a batch of its own, of one token
    pairs = [[one, one] for one in range(30, 36)]
    before = {"train": known, "validation": pairs, "test": short[:1]}
    after = {"train": known[:-2] + new[:1], "validation": [known[-1], *new[2:9]], "test": [*pairs[:-1], new[1] * 2]}
    encoded(before)
    for splits in (after, before):
        expected = from_nothing(splits, Path(f"other-{len(splits['train'])}"), monkeypatch)
        assert_equal(encoded(splits), expected)


@pytest.mark.parametrize(("wide", "threads"), [(48, 2), (1568, 16)], ids=["a rest", "a rest on each of two cores"])
def test_where_activations_leave_a_rest_the_states_are_those_of_an_encoding_from_nothing_too(
    wide, threads, base, two_threads, tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "BASE_MODEL", save_model("llama", tmp_path / "base", intermediate_size=wide))
    files.write_json(paths.BASE_MODEL / "source.json", {"sha256": {"model.safetensors": "another"}})
    torch.set_num_threads(threads)
    rows = [texts(seed=seed, count=60, lengths=(5, 8)) for seed in range(3)]
    encoded(dict(zip(paths.SPLITS, rows, strict=True)))
    new = texts(seed=3, count=6, lengths=(7, 8))  # with the last row of their batch, an odd number of tokens
    others = {name: [*new, *some[:25], *some[28:]] for name, some in zip(paths.SPLITS, rows, strict=True)}
    expected = from_nothing(others, Path("other"), monkeypatch)
    assert_equal(encoded(others), expected)


@pytest.mark.parametrize(
    "change",
    [{"top_layers": LAYERS - 1}, {"precision": "bfloat16"}, {"dtype": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_another_depth_or_precision_takes_nothing_over(base, computed, monkeypatch, change):
    encoded(first())
    computed.clear()
    found = encoded(first(), **change)
    assert sum(computed) == 200
    assert_equal(found, from_nothing(first(), Path("other"), monkeypatch, **change))


@pytest.mark.parametrize("longest", [(9, 6), (6, 9)], ids=["shorter", "longer"])
@pytest.mark.parametrize("family", SIZES)
def test_with_another_maximum_length_the_states_are_those_of_an_encoding_from_nothing(
    base, family, computed, monkeypatch, longest
):
    rows = {name: texts(seed=seed, count=60, lengths=(4, 10)) for seed, name in enumerate(paths.SPLITS)}
    before, after = ({name: [row[:most] for row in some] for name, some in rows.items()} for most in longest)
    encoded(before, max_length=longest[0])
    expected = from_nothing(after, Path("other"), monkeypatch, max_length=longest[1])
    computed.clear()
    assert_equal(encoded(after, max_length=longest[1]), expected)
    assert sum(computed) < 180


def test_another_base_model_takes_nothing_over(base, computed, tmp_path, monkeypatch):
    encoded(first())
    computed.clear()
    monkeypatch.setattr(paths, "BASE_MODEL", save_model("llama", tmp_path / "base", **SIZES["llama"]))
    files.write_json(paths.BASE_MODEL / "source.json", {"sha256": {"model.safetensors": "another"}})
    encoded(first())
    assert sum(computed) == 200


@pytest.mark.parametrize("key", ["code", "versions", "batch_size"])
def test_other_code_versions_or_batches_take_nothing_over(base, computed, key):
    expected = encoded(first())
    path = paths.ENCODED / reuse.PREFIX
    made_by = json.loads(path.read_text())
    assert made_by.keys() == {"base_model", "depth", "dtype", "precision", "batch_size", "code", "versions"}
    path.write_text(json.dumps(made_by | {key: "another"}))
    computed.clear()
    assert_equal(encoded(first()), expected)
    assert sum(computed) == 200


def test_a_model_of_unknown_origin_takes_nothing_over(base, computed, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BASE_MODEL", save_model("llama", tmp_path / "base", **SIZES["llama"]))
    encoded(first())
    encoded(first())
    assert sum(computed) == 2 * 200


def test_states_that_this_machine_would_not_compute_are_all_computed_again(base, computed, capsys):
    expected = encoded(first())
    tampered = np.load(paths.ENCODED / "train" / file_name(0), mmap_mode="r+")
    rows = store.load_rows(paths.ENCODED / "train", described())
    row = rows.by_length(BATCH)[0][3]
    tampered[rows.offsets[row], 0] = np.nextafter(tampered[rows.offsets[row], 0], np.float32(np.inf))
    tampered.flush()
    del tampered, rows
    computed.clear()
    capsys.readouterr()
    assert_equal(encoded(first()), expected)
    assert sum(computed) == 200
    assert (
        "the stored states were computed on a different machine; computing all of them again" in capsys.readouterr().err
    )


def test_known_states_that_come_out_otherwise_beside_new_ones_are_all_computed_again(
    base, computed, monkeypatch, capsys
):
    splits = first()
    encoded(splits)
    tampered = np.load(paths.ENCODED / "test" / file_name(0), mmap_mode="r+")  # far from the batch that is probed
    tampered += 1
    tampered.flush()
    del tampered
    more = splits | {"test": [*splits["test"], *texts(seed=1, count=4)]}
    expected = from_nothing(more, Path("other"), monkeypatch)
    computed.clear()
    capsys.readouterr()
    assert_equal(encoded(more), expected)
    assert sum(computed) > 204
    assert "different machine" in capsys.readouterr().err


def test_the_probe_is_computed_as_the_states_were(base, computed, two_threads, monkeypatch, capsys):
    monkeypatch.setattr(frozen_linear, "ONEDNN_IS_FASTER", True)
    encoded(first())
    computed.clear()
    capsys.readouterr()
    encoded(first())
    assert not computed
    assert "different machine" not in capsys.readouterr().err


def test_a_row_is_known_by_its_tokens_its_width_and_whether_its_batch_is_padded(base):
    encoded({"train": [[5, 6, 7], [8, 9, 10]], "validation": [[5, 6, 7], [8, 9]], "test": [[5, 6, 7], [1, 2, 3, 4]]})
    rows = {name: store.load_rows(paths.ENCODED / name, described()) for name in paths.SPLITS}
    (alike,), (padded,), (wide,) = (
        [reuse.keys(rows[name], batch) for batch in rows[name].by_length(BATCH)] for name in paths.SPLITS
    )
    (_, same) = reuse.keys(rows["train"], np.array([1, 0]))
    assert same == alike[0]
    assert len({alike[0], alike[1], padded[0], padded[1], wide[1]}) == 5
    other = replace(rows["train"], labels=rows["train"].labels + 1, source_rows=rows["train"].source_rows + 5)
    assert reuse.keys(other, np.array([0, 1])) == alike


def test_the_longest_and_the_shortest_row_go_along_with_a_new_one_and_keep_the_batchs_shape(base):
    rows = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14], [15, 16]]
    encoded({name: rows for name in paths.SPLITS})
    earlier = paths.ENCODED.rename("earlier")
    encoded({name: [rows[0], rows[1], [20, 21, 22], rows[3]] for name in paths.SPLITS})
    known = reuse.KnownStates(earlier, described(), precision="float32", batch_size=BATCH)
    rows = store.load_rows(paths.ENCODED / "train", described())
    (batch,) = rows.by_length(BATCH)
    (array,) = rows.states.arrays
    left = known.fill(replace(rows.states, arrays=[np.zeros_like(array)]), rows, batch)
    assert left.tolist() == [0, 2, 3]
    assert rows.width(left) == rows.width(batch)


def test_of_an_encoding_that_dvc_removed_only_what_is_of_use_is_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states, made_by = paths.ENCODED / "train" / file_name(0), {"base_model": "known"}
    states.parent.mkdir(parents=True)
    states.write_bytes(b"states")
    reuse.save(paths.ENCODED, made_by)
    for command in (("git", "init", "--quiet"), ("dvc", "init", "--quiet"), ("dvc", "add", str(paths.ENCODED))):
        subprocess.run(command, check=True)
    shutil.rmtree(paths.ENCODED)

    def copied():
        return [path.name for path in paths.SCRATCH.rglob("*") if path.is_file() and path.name != files.LOCK]

    with reuse.earlier(paths.ENCODED, {"base_model": "another"}) as found:
        assert (found, copied()) == (None, [])
    with reuse.earlier(paths.ENCODED, made_by) as found:
        assert (found / "train" / states.name).read_bytes() == b"states"
    digest = hashlib.md5(b"states").hexdigest()
    Path(".dvc/cache/files/md5", digest[:2], digest[2:]).unlink()
    with reuse.earlier(paths.ENCODED, made_by) as found:
        assert (found, copied()) == (None, [])


def test_an_encoding_that_dvc_removed_before_the_run_is_found_in_its_cache(copied, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    every = json.loads((copied.folder / "metrics/data.json").read_text())["rows"]
    done = copied.dvc("exp", "run", "-S", f"data.limit.test={every['test'] - 3}", "encode")
    counts = rows_computed(done.stderr)
    computed, left = counts.pop("test")
    assert counts == {name: (0, every[name]) for name in ("train", "validation")}
    assert computed < left == every["test"] - 3
    assert (copied.folder / "data/encoded" / reuse.PREFIX).exists()
