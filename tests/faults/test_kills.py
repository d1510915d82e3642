"""After a kill at any moment the next run ends as if there had been none. `make faults` does it 200 times."""

import shutil
import sys
import time
from pathlib import Path

import kills
import pytest
from conftest import ROOT, Project
from ruamel.yaml import YAML

pytestmark = pytest.mark.usefixtures("own_sources")

SHORT = (8,)
"""The seeds of `make test-long`: a training."""

LONG_TRAINING = 60
"""Epochs where there is time: several checkpoints are written."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a seed: as many as `--faults` says."""
    if "seed" in metafunc.fixturenames:
        count = metafunc.config.getoption("faults")
        metafunc.parametrize("seed", range(count) if count else [pytest.param(*SHORT, marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def done(project: Project, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Project:
    """A finished pipeline, whose training saves as often as it may."""
    done = Project(tmp_path_factory.mktemp("kills") / "done")
    shutil.copytree(project.folder, done.folder)
    shutil.copytree(ROOT / ".ci", done.folder / ".ci")
    path = done.folder / "params.yaml"
    params = YAML(typ="safe").load(path)
    params["checkpoints"]["minutes"] = 1e-9
    if request.config.getoption("faults"):
        params["train"]["epochs"] = LONG_TRAINING
    done.write_params(params)
    done.dvc("repro")
    rows = "".join(f"{number},{('Good.', 'Bad really', 'So so.')[number % 3]}\n" for number in range(kills.ROWS))
    (done.folder / "given.csv").write_text(f"number,text\n{rows}")
    done.commit("Describe a longer training")
    if request.config.getoption("faults"):
        done.run("dvc", "exp", "run", "--temp", "--name", kills.COMPARED, "-S", "lora.r=2")
        for command in kills.COMMANDS.values():
            done.run(*command)
    return done


@pytest.fixture(scope="module")
def undisturbed(done: Project, tmp_path_factory: pytest.TempPathFactory):
    """A function from a kill to how many seconds its work takes without it."""
    seconds: dict[tuple[str, bool], float] = {}

    def measured(kill: kills.Kill) -> float:
        key = (kill.work, kill.again)
        if key not in seconds:
            home = tmp_path_factory.mktemp("undisturbed")
            project = Project(shutil.copytree(done.folder, home / "project"))
            command = kills.prepare(project, kill)
            begin = time.monotonic()
            project.run(*command, env=kills.environment(home / "scratch"))
            seconds[key] = time.monotonic() - begin
            shutil.rmtree(home)
        return seconds[key]

    return measured


@pytest.fixture(scope="module")
def expected(done: Project) -> dict:
    """What every run has to end with."""
    return kills.contents(done)


def test_after_a_kill_the_next_run_ends_as_if_there_had_been_none(
    done: Project, undisturbed, expected: dict, seed: int, tmp_path: Path, record_property
):
    stages = list(YAML(typ="safe").load(done.folder / "dvc.yaml")["stages"])
    kill = kills.draw(seed, stages)
    print(kill)
    project = Project(shutil.copytree(done.folder, tmp_path / "project"))
    command = kills.prepare(project, kill)
    killed = kills.run_and_kill(project, command, kill, kill.share * undisturbed(kill), tmp_path / "first")
    print(f"exit {killed.status}\n{killed.errors}")
    kept = kills.answered(project)
    mended = project.run(sys.executable, ".ci/mend").stderr  # as make does
    begun = kills.left_running(tmp_path / "first")
    after = project.run(*command, check=False, env=kills.environment(tmp_path / "second"), timeout=kills.SECONDS)
    print(f"then exit {after.returncode}\n{after.stderr}")
    found = {
        "work": kill.work,
        "signal": f"{kill.signal.name} to {kill.target}",
        "too late": killed.alone,
        "lock mended": bool(mended),
        "outlived DVC": bool(begun),
        "went on": "of an interrupted run" in after.stderr,
    }
    assert found["went on"] or not kept
    record_property("kill", found)
    assert after.returncode == 0
    kills.wait_for_end(tmp_path / "first")  # a stage that outlived DVC may be the slower one
    assert kills.differences(kills.contents(project), expected) == []
    assert kills.damaged(project) == []
    assert [*(tmp_path / "first").iterdir(), *(tmp_path / "second").iterdir()] == []
    assert kills.left_running(tmp_path / "first") + kills.left_running(tmp_path / "second") == []
    if kill.signal.name != "SIGKILL":
        assert kills.tracebacks(killed.errors) == []
    shutil.rmtree(tmp_path)
