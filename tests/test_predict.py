"""`predict` on many rows: in chunks, from several files, past what cannot be read, and on after an interruption."""

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from conftest import sentences
from safetensors.torch import load_file, save_file

from stages import predict
from stages.common import errors, files, paths
from stages.rows import formats
from stages.serving.answers import Classifier
from stages.streaming import outputs, tables

ROWS = 30


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def inside(project, tmp_path, monkeypatch):
    """Enters a folder with the project's models, where chunks have few rows."""
    monkeypatch.chdir(tmp_path)
    for path in (paths.ADAPTER, paths.BASE_MODEL, paths.ABSTENTION):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(project.folder / path)
    monkeypatch.setattr(tables, "FIRST", 2)
    monkeypatch.setattr(tables, "MOST", 8)
    texts = [text for text, _ in sentences(ROWS)]
    pd.DataFrame({"id": range(ROWS), "text": texts}).to_csv("rows.csv", index=False)
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """A function that runs `predict`; it returns how many rows were computed, and takes the chunk in which it ends."""

    def run(*arguments, killed_in=None):
        computed, answers = [], Classifier.answers

        def counted(self, inputs, **options):
            if killed_in is not None and len(computed) == killed_in:
                raise KilledError
            computed.append(len(inputs))
            return answers(self, inputs, **options)

        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["predict", *map(str, arguments)])
            patch.setattr(Classifier, "answers", counted)
            with pytest.raises(KilledError) if killed_in is not None else contextlib.nullcontext():
                predict.main()
        return sum(computed)

    return run


