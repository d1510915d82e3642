"""inspect: what a file holds, and the exact command to start with."""

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from dvc.utils.hydra import apply_overrides

from stages import inspect
from stages.common.errors import PipelineError
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.sources import tracked

TICKETS = pd.DataFrame(
    {
        "id": range(60),
        "opened": [f"2024-01-{row % 9 + 1:02}" for row in range(60)],
        "body text": [f"the printer number {row} is broken" for row in range(57)]
        + ["The printer  number 0 is broken", "", "the printer number 1 is broken"],
        "queue": ["IT", "billing"] * 28 + ["legal affairs", "IT", "IT", ""],
    }
)


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What inspect prints of a file, as arguments; in a repository with tickets.csv."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "data/raw").mkdir(parents=True)
    TICKETS.to_csv("data/raw/tickets.csv", index=False)

    def told(*arguments):
        monkeypatch.setattr(sys, "argv", ["inspect", *arguments])
        inspect.main()
        return capsys.readouterr().out

    return told


def test_columns_labels_lengths_and_odd_rows_are_named(told):
    text = told("data/raw/tickets.csv")
    assert text.startswith("data/raw/tickets.csv: 60 rows\n")
    assert [line.split()[:2] for line in text.splitlines()[3:5]] == [["id", "integers"], ["opened", "text"]]
    for line in (
        "text: 'body text'; words: 5 % 6, median 6, 95 % 6, longest 6",
        "label: 'queue' (single_label); 3 distinct: IT 30, billing 28, legal affairs 1",
        "odd: 1 rows without text, which are dropped (row 59)",
        "odd: 2 rows whose text is in an earlier row, which are dropped (row 58, 60)",
        "odd: 1 rows without a label, at which prepare stops: label or remove them (row 60)",
        "warning: fewer than 20 rows of legal affairs (1); add rows or remove those",
    ):
        assert f"\n{line}\n" in text


def test_words_are_counted_as_where_columns_are_chosen(told):
    rows = {"text": ["打印机坏了" * 6, "打印机坏了吗" * 6, "the  printer", ""] * 5, "label": ["it", "billing"] * 10}
    pd.DataFrame(rows).to_csv("data/raw/chinese.csv", index=False)
    assert "\ntext: 'text'; words: 5 % 0, median 15, 95 % 18, longest 18\n" in told("data/raw/chinese.csv")


def test_nothing_in_a_file_controls_the_terminal(told):
    pd.DataFrame({"text": ["a\x1b[31m film", "b"], "la\x07bel": ["x\x9b0m", "y"]}).to_csv(
        "data/raw/odd.csv", index=False
    )
    text = told("data/raw/odd.csv", "--text", "text", "--label", "la\x07bel")
    assert "a\\x1b[31m film" in text
    assert "x\\x9b0m 1" in text
    assert not set("\x1b\x07\x9b") & set(text)


def test_the_command_to_start_with_is_one_that_dvc_and_a_shell_take(told, tmp_path):
    add, run = told("data/raw/tickets.csv").splitlines()[-2:]
    assert add == "  git add data/raw/tickets.csv"
    arguments = shlex.split(run)
    assert arguments[:3] == ["dvc", "exp", "run"]
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    apply_overrides(tmp_path / "params.yaml", [one for one in arguments[3:] if one != "-S"])
    params = Params.load(tmp_path / "params.yaml")
    assert (params.data.source, params.data.text, params.data.label) == (
        "path:data/raw/tickets.csv",
        "body text",
        "queue",
    )
    assert params.encode.template == r"Body text: {text}\nQueue:"


