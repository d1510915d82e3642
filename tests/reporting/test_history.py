"""Other runs, as Git and DVC keep them."""

import json
import os
import subprocess

import pytest

from stages.common import paths
from stages.common.errors import PipelineError
from stages.reporting import history

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of Git and DVC: a commit without metrics, one with an accuracy of 0.5, and 0.75 in the workspace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    for command in (("git", "init", "--quiet"), ("dvc", "init", "--quiet"), ("git", "add", "--all")):
        subprocess.run(command, check=True)
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--message", "Start"), check=True)
    stage = {"cmd": "true", "metrics": [{"metrics/evaluate.json": {"cache": False}}]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))
    write(0.5)
    subprocess.run(("git", "add", "--all"), check=True)
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--message", "Evaluate"), check=True)
    write(0.75)
    return tmp_path


def write(accuracy: float) -> None:
    """The workspace's metrics; the gains have names of their own, as those of a real run."""
    paths.EVALUATE_METRICS.write_text(json.dumps({"accuracy": accuracy, "gain": {"strongest_rival": 0.25}}))


def test_the_metrics_are_those_of_the_revision_not_of_the_workspace(repository):
    assert history.metrics_at("HEAD") == {"accuracy": 0.5, "gain": {"strongest_rival": 0.25}}


def test_a_revision_without_metrics_has_none(repository):
    assert history.metrics_at("HEAD~1") is None


@pytest.mark.parametrize("rev", ["nowhere", "--all"])
def test_an_unknown_revision_is_one_clear_line(repository, rev):
    with pytest.raises(PipelineError, match=rev) as caught:
        history.metrics_at(rev)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_one_clear_line(repository):
    (repository / "metrics/evaluate.json").write_text("{")
    subprocess.run(("git", *IDENTITY, "commit", "--quiet", "--all", "--message", "Break"), check=True)
    with pytest.raises(PipelineError, match=r"--rev HEAD: .*evaluate\.json") as caught:
        history.metrics_at("HEAD")
    assert "\n" not in str(caught.value)


def test_changes_are_shown_with_the_commands_that_reproduce_them(repository):
    commit = history.output_of("git", "rev-parse", "HEAD").strip()
    text = history.changes("HEAD")
    assert text.startswith(f"To reproduce: `git checkout {commit}`, then `make`.")
    assert "### Params changed since HEAD\n\nnone" in text
    assert "| metrics/evaluate.json | accuracy " in " ".join(text.split())
    (repository / "params.yaml").write_text("seed: 1\n")
    assert history.changes("HEAD").startswith(f"To reproduce: first commit what differs from {commit}.")


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
    assert history.json_at("HEAD", paths.EVALUATE_METRICS) == {"accuracy": 0.5, "gain": {"strongest_rival": 0.25}}
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
