"""The stage as a whole: from files to prepared splits, ready or cut; or one clear line, and nothing left behind."""

import hashlib
import json
import multiprocessing
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_params
from datasets import Dataset
from ruamel.yaml import YAML

from stages import prepare
from stages.common import paths
from stages.common.errors import PipelineError
from stages.compute import pool
from stages.params import Params
from stages.rows import cleaning, near
from stages.sources import fetched, presets

OWN = {"format": None, "text": "text", "label": "label", "file": "rows.csv"}
"""What a user with a file of their own sets; the rest is as committed."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the stage on files, given as text or tables by name; returns the prepared splits."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    monkeypatch.setattr(fetched, "fetch", lambda *, file, **_: fetched.Fetched(path=raw / file, license="MIT"))

    def run(files, **data):
        for name, content in files.items():
            path = raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else content.to_csv(index=False))
        YAML().dump(tiny_params(data=OWN | data, encode={"template": "{text}"}), paths.PARAMS)
        prepare.main()
        return {name: load(name) for name in paths.SPLITS}

    return run


def load(name):
    """A prepared split, with its classes, if it has any, by name."""
    split = Dataset.from_parquet(str(paths.PREPARED / f"{name}.parquet"))
    return split.to_pandas().assign(label=getattr(split.features["label"], "int2str", list)(split["label"][:]))


def rows(start, end):
    """Distinct labelled texts; no two are near each other."""
    numbers = range(start, end)
    letters = [np.random.default_rng(number).choice(list("abcdefghijkl"), size=(5, 7)) for number in numbers]
    texts = [" ".join("".join(word) for word in words) for words in letters]
    return pd.DataFrame({"text": texts, "label": ["good" if number % 2 else "bad" for number in numbers]})


def metrics():
    return json.loads(paths.DATA_METRICS.read_text())


def test_a_file_of_ones_own_needs_only_the_names_of_its_columns(run, capsys):
    own = {"file": "mine.csv", "text": "review", "label": "sentiment"}
    splits = run({"mine.csv": rows(0, 200).rename(columns={"text": "review", "label": "sentiment"})}, **own)
    assert {name: len(split) for name, split in splits.items()} == {"train": 60, "validation": 12, "test": 24}
    assert set(splits["train"]["label"]) == {"good", "bad"}
    assert (
        "data.classes: no label is a number, so each distinct label is a class of its own: bad, good"
        in capsys.readouterr().err
    )


def test_without_names_the_columns_are_chosen_and_recorded(run, capsys):
    table = rows(0, 200).rename(columns={"text": "review", "label": "sentiment"})
    splits = run({"rows.csv": table.assign(id=range(200))}, text=None, label=None, columns=None, classes=None)
    assert set(splits["train"]["label"]) == {"good", "bad"}
    recorded = json.loads(paths.DATASET.read_text())["data"]
    assert (recorded["text"], recorded["label"]) == ("review", "sentiment")
    assert "prepare: rows.csv: data.text: 'review', data.label: 'sentiment' (chosen)" in capsys.readouterr().err


def test_a_class_with_few_rows_is_a_warning_that_names_the_setting(run, capsys):
    table = rows(0, 100)
    table.loc[:6, "label"] = "rare"
    run({"rows.csv": table}, classes=None)
    assert "warning: data.label: fewer than 10 training rows of rare (" in capsys.readouterr().err


def test_a_file_that_neither_git_nor_dvc_tracks_is_a_warning(run, capsys):
    own = {"source": "path:data/raw", "file": {"train": "rows.csv"}}
    run({"rows.csv": rows(0, 100), "../data/raw/rows.csv": ""}, **own)
    assert "warning" not in capsys.readouterr().err
    subprocess.run(["git", "init", "--quiet"], check=True)
    run({}, **own)
    warning = "warning: data.source: neither Git nor DVC tracks data/raw, so runs in a copy (--queue, --temp) lack it: "
    assert f"{warning}git add data/raw\n" in capsys.readouterr().err
    subprocess.run(["git", "add", "data/raw"], check=True)
    run({}, **own)
    assert "warning" not in capsys.readouterr().err


def test_the_question_of_another_dataset_is_a_warning():
    movies = Params.model_validate(tiny_params())
    own = Params.model_validate(tiny_params(data={"source": "hub:org/name"}))
    assert prepare.warnings(movies, movies.data, {}) == []
    (warning,) = prepare.warnings(own, own.data, {})
    assert warning.startswith(r"encode.template: 'Review: {text}\nSentiment:' is the question of presets/movies.yaml")
    assert warning.endswith("but data.source is hub:org/name; write one of your own, or null for the text alone")


def test_a_broken_preset_that_is_not_chosen_is_no_error(tmp_path, monkeypatch):
    movies = Params.model_validate(tiny_params())
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    (tmp_path / "broken.yaml").write_text("data: [")
    assert prepare.warnings(movies, movies.data, {}) == []


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (("0", "1"), {"bad": 0, "good": 1}),
        (("false", "true"), {"bad": False, "good": True}),
        (("-", "+"), {"bad": "-", "good": "+"}),
    ],
)
def test_classes_give_values_a_name_and_leave_the_others_out(run, values, classes):
    table = rows(0, 200).replace({"label": dict(zip(("bad", "good"), values, strict=True))})
    table.loc[5, "label"] = "other"
    splits = run({"rows.csv": table}, classes=classes)
    assert metrics()["dropped"]["in_no_class"] == 1
    train = splits["train"].merge(rows(0, 200), on="text")
    assert (train["label_x"] == train["label_y"]).all()


def test_booleans_are_classes(run):
    lines = rows(0, 100).assign(label=lambda table: table["label"] == "good").to_json(orient="records", lines=True)
    assert set(run({"rows.jsonl": lines}, file="rows.jsonl", classes=None)["train"]["label"]) == {"false", "true"}


@pytest.mark.parametrize("ready", [["test"], ["validation"], ["validation", "test"]])
def test_ready_splits_stay_as_they_are_and_missing_ones_are_cut_from_train(run, ready):
    parts = {"train": rows(0, 100), "validation": rows(100, 112), "test": rows(112, 132)}
    files = {name: f"{name}.csv" for name in ["train", *ready]}
    splits = run({f"{name}.csv": part for name, part in parts.items()}, file=files)
    for name in ready:
        assert set(splits[name]["text"]) == set(parts[name]["text"])
    cut = [name for name in splits if name not in ready]
    assert set.union(*(set(splits[name]["text"]) for name in cut)) <= set(parts["train"]["text"])
    sizes = {"train": 60, "validation": 10, "test": 20} | {name: len(parts[name]) for name in ready}
    assert {name: len(split) for name, split in splits.items()} == sizes


def test_a_text_with_another_label_in_another_ready_split_stays_in_test_and_its_rows_are_told(run, capsys):
    train, test = rows(0, 100), rows(100, 200)
    train.loc[7] = [test["text"][3], "bad"]
    files, limit = {"train": "train.csv", "test": "test.csv"}, dict.fromkeys(paths.SPLITS)
    splits = run({"train.csv": train, "test.csv": test}, file=files, limit=limit)
    assert test["text"][3] in set(splits["test"]["text"]) - set(splits["train"]["text"])
    assert "row 8 of train (bad) and row 4 of test (good)" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["rows.csv", {"train": "rows.csv", "test": "test.csv"}])
def test_rows_for_calibration_come_from_train_and_leave_the_other_splits_as_they_are(run, file):
    files, limit = {"rows.csv": rows(0, 200), "test.csv": rows(200, 300)}, dict.fromkeys(paths.SPLITS)
    before = run(files, file=file, limit=limit)
    assert not (paths.PREPARED / "calibration.parquet").exists()
    assert "calibration" not in metrics()
    after = run(files, file=file, limit=limit, split={"validation": 0.1, "test": 0.2, "calibration": 0.3})
    kept = load("calibration")
    assert len(kept) == metrics()["rows"]["calibration"] == 60
    assert metrics()["calibration"] == {"bad": 30, "good": 30}
    for name in ("validation", "test"):
        assert after[name].equals(before[name])
    assert {*after["train"]["text"], *kept["text"]} == set(before["train"]["text"])
    assert not set(after["train"]["text"]) & set(kept["text"])


def leaking(texts):
    """Files in whose training rows the given texts stand too."""
    train = pd.concat([rows(0, 80), pd.DataFrame({"text": texts, "label": "good"})])
    return {"train.csv": train, "test.csv": rows(100, 200)}


READY = {"train": "train.csv", "test": "test.csv"}


def test_the_test_set_inside_the_training_set_stops_the_run(run):
    with pytest.raises(PipelineError) as caught:
        run(leaking(rows(100, 200)["text"]), file=READY)
    message = str(caught.value)
    assert message.startswith(
        "data.max_leak: expected at most 25.0% of the test rows among the others, found 100 of 100"
    )
    assert "the first: row " in message
    assert "correct data.file, or raise data.max_leak to drop them from the others" in message
    assert not paths.PREPARED.exists()


@pytest.mark.parametrize("change", [str.upper, str.title, lambda text: text.replace(" ", ", ") + "!"])
def test_paraphrases_by_case_and_punctuation_are_leaks_too(run, change):
    with pytest.raises(PipelineError, match=r"found 2 of 100, the first: row (1|2) of test and row (81|82) of train"):
        run(leaking(rows(100, 102)["text"].map(change)), file=READY, max_leak=0.01)


def test_validation_rows_count_as_seen(run):
    files = leaking([]) | {"validation.csv": rows(100, 200)}
    with pytest.raises(PipelineError, match=r"found 100 of 100, .* of validation"):
        run(files, file=READY | {"validation": "validation.csv"})


@pytest.mark.parametrize(("planted", "max_leak"), [(1, 0.01), (100, 1.0)])
def test_leaks_that_are_allowed_are_dropped_from_train_and_never_from_test(run, planted, max_leak):
    texts = rows(100, 100 + planted)["text"].str.upper()
    splits = run(leaking(texts), file=READY, max_leak=max_leak, limit={"train": None, "validation": None, "test": None})
    assert len(splits["test"]) == 100
    assert not set(texts) & set(pd.concat([splits["train"], splits["validation"]])["text"])
    assert metrics()["dropped"]["near_duplicate_across_splits"] == planted


def test_duplicates_never_stop_a_run_that_makes_the_splits_itself(run):
    table = pd.concat([rows(0, 100), rows(0, 100).assign(text=lambda table: table["text"] + "!")])
    run({"rows.csv": table})
    assert metrics()["dropped"]["near_duplicate_across_splits"] > 20


def test_duplicates_never_stop_a_run_that_makes_the_test_split_itself(run):
    table = pd.concat([rows(0, 100), rows(0, 100).assign(text=lambda table: table["text"] + "!")])
    files = {"rows.csv": table, "validation.csv": rows(200, 220)}
    run(files, file={"train": "rows.csv", "validation": "validation.csv"})
    assert metrics()["dropped"]["near_duplicate_across_splits"] > 20


def test_pairs_are_duplicates_where_both_texts_are(run):
    table = rows(0, 100).assign(other=rows(100, 200)["text"])
    same_first = rows(0, 1).assign(other=rows(200, 201)["text"])
    shouted = table[3:4].apply(lambda column: column.str.upper() if column.name != "label" else column)
    blank = rows(300, 301).assign(other=" ")
    splits = run({"rows.csv": pd.concat([table, same_first, shouted, blank])}, text_pair="other")
    assert (metrics()["dropped"]["duplicate"], metrics()["dropped"]["blank"]) == (1, 1)
    arrived = pd.concat(splits.values()).merge(table, on="text")
    assert (arrived["text_pair"] == arrived["other"]).mean() > 0.95


def test_slices_have_a_file_of_their_own_and_change_nothing_else(run):
    table = rows(0, 200).assign(lang=["de", "en", None, "fr"] * 50, length=range(200))
    run({"rows.csv": table})
    before = {path.name: path.read_bytes() for path in (*paths.PREPARED.iterdir(), paths.DATA_METRICS)}
    assert pd.read_parquet(paths.SLICES).empty
    splits = run({}, slices=["lang", "length", "label"])
    assert {path.name: path.read_bytes() for path in (*paths.PREPARED.iterdir(), paths.DATA_METRICS)} == before
    found = pd.read_parquet(paths.SLICES)
    for column in ("lang", "length", "label"):
        assert found.loc[found["column"] == column, "row"].tolist() == splits["test"]["row"].tolist()
    by_row = found.pivot(index="row", columns="column", values="value").loc[splits["test"]["row"]]
    assert by_row["label"].tolist() == splits["test"]["label"].tolist()
    assert by_row["lang"].tolist() == table["lang"].fillna("(missing)").iloc[by_row.index - 1].tolist()
    assert set(by_row["length"].value_counts()) == {6}


HARD = {
    "nul": "A film\0 with \0NUL",
    "surrogate": "Half a \ud83d pair",
    "emoji": "👩‍👩‍👧 😀😀",
    "other emoji": "😡😡😡",
    "right to left": "סרט נפלא ‏ومدهش‎",
    "long word": "z" * 100_000,
    "zero width": "zero\u200bwidth",
}


def test_hard_texts_arrive(run):
    texts = [*rows(0, 100)["text"], *HARD.values(), "\0", "\u200b\u200d\ufeff", " \u00a0"]
    lines = [json.dumps({"text": text, "label": "good" if row % 2 else "bad"}) for row, text in enumerate(texts)]
    splits = run({"rows.jsonl": "\n".join(lines)}, file="rows.jsonl", limit=dict.fromkeys(paths.SPLITS))
    arrived = set(pd.concat(splits.values())["text"])
    assert arrived >= {"A film with NUL", "Half a \ufffd pair"}
    assert arrived >= {HARD[name] for name in ("emoji", "other emoji", "right to left", "long word", "zero width")}
    assert metrics()["dropped"]["blank"] == 3


@pytest.mark.parametrize(
    ("files", "data", "message"),
    [
        ({"rows.csv": "text,label\na,\n"}, {}, r"rows.csv: expected a label in every row, found 1 without one"),
        ({"rows.jsonl": '{"text": "a", "label": null}'}, {"file": "rows.jsonl"}, r"expected a label in every row"),
        ({"rows.csv": rows(0, 50).assign(label=1)}, {}, r"two classes, found positive; data.classes: null takes every"),
        (
            {"rows.csv": rows(0, 50).assign(label=lambda table: ["many", *range(49)])},
            {},
            r"data.classes: expected finite numbers as labels, found 'many' in row 1",
        ),
        (
            {"rows.csv": rows(0, 50).rename(columns={"label": "Sentiment"})},
            {"label": "sentimet", "columns": None},
            r"column 'sentimet' \(data.label\), found text, Sentiment; did you mean 'Sentiment'\? Correct data",
        ),
        ({"rows.csv": rows(0, 50)}, {"text": "body"}, r"rows.csv: expected csv, found: text, label in the first line"),
        (
            {"rows.jsonl": '{"text": "a", "label": "b"}'},
            {"file": "rows.jsonl", "slices": ["lang"]},
            r"expected a column 'lang' \(data.slices\), found text, label; correct data.slices, or add the column",
        ),
        (
            {"rows/a/1.txt": "one", "rows/b/2.txt": "two"},
            {"file": "rows", "slices": ["lang"]},
            r"rows: expected data.slices: \[\] with a folder of .txt files",
        ),
        ({"rows.csv": "id,rating,text\n"}, {"label": "rating"}, r"rows.csv: expected rows, found none"),
        (
            {"train.csv": rows(0, 50), "test.csv": rows(100, 120).replace("bad", "good")},
            {"file": READY},
            r"split 'test': expected rows of every class, found none of bad among",
        ),
        (
            {"train.csv": rows(0, 50), "test.csv": rows(100, 120).replace("bad", "odd")},
            {"file": READY},
            r"split 'train': expected rows of every class, found none of odd among",
        ),
        (
            {"train.csv": rows(0, 50), "test.csv": "text\nx\n"},
            {"file": READY, "columns": None},
            r"test.csv: expected a",
        ),
    ],
)
def test_bad_data_is_one_clear_line_and_leaves_nothing_behind(run, tmp_path, files, data, message):
    with pytest.raises(PipelineError, match=message) as caught:
        run(files, **data)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["params.yaml", "raw"]


def odd_rows(count, seed):
    """Rows of which some are blank, doubled, contradictory or alike, with a label of each kind."""
    generator = np.random.default_rng(seed)
    words = np.array([f"{number:x}é好" for number in generator.integers(16, 10**6, size=400)])
    texts = [" ".join(generator.choice(words, size)) for size in generator.integers(1, 15, size=count)]
    for every, change in ((11, str.title), (13, lambda text: f"{text} x!"), (17, str), (101, lambda text: " \u200b")):
        for row in range(0, count, every):
            texts[row] = change(texts[generator.integers(count)])
    labels = generator.choice(["good", "bad", "so so"], size=count, p=[0.6, 0.3, 0.1])
    lists = [
        json.dumps(sorted({*generator.choice(list("abc"), size)})) for size in generator.integers(0, 3, size=count)
    ]
    table = pd.DataFrame({"text": texts, "other": generator.permutation(texts), "label": labels, "labels": lists})
    return table.assign(number=generator.integers(-99, 99, size=count) / 8)


NO_LIMIT = {"limit": dict.fromkeys(paths.SPLITS)}
WHOLE = {"classes": None, "columns": None}


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (NO_LIMIT, "616328d5ecd4137c"),
        ({"near_duplicate": 0.4, "split": {"validation": 0.1, "test": 0.2, "calibration": 0.2}}, "ce9c343405620b0b"),
        (NO_LIMIT | {"text_pair": "other"}, "450a73fc553c62f9"),
        (NO_LIMIT | {"problem": "regression", "label": "number"}, "994a376ab6376eb3"),
        (NO_LIMIT | {"label": "number", "classes": {"low": [None, -2], "high": [3.5, None]}}, "5e246cbdd8a70189"),
        (NO_LIMIT | {"problem": "multi_label", "label": "labels", "file": "rows.jsonl"}, "605a506cd15a8639"),
        (NO_LIMIT | {"file": READY, "max_leak": 1.0, "slices": ["number", "other"]}, "d0754fd09aa37d9d"),
    ],
)
def test_the_rows_of_each_split_are_those_on_record_however_few_are_in_memory(run, monkeypatch, data, digest):
    """On record is what came of all rows at once, as pandas data frames of Python objects."""
    for name, size in (("rows.formats.AT_ONCE", 70), ("rows.cleaning.AT_ONCE", 90), ("rows.near.KEY_BYTES", 10**5)):
        monkeypatch.setattr(f"stages.{name}", size)
    monkeypatch.setattr(prepare, "PART_BYTES", 10**4)
    table = odd_rows(1200, 0)
    jsonl = table.assign(labels=table["labels"].map(json.loads)).to_json(orient="records", lines=True)
    files = {"rows.csv": table, "rows.jsonl": jsonl, "train.csv": table, "test.csv": odd_rows(300, 1)}
    run(files, **WHOLE | data)
    found = {path.stem: Dataset.from_parquet(str(path)).to_list() for path in sorted(paths.PREPARED.glob("*.parquet"))}
    found |= {"metrics": metrics(), "slices": pd.read_parquet(paths.SLICES).to_dict("list")}
    assert hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] == digest


def in_processes(count):
    """Run the stage again, in so many processes."""
    YAML().dump(
        YAML().load(paths.PARAMS)
        | {"compute": {"processes": count, "strategy": "ddp", "engine": "local", "address": None}},
        paths.PARAMS,
    )
    prepare.main()


def written():
    """All that the stage writes."""
    return {path: path.read_bytes() for path in [*paths.PREPARED.iterdir(), paths.SLICES, paths.DATA_METRICS]}


def test_several_processes_prepare_the_same_bytes_as_one(run, monkeypatch):
    table = rows(0, 120)
    alike = table.assign(text=table["text"].str.upper() + "!")[::2]
    run({"rows.csv": pd.concat([table, alike, table[:9], table[:9].assign(text=" ")])}, near_duplicate=0.8)
    expected = written()
    assert metrics()["dropped"]["near_duplicate_across_splits"] > 10
    monkeypatch.setattr(near, "PART", 40)
    monkeypatch.setattr(cleaning, "AT_ONCE", 40)
    for module, name in ((near, "hashes"), (near, "jaccard"), (cleaning, "INVISIBLE")):
        monkeypatch.setattr(module, name, None)  # in this process, which needs them no more
    in_processes(2)
    assert written() == expected


def test_a_process_that_is_killed_ends_prepare_with_one_line_and_what_was_there_stays(run, monkeypatch):
    def killing(*given):
        for found in computed(*given):
            yield found
            multiprocessing.active_children()[0].kill()

    run({"rows.csv": rows(0, 120)})
    expected, computed = written(), pool.Processes.map
    monkeypatch.setattr(cleaning, "AT_ONCE", 10)
    monkeypatch.setattr(pool.Processes, "map", killing)
    with pytest.raises(PipelineError, match=r"found one that was killed, perhaps for want of memory; run the command"):
        in_processes(2)
    assert written() == expected
    assert not any(paths.SCRATCH.iterdir())
