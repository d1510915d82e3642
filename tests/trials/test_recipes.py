"""The recipes of docs/scale.md for searches on several machines, on a tiny project and with a stand-in for SLURM."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
from conftest import ROOT, Project
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from stages.params import Params
from stages.trials import journal

PAGE = (ROOT / "docs/scale.md").read_text().split("## Searches on several machines")[1]
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
(ARRAY,) = (script for script in SCRIPTS if "#SBATCH" in script)
(GRID,) = (script for script in SCRIPTS if script.startswith("srun"))

SRUN = f"""\
#!{sys.executable}
import os, runpy, sys
if sys.argv[1] != "python":
    os.execvp(sys.argv[1], sys.argv[1:])
sys.path.insert(0, "")
from stages.trials import journal
journal.SILENCE = 5.0
sys.argv = sys.argv[3:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Stands in for SLURM's command: it starts the command here, and has little patience with what is silent."""


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_recipes_are_proper_shell(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_job_array_asks_for_gpus_in_a_way_that_slurm_accepts():
    (options,) = re.findall(r"^#SBATCH (.*)", ARRAY, re.MULTILINE)
    # sbatch: --gpus-per-task used without either --gpus or -n/--ntasks is not allowed
    assert "--gpus=" in options


@pytest.fixture
def cluster(project: Project, own_sources: None, tmp_path: Path) -> Callable[[str, int], subprocess.Popen]:
    """A function that starts a job array's task, by its script and number, in the folder of a project."""
    shutil.copytree(project.folder, tmp_path / "project")
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def start(script: str, number: int) -> subprocess.Popen:
        given = {"SLURM_SUBMIT_DIR": str(tmp_path / "project"), "SLURM_ARRAY_TASK_ID": str(number), "PATH": path}
        return subprocess.Popen(["bash", "-c", script], env=os.environ | given, cwd=tmp_path / "project")

    return start


@pytest.mark.long
def test_jobs_of_an_array_share_a_search_and_one_that_is_killed_is_made_up_for(cluster, tmp_path):
    script = ARRAY.replace("--trials 40", "--trials 2").replace("lora.r=4,8,16", "lora.r=2,4")
    log, first, killed = tmp_path / "project.log", cluster(script, 1), cluster(script, 2)
    while not log.exists() or not all(f"{tmp_path}/project-{number}" in log.read_text() for number in (1, 2)):
        assert first.poll() is None
        assert killed.poll() is None
        time.sleep(0.1)
    for process in (killed, *psutil.Process(killed.pid).children(recursive=True)):
        process.kill()
    killed.wait()
    assert first.wait() == 0
    search = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(log))))
    done = {f"search-{trial.number}": trial.user_attrs for trial in search.trials if trial.value is not None}
    assert len(search.trials) == 3
    assert len(done) == 2
    assert all(found[journal.WHERE].endswith(f"{tmp_path}/project-1") for found in done.values())
    shown = Project(tmp_path / "project").run("dvc", "exp", "list", "--name-only").stdout
    assert sorted(shown.split()) == sorted(done)
    best = f"search-{search.best_trial.number}"
    Project(tmp_path / "project").run("dvc", "exp", "apply", best)
    assert (tmp_path / "project/models/adapter/adapter_model.safetensors").is_file()


@pytest.mark.long
def test_a_job_of_an_array_runs_one_value_of_a_grid(cluster, tmp_path):
    script = "\n".join([*ARRAY.splitlines()[:-1], GRID.replace("--temp", "--temp train")])
    assert cluster(script, 7).wait() == 0
    shared = Project(tmp_path / "project")
    assert shared.run("dvc", "exp", "list", "--name-only").stdout.split() == ["splits-7"]
    shared.run("dvc", "exp", "apply", "splits-7")
    assert Params.load(shared.folder / "params.yaml").data.seed == 7
