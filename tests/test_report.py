"""The report as a whole: on made-up outputs of the other stages, and in a tiny project under Git and DVC."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Project
from huggingface_hub import ModelCard
from reporting import outputs
from reporting.rendered import FOUND_BY_GITHUB, HOSTILE, TAGS, Rendered

from stages import report
from stages.common import paths
from stages.common.errors import PipelineError
from stages.common.texts import printable

HEAVY = ("torch", "sklearn", "scipy", "datasets", "transformers", "peft")
"""Libraries that take seconds to import."""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Enters a folder with everything that the report reads, for a kind of problem."""

    def enter(problem: str):
        outputs.write_all(problem, tmp_path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["report"])
        return tmp_path

    return enter


def made_hostile(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Rename classes, texts, slices, source and licence, each to one of `HOSTILE`; returns the classes and the rest."""
    renamed = dict(zip(("1", "NA"), HOSTILE, strict=False))
    others = list(HOSTILE[len(renamed) :])

    def rename(values):
        if isinstance(values, dict):
            return {renamed.get(key, key): rename(value) for key, value in values.items()}
        return values

    evaluated = outputs.tuned_with_slices("single_label")
    evaluated["slices"] = {others[0]: dict(zip(others[1:], evaluated["slices"]["lang"].values(), strict=False))}
    (folder / paths.EVALUATE_METRICS).write_text(json.dumps(rename(evaluated)))
    (folder / paths.DATA_METRICS).write_text(json.dumps(rename(outputs.data("single_label"))))
    for path in (paths.TEST_PREDICTIONS, paths.SUSPECTS, *paths.EVALUATE_PLOTS.iterdir()):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        names = table.columns.intersection(["label", "tuned", "zero_shot", "likely", "answer", "class"])
        table = table.assign(**{name: table[name].replace(renamed) for name in names})
        if "text" in table:
            table["text"] = [others[number % len(others)] for number in range(len(table))]
        table.to_csv(path, index=False)
    run = json.loads((folder / paths.ADAPTER / "run.json").read_text())
    run["params"]["data"]["source"], run["base_model"]["license"] = f"path:{others[2]}", others[3]
    (folder / paths.ADAPTER / "run.json").write_text(json.dumps(run))
    return renamed, others


def as_shown(text: str) -> str:
    return printable(" ".join(text.split()))


@pytest.mark.filterwarnings("error")
def test_nothing_that_data_say_becomes_markup_or_reaches_the_terminal(made_up, capsys):
    folder = made_up("single_label")
    renamed, others = made_hostile(folder)
    set_gate(folder, slices=["lang"], max_slice_drop=0.1)
    report.main()
    printed = capsys.readouterr()
    assert not [one for one in printed.out + printed.err if one in "\x1b\x07\x9b\u202e"]

    text, card = Rendered(paths.REPORT.read_text()), paths.CARD.read_text()
    body = card.split("---\n", 2)[2]
    assert text.tags.count("img") == 1
    for page in (text, Rendered(body)):
        assert set(page.tags) <= TAGS | {"img"}
        assert not FOUND_BY_GITHUB.search(page.prose)
    assert {as_shown(name) for name in (*renamed.values(), *others[:4])} <= set(text.code)
    assert as_shown(f"{others[0]} = {others[2]}") in text.code
    assert "Gate: failed: expected a drop in accuracy from all test rows to the slice " in text.prose
    assert {as_shown(name) for name in (*renamed.values(), f"path:{others[2]}", others[3])} <= set(Rendered(body).code)
    assert ModelCard(card).data.model_name == f"Text classifier: {', '.join(renamed.values())}"


def set_gate(folder: Path, **values: float | list[str]) -> None:
    """Change keys of params.yaml, of the gate above all."""
    text = (folder / paths.PARAMS).read_text()
    for key, value in values.items():
        text = re.sub(f"  {key}:.*", f"  {key}: {value}", text)
    (folder / paths.PARAMS).write_text(text)


@pytest.mark.parametrize("problem", outputs.SECTIONS)
def test_the_report_writes_its_text_its_figure_and_the_card_and_nothing_else(problem, made_up, capsys):
    folder = made_up(problem)
    before = {path for path in folder.rglob("*") if path.is_file()}
    report.main()
    written = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path not in before}
    assert written == {paths.REPORT, paths.SUMMARY, paths.CARD}
    text = paths.REPORT.read_text()
    assert text.startswith("# Was the tuning worth it?\n\n**Tuning was worth it**: ")
    assert re.search(r"\n\n!\[[\w ,%]+\]\(summary\.png\)\n$", text)
    assert capsys.readouterr().out.strip() in text
    assert "\n\nGate: passed.\n\n" in text
    assert "\n\nOne seed: with another the gain may differ. " in text
    assert "\n| 110 | `long long " in text
    assert "\n\nSuspect labels, which linear probes trained on other rows contradict: train 1 of 3,000; " in text
    assert "\n\nEvery text was read to its end, " in text
    assert text.split("\n\n")[1] in paths.CARD.read_text()


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("single_label", ["| tuned, by class | test rows |", "| accuracy, by length |", "| rows, by class | train |"]),
        ("multi_label", ["| tuned, by label | test rows |", "| row F1, by length |", "| rows, by label | train |"]),
        (
            "regression",
            ["closer to the true number than the linear probe", "| MAE, by length |", "| numbers |"],
        ),
    ],
)
def test_each_problem_has_its_own_words(problem, said, made_up):
    made_up(problem)
    report.main()
    text = paths.REPORT.read_text()
    for words in said:
        assert words in text
    assert ("by class" in text) == (problem == "single_label")


def test_test_rows_of_another_kind_are_a_warning(made_up):
    folder = made_up("single_label")
    report.main()
    assert "Warning: accuracy is" not in paths.REPORT.read_text()
    evaluated = outputs.tuned("single_label") | {"accuracy": 0.3}
    evaluated["interval"]["accuracy"] = {"low": 0.25, "high": 0.35}
    (folder / paths.EVALUATE_METRICS).write_text(json.dumps(evaluated))
    report.main()
    assert "Warning: accuracy is 75.0% on the 4 validation rows but 30.0% on the 4 test" in paths.REPORT.read_text()


@pytest.mark.parametrize("problem", outputs.SECTIONS)
def test_with_several_seeds_report_card_and_gate_follow_the_test_over_seeds(problem, made_up):
    folder = made_up(problem)
    (folder / paths.EVALUATE_METRICS).write_text(json.dumps(outputs.tuned_with_seeds(problem, p_value=0.2)))
    set_gate(folder, max_p_value=0.05)
    report.main()
    text, card = paths.REPORT.read_text(), paths.CARD.read_text()
    for page in (text, card):
        assert "**No evidence of a gain**" in page
        assert "(mean of 2 seeds; test over rows and seeds; highest p of " in page
        assert "worth it**" not in page
    assert "\n| 42 (kept) | " in text
    assert "One seed" not in text
    assert "Gate: failed: expected a p-value of at most 0.05 (gate.max_p_value), found 0.2." in text


@pytest.mark.parametrize("problem", outputs.SECTIONS)
def test_the_same_inputs_give_the_same_bytes(problem, made_up):
    made_up(problem)
    written = (paths.REPORT, paths.SUMMARY, paths.CARD)
    report.main()
    before = [path.read_bytes() for path in written]
    report.main()
    assert [path.read_bytes() for path in written] == before


def test_the_report_is_written_in_a_few_seconds_without_the_heavy_libraries(made_up):
    folder = made_up("single_label")
    command = f"import sys; from stages import report; report.main(); print([n for n in {HEAVY} if n in sys.modules])"
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert not done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - begin < 10  # about 2; room for a machine that is busy


def test_the_gate_fails_the_command_and_not_the_report(made_up, monkeypatch):
    folder = made_up("single_label")
    set_gate(folder, min_gain=0.1)
    report.main()
    assert "Gate: failed: expected a gain over the strongest rival of at least 0.1 (gate.min_gain), found 0.03." in (
        paths.REPORT.read_text()
    )
    monkeypatch.setattr(sys, "argv", ["report", "--gate"])
    with pytest.raises(SystemExit, match="1"):
        report.main()


def test_with_shuffled_training_labels_there_is_no_evidence_and_the_gate_fails(copied):
    labels, table = (copied.folder / path for path in ("data/encoded/train/labels.npy", "data/prepared/train.parquet"))
    shuffled = np.random.default_rng(0).permutation(np.load(labels))
    np.save(labels, shuffled)
    pd.read_parquet(table).assign(label=shuffled).to_parquet(table)
    for stage in ("baseline", "train", "evaluate"):
        copied.call(stage)
    set_gate(copied.folder, min_gain=0.2)
    done = copied.call("report", "--gate", check=False)
    assert done.returncode == 1
    assert "**No evidence of a gain**" in done.stdout
    assert "Gate: failed: expected a gain over the strongest rival of at least 0.2" in done.stdout
    assert not done.stderr


@pytest.fixture(scope="module")
def trained_less(project, tmp_path_factory) -> Project:
    """The tiny project after an experiment, `less`, that trains too little."""
    copied = Project(shutil.copytree(project.folder, tmp_path_factory.mktemp("less") / "project"))
    copied.dvc("exp", "run", "--name", "less", "-S", "lora.r=1", "-S", "train.epochs=1", "-S", "train.lr=1e-05")
    return copied


def test_experiments_are_shown_by_the_parameter_that_tells_them_apart(trained_less):
    parameters = json.loads((trained_less.folder / "metrics/train.json").read_text())["trainable_parameters"]
    (row,) = trained_less.call("experiments", "le", "--by", "lora.r").stdout.splitlines()[2:]
    assert row.startswith("| 1 | 1 |")
    assert row.endswith(f"| {parameters:,} |")
    for arguments, expected in (
        (["more"], "whose names start with 'more', found none"),
        (["--by", "lora.rank"], "expected a parameter of params.yaml, found lora.rank"),
    ):
        done = trained_less.call("experiments", *arguments, check=False)
        assert done.returncode == 1
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_pull_requests_job_shows_what_changed_between_two_commits(trained_less):
    trained_less.commit("Train less")
    for path in (ROOT / "Makefile", *ROOT.glob("requirements*")):
        shutil.copy(path, trained_less.folder)
    shutil.copytree(ROOT / ".ci", trained_less.folder / ".ci")
    (trained_less.folder / ".venv").mkdir()
    (trained_less.folder / ".venv/installed").touch()
    done = trained_less.run("make", "report", "REV=HEAD~1", check=False)
    assert done.returncode == 2, done.stderr  # the gate fails
    text = (trained_less.folder / "report.md").read_text()
    marker, change, gate, params, *_ = text.split("\n\n")
    assert marker == report.MARKER
    assert re.match(r"\*\*accuracy [\d.]+ → [\d.]+ % \(-[\d.]+ points, p = \S+\) against `HEAD~1`\*\*: ", change)
    assert "by the exact McNemar test on the same 24 test rows" in change
    assert gate.startswith("Gate: failed: expected a drop in accuracy of at most 0.02 (gate.max_drop), found ")
    assert params.splitlines()[2:] == [
        "| `lora.r` | 8 | 1 |",
        "| `train.epochs` | 12 | 1 |",
        "| `train.lr` | 0.005 | 1e-05 |",
    ]
    assert "\n\n<details><summary>Errors</summary>\n\nCompared with " in text
    assert "\n| `metrics/headline.json` | `tuned.accuracy` | " in text


def test_a_revision_without_metrics_gives_all_as_new_and_one_that_does_not_exist_an_error(copied):
    tree = copied.run("git", "mktree", input="").stdout.strip()
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    empty = copied.run("git", *identity, "commit-tree", "-m", "Start", tree).stdout.strip()
    text = copied.call("report", "--rev", empty).stdout
    assert text.startswith(
        f"{report.MARKER}\n\n**Nothing to compare with**: {empty[:7]} has no accuracy.\n\nGate: passed."
    )
    assert "\n| `metrics/headline.json` | `tuned.accuracy` | — | " in text
    done = copied.call("report", "--rev", "nowhere", check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr


def test_a_remote_whose_plugin_is_missing_is_one_line(monkeypatch):
    def missing(**options):
        raise ImportError("s3 is supported, but requires 'dvc-s3' to be installed")

    monkeypatch.setattr("dvc.api.DVCFileSystem", missing)
    with pytest.raises(PipelineError, match=r"^--rev main: s3 is supported, but requires 'dvc-s3' to be installed$"):
        report.history.files_at("main")


def test_a_comment_fits_however_many_classes_there_are(made_up, monkeypatch):
    made_up("single_label")
    monkeypatch.setattr(report.history, "changed_params", lambda rev, name: "No parameter changed.")
    monkeypatch.setattr(report.history, "changed_metrics", lambda rev, name: "No metric changed.")
    monkeypatch.setattr(report.history, "to_reproduce", lambda: "To reproduce: `make`.")
    findings = {"Verdict": "It was.", "By class": "| class |\n" * 9_000, "Data": "Rows."}
    commit = "0123456789" * 4
    text = report.comment(findings, None, commit, main=outputs.run("single_label").main, missed=[])
    assert text.startswith(f"{report.MARKER}\n\n**Nothing to compare with**: 0123456 has no accuracy.")
    assert len(text) < 65_536
    assert "<summary>By class" not in text
    assert text.endswith(
        "<details><summary>Data</summary>\n\nRows.\n\n</details>\n\nLeft out, as there is room for 65,000 characters "
        f"only: By class. All is in metrics/report.md, and in `dvc metrics diff {commit}`."
    )
