"""Other runs, as Git and DVC keep them."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc import api
from reporting import outputs
from reporting.rendered import HOSTILE, TAGS, Rendered

from stages import report
from stages.common import paths
from stages.common.errors import PipelineError
from stages.evidence.change import Change
from stages.reporting import history

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org")


HASH = "0" * 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What each test has a copy of, see `repository`."""
    folder = tmp_path_factory.mktemp("history") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        folder.mkdir()
        patch.chdir(folder)
        make_repository()
    return folder


@pytest.fixture
def repository(made, tmp_path, monkeypatch):
    """A repository of Git and DVC: a commit without metrics, one with an accuracy of 0.5, and 0.75 in the workspace.

    The committed model is right on every row, that of the workspace on half of them.
    """
    monkeypatch.chdir(shutil.copytree(made, tmp_path, dirs_exist_ok=True))
    return tmp_path


def make_repository() -> None:
    """Make it in the current folder."""
    for folder in ("metrics", "data/predictions"):
        Path(folder).mkdir(parents=True)
    for command in (("git", "init", "--quiet"), ("dvc", "init", "--quiet"), ("git", "add", "--all")):
        subprocess.run(command, check=True)
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--message", "Start"), check=True)
    answers = outputs.answers("single_label")
    content = answers.assign(tuned=answers["label"]).to_csv(index=False).encode()
    digest = hashlib.md5(content).hexdigest()
    kept = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    rows, made = str(paths.PREPARED / "test.parquet"), str(paths.TEST_PREDICTIONS)
    outs = {"deps": [rows], "params": ["seed", "words"], "outs": [made]}
    stage = {"cmd": "true", **outs, "metrics": [{"metrics/evaluate.json": {"cache": False}}]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))
    out = {"path": made, "hash": "md5", "md5": digest, "size": len(content)}
    locked = {"deps": [{"path": rows, "hash": "md5", "md5": HASH}], "outs": [out]}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"evaluate": {"cmd": "true"} | locked}}))
    Path("params.yaml").write_text("seed: 0\n")
    write(0.5)
    subprocess.run(("git", "add", "--all"), check=True)
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--message", "Evaluate"), check=True)
    write(0.75)


def write(accuracy: float, mcc: float = 0.5) -> None:
    """The workspace's metrics."""
    interval = {"accuracy": {"low": 0.25, "high": 1.0}}
    paths.EVALUATE_METRICS.write_text(json.dumps({"accuracy": accuracy, "mcc": mcc, "interval": interval}))


def since(rev: str) -> Change | None:
    """The change since a revision, of a run whose test rows were answered as in `outputs`."""
    tuned, answers = outputs.tuned("single_label", accuracy=0.75), outputs.answers("single_label")
    return history.change_since(rev, outputs.run("single_label"), tuned=tuned, answers=answers)


def test_the_metrics_are_those_of_the_revision_not_of_the_workspace(repository):
    change = since("HEAD")
    assert (change.before, change.after) == (0.5, 0.75)


def test_the_answers_of_the_revision_come_from_the_cache_and_without_them_the_hash_of_the_rows_decides(repository):
    assert since("HEAD").paired["gain"] == -0.5
    shutil.rmtree(repository / ".dvc/cache")
    change = since("HEAD")
    assert (change.same_rows, change.paired) == (True, None)
    paths.LOCK.write_text(paths.LOCK.read_text().replace(HASH, "another"))
    assert not since("HEAD").same_rows
    paths.LOCK.write_text("<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> other\n")
    assert not since("HEAD").same_rows


def test_a_revision_without_metrics_has_none(repository):
    assert since("HEAD~1") is None


def test_an_experiment_runs_with_the_very_values_that_it_is_given(repository):
    changes = {"seed": 7, "words": 'Größe \\n\n"'}
    stage = {"cmd": "cp params.yaml metrics/copy.yaml", "params": list(changes), "outs": ["metrics/copy.yaml"]}
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"copy": stage}}))
    (repository / "params.yaml").write_text("seed: 0\nwords: none\n")
    assert history.run_experiment("copied", changes, "copy")
    assert api.params_show(rev="copied") == changes


@pytest.mark.parametrize("rev", ["nowhere", "--all"])
def test_an_unknown_revision_is_one_clear_line(repository, rev):
    with pytest.raises(PipelineError, match=rev) as caught:
        since(rev)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_one_clear_line(repository):
    (repository / "metrics/evaluate.json").write_text("{")
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--all", "--message", "Break"), check=True)
    with pytest.raises(PipelineError, match=r"--rev HEAD: .*evaluate\.json") as caught:
        since("HEAD")
    assert "\n" not in str(caught.value)