def test_what_params_say_of_an_earlier_dataset_is_undone(told, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    pd.DataFrame({"text": ["a long text", "another text"] * 9, "label": [1, 2] * 9}).to_csv("data/raw/plain.csv")
    earlier = ["data.problem=regression", "data.classes={a: 1, b: 2}", "encode.template='Body: {text}'"]
    apply_overrides(params, [*earlier, "data.text=body", "encode.label_words={a: x, b: y}", "train.lr=0.01"])
    run = shlex.split(told("data/raw/plain.csv").splitlines()[-1])
    apply_overrides(params, [one for one in run[3:] if one != "-S"])
    found = Params.load(params)
    assert (found.data.problem, found.data.text, found.data.label) == ("single_label", "text", "label")
    assert (found.data.classes, found.encode.template, found.encode.label_words) == (None, None, None)
    assert found.train.lr == 0.01
    assert told("data/raw/plain.csv").endswith(
        "dvc exp run -S data.source=path:data/raw/plain.csv -S data.text=text -S data.label=label\n"
    )


def test_settings_that_the_new_problem_or_file_cannot_have_are_undone(told, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(params, ["data.slices=[language]", "train.balance=weights", "evaluate.target_accuracy=0.9"])
    TICKETS.assign(stars=range(60)).to_csv("data/raw/tickets.csv", index=False)
    numbers = shlex.split(told("data/raw/tickets.csv", "--label", "stars", "--problem", "regression").splitlines()[-1])
    assert {"data.slices=[]", "train.balance=null", "evaluate.target_accuracy=null"} < {*numbers}
    classes = shlex.split(told("data/raw/tickets.csv", "--label", "queue").splitlines()[-1])
    assert [one for one in classes if "slices" in one or "balance" in one or "target" in one] == ["data.slices=[]"]
    apply_overrides(params, ["data.slices=[opened]"])
    assert "slices" not in told("data/raw/tickets.csv", "--label", "queue")


def test_columns_whose_values_prepare_refuses_are_not_proposed(told):
    Path("data/raw/tokens.jsonl").write_text('{"text": ["a", "b"], "label": "x"}\n' * 20)
    with pytest.raises(
        PipelineError, match=r"^tokens.jsonl: expected text, .* in column 'text' .*, found list in row 1"
    ):
        told("data/raw/tokens.jsonl")


@pytest.mark.parametrize("content", ["x: [", "[1]", "data: 3", "encode:", "3", "data: {problem: regression}"])
def test_params_that_are_no_params_change_nothing(content, told, tmp_path):
    before = told("data/raw/tickets.csv")
    (tmp_path / "params.yaml").write_text(content)
    assert told("data/raw/tickets.csv") == before


@pytest.mark.parametrize(("large", "tool"), [(10**9, "git"), (10, "dvc")])
def test_a_file_from_elsewhere_is_copied_by_a_command_that_a_shell_takes(told, monkeypatch, large, tool):
    monkeypatch.setattr(tracked, "LARGE", large)
    file = "My data/tickets 2026.csv"
    Path("My data").mkdir()
    TICKETS.to_csv(file, index=False)
    copy = told(file).splitlines()[-2]
    assert shlex.split(copy) == [
        "cp",
        "-rL",
        file,
        "data/raw/tickets 2026.csv",
        "&&",
        tool,
        "add",
        "data/raw/tickets 2026.csv",
    ]


@pytest.mark.parametrize(("large", "tool"), [(10**9, "git"), (10, "dvc")])
def test_of_a_glob_only_what_it_matches_is_copied_and_tracked(told, tmp_path, monkeypatch, large, tool):
    monkeypatch.setattr(tracked, "LARGE", large)
    Path("My data/below").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "below/c.csv"):
        TICKETS.to_csv(f"My data/{name}", index=False)
    Path("My data/private.txt").write_text("no table")
    *_, copy, run = told("My data/*.csv").splitlines()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / tool).write_text('#!/bin/sh\necho "$@" > tracked\n')
    (tmp_path / tool).chmod(0o755)
    subprocess.run(copy, shell=True, check=True)
    assert sorted(path.name for path in Path("data/raw/My data").iterdir()) == ["a.csv", "b.csv"]
    assert Path("tracked").read_text() == "add data/raw/My data\n"
    assert shlex.split(run)[4] == 'data.source="path:data/raw/My data/*.csv"'
    *_, copy, run = told("My data/**/*.csv").splitlines()
    assert copy.startswith("  mkdir -p 'data/raw/My data-2'  # copy the files there, each in its folder, then: ")
    assert shlex.split(run)[4] == 'data.source="path:data/raw/My data-2/**/*.csv"'


def test_of_a_glob_in_this_folder_the_copy_gets_the_name_of_the_folder(told, tmp_path):
    TICKETS.to_csv("here.csv", index=False)
    *_, copy, run = told("h*.csv").splitlines()
    name = f"data/raw/{tmp_path.name}"
    assert copy == f"  mkdir -p {name} && cp -L ./h*.csv {name}/ && git add {name}"
    assert shlex.split(run)[4] == f"data.source=path:{name}/h*.csv"


@pytest.mark.parametrize(
    ("large", "command"), [(10**9, "git add 'data/raw/*s.csv'"), (10, "dvc add --glob 'data/raw/*s.csv'")]
)
def test_of_a_glob_in_the_repository_only_what_it_matches_is_tracked(told, monkeypatch, large, command):
    monkeypatch.setattr(tracked, "LARGE", large)
    assert told("data/raw/*s.csv").splitlines()[-2] == f"  {command}"
    subprocess.run(["git", "add", "data/raw/tickets.csv"], check=True)
    Path("data/raw/other.csv").write_text("a\n")
    assert "add" not in told("data/raw/*s.csv").splitlines()[-2]