@pytest.mark.parametrize(("ending", "options"), [(one, ()) for one in outputs.ENDINGS] + [(".csv", ("--compare",))])
def test_a_run_that_was_interrupted_goes_on_and_ends_with_the_same_bytes(ending, options, inside, run, capsys):
    lines = Path("rows.csv").read_text().splitlines(keepends=True)
    Path("rows.csv").write_text("".join([*lines[:9], "odd,\n,x,y\n", *lines[9:]]))
    output = f"answers{ending}"
    asked = ("--input", "rows.csv", "--output", output, *options)
    every = run(*asked)
    expected = {path.name: path.read_bytes() for path in Path().glob("answers.*")}
    assert sorted(expected) == sorted([output, "answers.rejects.csv"])
    for path in expected:
        Path(path).unlink()
    for killed_in in (0, 3, 1):
        run(*asked, killed_in=killed_in)
        assert not list(Path().glob("answers*"))
    capsys.readouterr()
    last = run(*asked)
    assert {path.name: path.read_bytes() for path in Path().glob("answers.*")} == expected
    assert 0 < last < every
    done = (every - last) // (1 + len(options))
    assert f"predict: goes on after {done} rows of an interrupted run\n" in capsys.readouterr().err
    assert list(paths.CHECKPOINTS.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: os.utime("rows.csv", (1, 1)),
        lambda: Path("rows.csv").write_text(Path("rows.csv").read_text() + "30,More.\n"),
        lambda: ("--compare",),
        lambda: ("--output", "other.csv"),
        lambda: ("--defuse-formulas",),
    ],
    ids=["time", "size", "other columns", "another output", "other cells"],
)
def test_other_input_and_other_arguments_take_nothing_up(change, inside, run, capsys):
    asked = ("--input", "rows.csv", "--output", "answers.csv")
    run(*asked, killed_in=3)
    more = change()
    run(*asked, *(more if isinstance(more, tuple) else ()))
    assert "interrupted run" not in capsys.readouterr().err
    assert len(list(paths.CHECKPOINTS.iterdir())) == 1


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxruntime"])
def test_another_version_of_what_computes_answers_takes_nothing_up(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\nGood.\n")
    options = Namespace(**dict.fromkeys(predict.DECISIVE) | {"inputs": [Path("rows.csv")], "output": Path("out.csv")})
    given = tables.Tables(tables=[tables.opened(Path("rows.csv"))], texts=["text"])

    def home():
        with predict.place(options, {}, given, {}) as home:
            return home

    before = home()
    assert home() == before
    about = tmp_path / f"packages/{package}-99.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert home() != before


def test_adapters_of_one_base_answer_side_by_side_as_each_alone(inside, run):
    other = shutil.copytree(paths.ADAPTER, "other", copy_function=shutil.copyfile)
    weights = load_file(f"{other}/adapter_model.safetensors")
    halved = {name: value / 2 for name, value in weights.items()}
    save_file(halved, f"{other}/adapter_model.safetensors", metadata={"format": "pt"})
    both = ("--adapter", "one=models/adapter", "--adapter", f"two={other}")
    run("--input", "rows.csv", "--output", "both.csv", "--compare", *both)
    run("--input", "rows.csv", "--output", "alone.csv", "--compare")
    run("--input", "rows.csv", "--output", "two.csv", "--adapter", f"x={other}")
    found, alone, two = (pd.read_csv(name) for name in ("both.csv", "alone.csv", "two.csv"))
    assert found["one_positive"].tolist() == alone["positive"].tolist()
    assert found["one_untouched_positive"].tolist() == alone["untouched_positive"].tolist()
    assert found["two_positive"].tolist() == two["x_positive"].tolist() != alone["positive"].tolist()


@pytest.mark.parametrize("ending", outputs.ENDINGS)
def test_lines_and_arguments_are_answered_in_every_format(ending, inside, run, monkeypatch):
    output = Path(f"answers{ending}")
    for arguments in ((), ("Good.", "Bad.")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Good.\nBad.\n")))
        run("--output", output, *arguments)
        assert formats.read_all(output)["text"].tolist() == ["Good.", "Bad."]


def test_an_input_that_is_a_stream_is_not_taken_up(inside, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Good.\n" * 9)))
    run("--output", "answers.csv", killed_in=2)
    assert sorted(path.name for path in Path().iterdir()) == ["data", "models", "rows.csv"][1:]


def test_a_glob_leaves_out_what_is_hidden_and_in_hidden_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("parts/a.csv", "parts/._a.csv", "parts/.checkpoints/a.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert predict.inputs(Path("parts/**/*.csv")) == [Path("parts/a.csv")]
    assert predict.inputs(Path("parts/.c*/*.csv")) == [Path("parts/.checkpoints/a.csv")]


def test_a_quoted_glob_is_all_its_files_in_order(inside, run):
    Path("parts").mkdir()
    table = pd.read_csv("rows.csv")
    for part in (2, 0, 1):
        table[10 * part : 10 * part + 10].to_csv(f"parts/{part}.csv.gz", index=False)
    Path("parts/.hidden.csv.gz").write_text("hidden")
    run("--input", "rows.csv", "--output", "whole.csv")
    run("--input", "parts/*.csv.gz", "--output", "joined.csv")
    assert Path("joined.csv").read_bytes() == Path("whole.csv").read_bytes()
    Path("parts/3.csv").write_text("id,body\n1,a\n")
    for given, said in (
        ("parts/*", "parts/3.csv: expected the column 'text', as in parts/0.csv.gz, found id, body; rename the"),
        ("parts/*.tsv", "--input: expected files that match parts/*.tsv, found none"),
        ("par*", "parts: expected a file, found a folder"),
    ):
        with pytest.raises(errors.PipelineError) as refused:
            run("--input", given)
        assert str(refused.value).startswith(said)
    with pytest.raises(errors.PipelineError, match=r"found whole.csv, which is the input"):
        run("--input", "*.csv", "--output", "whole.csv")


@pytest.fixture
def memory(inside):
    """Object storage in memory with the rows, one of which cannot be read, in three files."""
    store = fsspec.filesystem("memory")
    lines = [line.encode() for line in Path("rows.csv").read_text().splitlines(keepends=True)]
    for part in range(3):
        some = [lines[0], *lines[10 * part + 1 : 10 * part + 11], *([b"odd\n"] if part == 1 else [])]
        store.pipe_file(f"/in/{part}.csv.gz", gzip.compress(b"".join(some), mtime=0))
    yield store
    store.store.clear()
    store.pseudo_dirs.clear()


def left():
    """What runs have left beside what the test has made."""
    found = (*Path(".cache").rglob("*"), *Path().glob("*answers*"))
    kept = (path for path in found if path.parent.name == "scratch" or path.is_file())
    return [path for path in kept if path != paths.CHECKPOINTS.with_suffix(files.LOCK)]


def test_files_at_urls_are_answered_as_files_here_and_the_answers_go_there(memory, run):
    memory.get("/in/", "parts", recursive=True)
    run("--input", "parts/*.gz", "--output", "here.csv")
    run("--input", "memory://in/*.gz", "--output", "memory://out/answers.csv")
    assert memory.cat("/out/answers.csv") == Path("here.csv").read_bytes()
    rejects = Path("here.rejects.csv").read_bytes()
    assert memory.cat("/out/answers.rejects.csv") == rejects.replace(b"parts/1", b"memory:///in/1")
    assert memory.find("/out") == ["/out/answers.csv", "/out/answers.rejects.csv"]
    assert left() == []
    memory.pipe_file("/in/3.csv", b"id,body\n1,a\n")
    said = "^memory:///in/3.csv: expected the column 'text', as in memory:///in/0.csv.gz, found id, body; "
    with pytest.raises(errors.PipelineError, match=said):
        run("--input", "memory://in/*")
    assert left() == []


def test_an_interrupted_run_on_files_at_urls_goes_on_and_begins_anew_if_one_has_changed(memory, run, capsys):
    asked = ("--input", "memory://in/*.gz", "--output", "memory://out/answers.parquet")
    every = run(*asked)
    expected = memory.cat("/out/answers.parquet")
    memory.rm("/out", recursive=True)
    run(*asked, killed_in=3)
    assert not memory.exists("/out")
    assert 0 < run(*asked) < every
    assert memory.cat("/out/answers.parquet") == expected
    assert "rows of an interrupted run" in capsys.readouterr().err
    run(*asked, killed_in=3)
    memory.pipe_file("/in/0.csv.gz", memory.cat("/in/0.csv.gz"))
    assert run(*asked) == every


def test_answers_that_could_not_be_sent_are_sent_by_the_same_command(memory, run, monkeypatch):
    asked = ("--input", "memory://in/*.gz", "--output", "memory://out/answers.csv")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", lambda *_, **__: memory.cat("/absent"))
        with pytest.raises(errors.PipelineError, match=r"found nothing of that name .*; all answers are kept, and the"):
            run(*asked)
    assert run(*asked) == 0
    assert memory.cat("/out/answers.csv").count(b"\n") == 1 + ROWS
    assert left() == []


def test_answers_to_a_stream_that_could_not_be_sent_are_kept_in_a_file(memory, run, monkeypatch):
    asked = ("--output", "memory://out/answers.csv")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Good.\n" * 9)))
    run(*asked)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Good.\n" * 9)))
    monkeypatch.setattr(type(memory), "put_file", lambda *_, **__: memory.cat("/absent"))
    with pytest.raises(errors.PipelineError) as refused:
        run(*asked)
    kept = Path(str(refused.value).rpartition(" all answers are kept in ")[2])
    assert kept.parent == paths.SCRATCH
    assert [one.read_bytes() for one in kept.iterdir()] == [memory.cat("/out/answers.csv")]


def test_rows_that_cannot_be_read_are_left_out_and_listed_or_end_a_strict_run(inside, run, capsys):
    Path("odd.jsonl").write_text('{"text": "Good."}\n{"text": 1}\n["Bad."]\n{"text": null}\n{"text": "Bad."}\n')
    run("--input", "odd.jsonl", "--output", "answers.jsonl")
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers] == ["Good.", 1, "Bad."]
    rejects = csv.DictReader(Path("answers.rejects.csv").read_text().splitlines())
    assert [(one["file"], one["line"], one["content"]) for one in rejects] == [
        ("odd.jsonl", "3", '["Bad."]'),
        ("odd.jsonl", "4", '{"text": null}'),
    ]
    said = "predict: 2 row(s) could not be read and have no answer; the first: odd.jsonl, line 3: "
    assert said in capsys.readouterr().err
    run("--input", "odd.jsonl")
    told = capsys.readouterr()
    assert said in told.err
    assert "with --output, a file keeps them" in told.err
    assert [line.split("\t")[0] for line in told.out.splitlines()] == ["text", "Good.", "1", "Bad."]
    with pytest.raises(errors.PipelineError, match=r"^odd.jsonl: expected readable rows, found in line 3: .* no|not a"):
        run("--input", "odd.jsonl", "--output", "strict.jsonl", "--strict")
    assert not list(Path().glob("strict*"))


def test_types_of_a_parquet_file_hold_for_all_chunks(inside, run):
    rows = [{"text": "Good.", "n": None}] * 9 + [{"text": "Bad.", "n": 1}, {"text": "Bad.", "n": 0.5}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("--input", "rows.jsonl", "--output", "answers.parquet")
    assert formats.read_all(Path("answers.parquet"))["n"].tolist()[8:] == [None, 1, 0.5]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"text": "Bad.", "n": "x"}])))
    refused = "answers.parquet: expected columns that such a file can hold, found: "
    with pytest.raises(errors.PipelineError, match=refused):
        run("--input", "rows.jsonl", "--output", "answers.parquet")