def test_changed_parameters_and_metrics_are_listed_without_the_differences_between_machines(repository):
    write(0.75, mcc=0.5000001)
    assert history.changed_metrics("HEAD", "main").splitlines() == [
        "| file | metric | main | now | change |",
        "|---|---|---:|---:|---:|",
        "| `metrics/evaluate.json` | `accuracy` | 0.5 | 0.75 | +0.25 |",
        "",
        "Changes below 1e-05 are left out: 1.",
    ]
    assert history.changed_params("HEAD", "main") == "No parameter changed since main."
    (repository / "params.yaml").write_text(f'seed: 1\nwords: "{"*a " * 99}"\n')
    listed = history.changed_params("HEAD", "main")
    assert listed.splitlines()[:3] == [
        "| parameter | main | now |",
        "|---|---|---|",
        "| `seed` | 0 | 1 |",
    ]
    assert "| `words` | — | `*a *a" in listed
    assert len(listed) < 300


@pytest.mark.parametrize("name", HOSTILE[:5])
@pytest.mark.parametrize("changed", [history.changed_params, history.changed_metrics])
def test_what_a_parameter_a_metric_or_a_revision_is_called_is_no_markup(name, changed, monkeypatch):
    answer = json.dumps({f"{name}.yaml": {name: {"old": [name], "new": name}}})
    monkeypatch.setattr(history, "dvc_output", lambda *arguments: answer)
    page = Rendered(changed("HEAD", report.called(name)))
    assert set(page.tags) <= TAGS
    assert page.code[0] == name
    assert page.code[-1] == name
    assert any(f"{name}.yaml" in code for code in page.code)


def test_how_to_reproduce_depends_on_what_is_committed(repository):
    commit = history.output_of("git", "rev-parse", "HEAD").strip()
    assert history.to_reproduce() == f"To reproduce: `git checkout {commit}`, then `make`."
    (repository / "params.yaml").write_text("seed: 1\n")
    assert history.to_reproduce() == f"To reproduce: first commit what differs from {commit}."


def test_a_command_that_fails_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.fspath(tmp_path.parent))
    with pytest.raises(PipelineError, match=r"^git rev-parse HEAD: fatal: not a git repository") as caught:
        history.output_of("git", "rev-parse", "HEAD")
    assert "\n" not in str(caught.value)


def shown(name: str, *, state: str | None = None, error: str | None = None, evaluated: bool = True) -> dict:
    """An experiment as `dvc exp show --json` gives it."""
    data = {
        "params": {"params.yaml": {"data": {"seed": 1}}},
        "outs": {"models/adapter": {"hash": "new"}},
        "deps": {"models/adapter": {"hash": "new" if evaluated else "old"}},
    }
    executor = {"state": state} if state else None
    return {"revs": [{"rev": name, "name": name, "error": error, "data": data}], "executor": executor}


def test_finished_experiments_of_a_name_are_found(monkeypatch):
    experiments = [
        shown("seed-1", state="success"),
        shown("seed-2", evaluated=False),
        shown("seed-3", state="running"),
        shown("seed-4", error="failed"),
        shown("rank-1"),
    ]
    answer = json.dumps([{"rev": "workspace"}, {"rev": "commit", "experiments": experiments}])
    monkeypatch.setattr(history, "dvc_output", lambda *arguments: answer)
    found = list(history.finished("seed"))
    assert [(one.name, one.evaluated) for one in found] == [("seed-1", True), ("seed-2", False)]
    assert found[0].params == {"seed": 1}


def test_a_file_of_metrics_is_that_of_the_revision_whether_dvc_lists_it_or_not(repository):
    assert history.json_at("HEAD", paths.EVALUATE_METRICS)["accuracy"] == 0.5
    assert history.json_at("HEAD~1", paths.EVALUATE_METRICS) is None


def test_a_commit_without_experiments_has_none(monkeypatch):
    answer = json.dumps([{"rev": "workspace"}, {"rev": "commit", "experiments": None}])
    monkeypatch.setattr(history, "dvc_output", lambda *arguments: answer)
    assert list(history.finished("")) == []


def test_a_parameter_is_found_by_its_dotted_name():
    params = {"lora": {"r": 8}, "seed": 1}
    assert history.parameter(params, "lora.r") == 8
    for name in ("lora.rank", "seed.more"):
        with pytest.raises(PipelineError, match=f"expected a parameter of params.yaml, found {name}"):
            history.parameter(params, name)