@pytest.mark.parametrize("file", ["../link/tickets.csv", "../link/*.csv", "../link", "{absolute}/link/tickets.csv"])
def test_a_file_from_elsewhere_may_be_in_a_linked_folder(told, tmp_path, monkeypatch, file):
    (tmp_path / "link").symlink_to(tmp_path / "data/raw")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    file = file.format(absolute=tmp_path)
    assert told(file).startswith(f"{file}: 60 rows\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw/link").symlink_to(tmp_path / "data/raw")
    with pytest.raises(PipelineError, match="expected a folder, found a symbolic link, whose changes DVC does not see"):
        told("data/raw/link/tickets.csv")


@pytest.mark.parametrize("there", ["data/raw/new.csv.gz", "data/raw/new.csv.gz.dvc", "data/raw/new.csv.gz/a.csv"])
def test_a_copy_takes_no_name_that_is_in_use(told, tmp_path, there):
    TICKETS.to_csv("new.csv.gz", index=False)
    Path(there).parent.mkdir(parents=True, exist_ok=True)
    Path(there).write_text("something else")
    (tmp_path / "current.csv.gz").symlink_to("new.csv.gz")
    for file, name in (("new.csv.gz", "new-2.csv.gz"), ("current.csv.gz", "current.csv.gz")):
        *_, copy, run = told(file).splitlines()
        assert copy == f"  cp -rL {file} data/raw/{name} && git add data/raw/{name}"
        assert shlex.split(run)[4] == f"data.source=path:data/raw/{name}"
        *_, run = told(f"{tmp_path.parent}//{tmp_path.name}//{file}").splitlines()
        assert shlex.split(run)[4] == f"data.source=path:data/raw/{name}"


def test_a_file_that_git_tracks_needs_no_step_before(told):
    subprocess.run(["git", "add", "data"], check=True)
    assert "git add" not in told("data/raw/tickets.csv")


def test_without_git_nothing_is_to_be_tracked(told, monkeypatch):
    assert "git add" in told("data/raw/tickets.csv")
    monkeypatch.setenv("PATH", "")
    assert "git add" not in told("data/raw/tickets.csv")


@pytest.mark.parametrize("file", ["data/raw/t.zip//tickets.csv", "data/raw/tick*.csv", "data/raw/folder"])
def test_archives_globs_and_folders_are_read(told, tmp_path, file):
    with zipfile.ZipFile("data/raw/t.zip", "w") as archive:
        archive.write("data/raw/tickets.csv", "tickets.csv")
    (tmp_path / "data/raw/folder").mkdir()
    TICKETS.to_csv("data/raw/folder/some.csv", index=False)
    text = told(file)
    assert text.startswith(f"{file}: 60 rows\n")
    assert f"-S {shlex.quote(f'data.source=path:{file}')} -S" in text


def test_what_is_not_clear_is_left_to_the_user(told):
    TICKETS.assign(status=["open", "shut"] * 30).to_csv("data/raw/tickets.csv", index=False)
    text = told("data/raw/tickets.csv")
    assert "label: not clear (queue or status" in text
    assert "-S data.label=COLUMN" in text
    assert "-S data.label=status" in told("data/raw/tickets.csv", "--label", "status")


def test_a_first_line_whose_values_come_again_is_a_row(told):
    rows = TICKETS[["queue", "body text"]][:57]
    rows.to_csv("data/raw/plain.csv", index=False, header=False)
    text = told("data/raw/plain.csv")
    assert text.startswith("data/raw/plain.csv: 57 rows\n")
    assert "label: 'column_1' (single_label); 3 distinct: IT 28, billing 28, legal affairs 1\n" in text
    assert "odd: the first line may be a row, " in text
    assert '-S data.text=column_2 -S data.label=column_1 -S \'data.columns=["column_1","column_2"]\'' in text
    assert "label: 'IT' (single_label)" in told("data/raw/plain.csv", "--label", "IT")
    pd.concat([rows[:30], pd.DataFrame([rows.columns], columns=rows.columns), rows[30:]]).to_csv(
        "data/raw/joined.csv", index=False
    )
    assert "label: 'queue' (single_label); 4 distinct: " in told("data/raw/joined.csv")


