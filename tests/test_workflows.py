"""The workflows on a pull request: what nobody has checked runs without rights, and the comment is ours alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from stages.report import MARKER

REPORT, COMMENT = (
    yaml.load((ROOT / f".github/workflows/{name}.yml").read_text(), yaml.BaseLoader) for name in ("report", "comment")
)

GH = """\
#!{python}
import json, os, pathlib, subprocess, sys

folder, arguments = pathlib.Path(os.environ["ANSWERS"]), sys.argv[1:]
with (folder / "calls").open("a") as calls:
    print(" ".join(arguments), file=calls)
if arguments[0] == "run":
    to = pathlib.Path(arguments[arguments.index("--dir") + 1])
    (to / "report.md").write_text((folder / "report.md").read_text())
elif "--jq" in arguments:
    path = next(argument for argument in arguments if argument.startswith("repos/"))
    answer = (folder / (path.rpartition("/")[2] + ".json")).read_text()
    subprocess.run(["jq", "-r", arguments[arguments.index("--jq") + 1]], input=answer, text=True, check=True)
else:
    body = arguments[-1].removeprefix("body=@")
    (folder / "written").write_text(pathlib.Path(body).read_text())
"""
"""Stands in for GitHub's command line: its answers are files, filtered by jq as gh does it."""


def test_what_nobody_has_checked_runs_without_rights_and_the_comment_is_written_without_code():
    assert REPORT["on"] == "pull_request"
    assert REPORT["permissions"] == {"contents": "read"}
    (checkout,) = (step for step in steps(REPORT) if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["persist-credentials"] == "false"
    assert "github.token" not in str(REPORT)
    assert COMMENT["on"] == {"workflow_run": {"workflows": [REPORT["name"]], "types": ["completed"]}}
    assert COMMENT["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not any("uses" in step for step in steps(COMMENT))
    for workflow in (REPORT, COMMENT):
        assert "secrets" not in str(workflow)
        assert not any("permissions" in job for job in workflow["jobs"].values())
        assert not any("${{" in step.get("run", "") for step in steps(workflow)), "a name could become a command"


def steps(workflow: dict) -> list[dict]:
    """The steps of all jobs."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def remark(number: int, author: str, body: str) -> dict:
    """A comment, as GitHub lists it."""
    return {"id": number, "user": {"login": author}, "body": body}


OTHERS = [
    remark(1, "someone", f"{MARKER} I quote"),
    remark(2, "github-actions[bot]", "Coverage: 99 %"),
    remark(3, "github-actions[bot]", f"As said in {MARKER}"),
]


@pytest.fixture
def written(tmp_path):
    """Runs the job's script; returns its status, what it asked gh to write, and the text."""
    if not shutil.which("jq"):
        pytest.skip("jq, which gh contains, is not installed")
    (tmp_path / "gh").write_text(GH.format(python=sys.executable))
    (tmp_path / "gh").chmod(0o755)

    def run(
        report: str, *, comments: list[dict], commit: str = "abc", artifact: str = "report", other: str = "older"
    ) -> tuple[int, str, str]:
        listed = {
            "pulls": [{"number": 6, "head": {"sha": other}}, {"number": 7, "head": {"sha": commit}}],
            "artifacts": {"artifacts": [{"id": 5, "name": artifact, "size_in_bytes": 9000}]},
            "comments": comments,
        }
        for name, content in listed.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / "report.md").write_text(report)
        (step,) = steps(COMMENT)
        given = {name: value for name, value in step["env"].items() if "${{" not in value}
        given |= {"REPOSITORY": "o/r", "RUN": "1", "COMMIT": "abc", "OWNER": "fork", "BRANCH": "a; rm *"}
        given |= {"ANSWERS": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-e", "-c", step["run"]], env=given, capture_output=True, text=True)
        text = (tmp_path / "written").read_text() if (tmp_path / "written").exists() else ""
        *_, last = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, last if "--method P" in last else "", text

    return run


def test_our_comment_is_replaced_and_no_other(written):
    report = f"{MARKER}\n\naccuracy of @someone\n"
    status, call, text = written(report, comments=[*OTHERS, remark(4, "github-actions[bot]", f"{MARKER}\n\nold")])
    assert status == 0
    assert "--method PATCH repos/o/r/issues/comments/4 " in call
    assert text == f"{MARKER}\n\naccuracy of @\u200bsomeone\n"  # nobody is notified


def test_without_our_comment_a_new_one_is_made(written):
    status, call, _ = written(f"{MARKER}\n", comments=OTHERS)
    assert status == 0
    assert "--method POST repos/o/r/issues/7/comments " in call


@pytest.mark.parametrize("report", ["<b>Anything</b>", f"{MARKER}\n{'x' * 65_000}"])
def test_what_is_not_a_report_of_ours_is_refused(written, report):
    assert written(report, comments=OTHERS) == (1, "", "")


@pytest.mark.parametrize("changed", [{"commit": "newer"}, {"artifact": "other"}, {"other": "abc"}])
def test_without_a_report_or_one_pull_request_with_its_commit_nothing_is_written(written, changed):
    assert written(f"{MARKER}\n", comments=OTHERS, **changed) == (0, "", "")