def test_the_names_of_columns_are_those_of_the_file_and_the_texts_have_one_of_their_own(inside, run, capsys):
    Path("rows.csv").write_text(",text,n,n\n1,Good.,2,3\n")
    run("--input", "rows.csv", "--output", "answers.csv")
    run("--input", "rows.csv")
    for header in (Path("answers.csv").read_text(), capsys.readouterr().out.replace("\t", ",")):
        assert header.startswith(",text,n,n,label,")
    Path("rows.csv").write_text("text,text\nGood.,Bad.\n")
    with pytest.raises(errors.PipelineError, match=r"^rows.csv: .* several columns .text.; rename all but one$"):
        run("--input", "rows.csv")


def test_what_cannot_be_read_or_written_is_refused_before_a_model_is_loaded(inside, run, monkeypatch):
    monkeypatch.setattr(Classifier, "tuned", lambda *_, **__: pytest.fail("loaded a model"))
    Path("empty.csv").write_text("text\n")
    Path("odd.csv.gz").write_bytes(gzip.compress(b"text\nGood.\n")[:-9])
    for arguments, said in (
        (("--input", "rows.csv", "--output", "rows.csv/answers.csv"), "rows.csv can hold none"),
        (("--input", "rows.csv", "--output", "models/adapter/answers.csv"), "where the pipeline has models/adapter"),
        (("--input", "empty.csv"), "empty.csv: expected rows, found none"),
        (("--input", "odd.csv.gz"), "odd.csv.gz: expected csv, found: damaged compression"),
    ):
        with pytest.raises(errors.PipelineError, match=said):
            run(*arguments)


def test_answers_come_as_lines_do_and_a_reader_that_leaves_ends_the_run_quietly(inside):
    (given, texts), (answers, printed) = os.pipe(), os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            for descriptor, number in ((given, 0), (printed, 1), (os.open("told", os.O_CREAT | os.O_WRONLY), 2)):
                os.dup2(descriptor, number)
            for descriptor in (given, texts, answers, printed):
                os.close(descriptor)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
            sys.argv = ["predict"]
            errors.run(predict.main)
        except SystemExit as left:
            status = left.code
        finally:
            os._exit(status)
    os.close(given)
    os.close(printed)
    with os.fdopen(answers) as read:
        os.write(texts, b"Good.\n")
        assert read.readline().startswith("text\tlabel\t")
        assert read.readline().startswith("Good.\t")
        os.write(texts, b"Bad.\n")
        assert read.readline().startswith("Bad.\t")
    os.write(texts, b"Good.\n")
    _, status = os.waitpid(child, 0)
    os.close(texts)
    assert os.waitstatus_to_exitcode(status) == errors.CLOSED_PIPE
    assert Path("told").read_text() == ""