def test_a_header_that_names_the_text_or_the_label_is_none_of_the_rows(told):
    for names in ({"body text": "Text", "queue": "type"}, {"body text": "body", "queue": "label"}):
        rows = TICKETS[[*names]][:57].rename(columns=names)
        rows.loc[0, names["queue"]] = names["queue"]
        rows.to_csv("data/raw/plain.csv", index=False)
        text = told("data/raw/plain.csv")
        assert text.startswith("data/raw/plain.csv: 57 rows\n")
        assert "the first line may be a row" not in text


def test_a_file_without_a_header_and_one_from_elsewhere_are_said(told, tmp_path):
    TICKETS[["queue", "body text"]].to_csv(
        "elsewhere.csv", index=False, header=["1", "the printer number 99 is broken"]
    )
    text = told(str(tmp_path / "elsewhere.csv"))
    assert "odd: '1' as a column's name; if the file has no header: data.columns=[…]" in text
    assert 'data.columns=["' not in text
    assert "cp -rL elsewhere.csv data/raw/elsewhere.csv && git add data/raw/elsewhere.csv" in text


def test_a_name_may_have_its_accents_composed_or_not(told):
    TICKETS.rename(columns={"queue": "nai\u0308ve"}).to_csv("data/raw/tickets.csv", index=False)
    for given in ("na\u00efve", "nai\u0308ve"):
        assert 'data.label="na\u00efve"' in told("data/raw/tickets.csv", "--label", given)


def test_a_wrong_column_is_one_line_with_the_nearest_name(told):
    with pytest.raises(PipelineError, match=r"one of its columns for --label, id, opened, .*; did you mean 'queue'\?"):
        told("data/raw/tickets.csv", "--label", "Queu")


@pytest.mark.parametrize(
    ("name", "given"),
    [("a.csv", b"text,label\n"), ("a.jsonl", b""), ("a.parquet", TICKETS[:0].to_parquet(index=False))],
)
def test_a_file_without_rows_is_one_line(name, given, told):
    Path(name).write_bytes(given)
    with pytest.raises(PipelineError, match=f"^{name}: expected rows, found none$"):
        told(name)


@pytest.mark.parametrize(
    ("problem", "label", "said"),
    [
        ("regression", "queue", "expected a finite number in column 'queue', found 'IT'; name another column with"),
        ("multi_label", "queue", "expected a list of labels in column 'queue', or a column for each label .*; name an"),
        (
            "single_label",
            "empty",
            "expected labels in column 'empty', found none; name another column with --label, or",
        ),
    ],
)
def test_no_run_is_proposed_on_labels_of_another_kind(problem, label, said, told):
    TICKETS.assign(empty="").to_csv("data/raw/tickets.csv", index=False)
    with pytest.raises(PipelineError, match=rf"^tickets.csv: {said}"):
        told("data/raw/tickets.csv", "--problem", problem, "--label", label)


def test_rows_whose_label_is_no_number_are_odd_among_others(told):
    stars = [*range(57), "unknown", "inf", ""]
    TICKETS.assign(stars=stars).to_csv("data/raw/tickets.csv", index=False)
    text = told("data/raw/tickets.csv", "--problem", "regression", "--label", "stars")
    assert "\nlabel: 'stars' (regression); lowest 0, median 28, highest 56\n" in text
    said = "with what is no number, at which prepare stops: correct or remove them (row 58, 59)"
    assert f"\nodd: 2 rows {said}\n" in text


def test_rows_that_are_empty_altogether_are_dropped_and_stop_nothing(told):
    TICKETS.assign(queue=TICKETS["queue"].where(TICKETS["body text"] != "", "")).to_csv(
        "data/raw/tickets.csv", index=False
    )
    text = told("data/raw/tickets.csv", "--text", "body text", "--label", "queue")
    assert "\nodd: 1 rows without text, which are dropped (row 59)\n" in text
    assert "\nodd: 1 rows without a label, at which prepare stops: label or remove them (row 60)\n" in text


@pytest.mark.parametrize(
    ("problem", "settled"),
    [
        ("single_label", "keep the one that more than half of their rows have, or are left out"),
        ("regression", "get the median"),
    ],
)
def test_what_becomes_of_a_text_whose_rows_have_different_labels_is_said(problem, settled):
    rows = pd.DataFrame({"text": ["good", "Good", "bad"], "stars": [1, 2, 1]})
    lines = list(inspect.odd(rows, "text", "stars", PROBLEMS[problem]))
    assert f"odd: 2 rows whose text has another label elsewhere; such texts {settled} (row 1, 2)" in lines
