"""The repository keeps its word: dvc.yaml names what the code reaches, the README names what exists."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import ROOT
from huggingface_hub import constants
from packaging.utils import canonicalize_name
from pip._internal.models.index import PyPI

from stages import train
from stages.common import paths
from stages.params import Params
from stages.problems.kinds import PROBLEMS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def imported(path: Path) -> set[Path]:
    """The files of this project whose modules a file imports."""
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            files |= {file for name in names if (file := ROOT / f"{name.replace('.', '/')}.py").exists()}
    return files


def reached(path: Path) -> set[str]:
    """The files that a script imports, and those that they import, itself included.

    Beyond stages/params.py nothing is followed: what it reads is named under `params`, and its checks only refuse.
    """
    found, todo = set(), {path}
    while todo:
        path = todo.pop()
        found.add(path)
        todo |= imported(path) - found - {ROOT / "stages/params.py"}
    return {str(path.relative_to(ROOT)) for path in found}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_packages_that_the_stage_reaches_and_no_others(stage):
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    used = {
        path: [dep for dep in declared if dep == path or path.startswith(f"{dep}/")]
        for path in reached(ROOT / "stages" / f"{stage}.py")
    }
    assert [path for path, deps in used.items() if not deps] == []
    assert declared == {dep for deps in used.values() for dep in deps}


PACKAGES = (
    "common",
    "problems",
    "sources",
    "rows",
    "backbone",
    "compute",
    "encoding",
    "classifier",
    "adapters",
    "resuming",
    "training",
    "scoring",
    "evidence",
    "reporting",
    "trials",
    "streaming",
    "serving",
    "exporting",
    "web",
)
"""From the bottom up: a package imports those that stand before it, and itself."""

MODULES = sorted((ROOT / "stages").rglob("*.py"))


def test_every_package_has_its_place_in_the_order_and_in_the_page_on_the_design():
    assert sorted(PACKAGES) == sorted(path.parent.name for path in (ROOT / "stages").glob("*/__init__.py"))
    page = (ROOT / "docs/design.md").read_text()
    assert re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE) == list(PACKAGES)


def test_packages_import_from_those_below_them_alone_and_nothing_imports_a_script():
    for path in MODULES:
        for target in imported(path):
            if path.parent == ROOT / "stages":
                assert target.parent != ROOT / "stages" or target.stem == "params", f"{path} imports a script"
            else:
                below = PACKAGES[: PACKAGES.index(path.parent.name) + 1]
                assert target.parent.name in below, f"{path} imports {target}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {path: imported(path) for path in MODULES}
    done: set[Path] = set()
    while ready := [path for path in graph if path not in done and graph[path] <= done]:
        done |= {*ready}
    assert done == set(graph)


def test_packages_modules_functions_and_the_list_of_deps_stay_short():
    for package in PACKAGES:
        modules = [path for path in (ROOT / "stages" / package).glob("*.py") if path.stem != "__init__"]
        assert 0 < len(modules) <= 8, package
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
    assert sum(len(stage["deps"]) for stage in STAGES.values()) <= 90


def test_training_reaches_no_words_rows_or_sources_and_the_report_no_scores():
    packages = {stage: {Path(path).parent.name for path in reached(ROOT / f"stages/{stage}.py")} for stage in STAGES}
    assert not packages["train"] & {"reporting", "rows", "sources", "scoring", "evidence", "encoding"}
    assert not packages["report"] & {
        "scoring",
        "backbone",
        "classifier",
        "training",
        "rows",
        "sources",
        "encoding",
    }
    for stage in ("fetch", "prepare", "encode", "baseline", "audit", "train", "evaluate"):
        assert "reporting" not in packages[stage], stage


def test_nothing_but_the_problems_themselves_names_a_kind_of_problem():
    classes = {type(problem).__name__ for problem in PROBLEMS.values()}
    for path in MODULES:
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        if path.parent.name != "problems":
            assert not {node.value for node in nodes if isinstance(node, ast.Constant)} & set(PROBLEMS), path
        if path.parent.name not in ("problems", "scoring"):  # which extends the classes
            assert not {node.name for node in nodes if isinstance(node, ast.alias)} & classes, path


def test_what_run_json_records_of_params_is_what_train_names():
    recorded = Params.load(ROOT / "params.yaml").model_dump(include=train.RECORDED, exclude=train.NOT_RECORDED)
    named = {}
    for key in STAGES["train"]["params"]:
        value, at, (*sections, last) = PARAMS, named, key.split(".")
        for section in sections:
            value, at = value[section], at.setdefault(section, {})
        at[last] = value[last]
    assert recorded == named


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_script_of_its_name_with_a_short_main(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert main.end_lineno - main.lineno < 30
    assert f"python -m stages.{stage}" in ast.get_docstring(tree)


def test_params_that_stages_name_exist():
    for stage in STAGES.values():
        for key in stage["params"]:
            value = PARAMS
            for part in key.split("."):
                value = value[part]


@pytest.mark.parametrize("stage", ["fetch", "prepare", "report", "evidence.significance"])
def test_a_stage_without_a_model_and_the_test_of_a_change_start_without_torch(stage):
    command = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode


def test_every_path_of_dvc_yaml_is_a_constant_of_paths():
    named = set()
    for stage in STAGES.values():
        for group in ("deps", "outs", "metrics", "plots"):
            named |= {
                path for entry in stage.get(group, []) for path in (entry if isinstance(entry, dict) else [entry])
            }
    known = [value for value in vars(paths).values() if isinstance(value, Path)]
    unknown = [path for path in named if not any(Path(path).is_relative_to(one) for one in known)]
    assert [path for path in unknown if not path.startswith("stages/")] == []


def test_every_cached_output_is_ignored_by_git_and_every_metric_is_not():
    outs = [out for stage in STAGES.values() for group in ("outs", "metrics", "plots") for out in stage.get(group, [])]
    kept = [path for out in outs if isinstance(out, dict) for path in out]
    made = [*(out for out in outs if isinstance(out, str)), *map(str, paths.EXPORTS)]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *made, *kept], cwd=ROOT, capture_output=True, text=True
    )
    assert kept
    assert set(ignored.stdout.split()) == set(made)


def test_training_never_reads_the_test_split():
    assert not any("test" in Path(dep).parts for dep in STAGES["train"]["deps"])
    readers = {path.stem for path in (ROOT / "stages").glob("*.py") if '"test"' in path.read_text()}
    # train leaves its limit out of run.json; export compares the exported model with the adapter
    assert readers == {"audit", "baseline", "evaluate", "export", "report", "train"}


def test_no_file_names_the_host_of_a_registry():
    hosts = (PyPI.netloc, urlsplit(constants._HF_DEFAULT_ENDPOINT).netloc)
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for path in filter(Path.is_file, (ROOT / name for name in listed if name)):
        assert not any(host.encode() in path.read_bytes() for host in hosts), path


def test_the_lock_has_every_requirement_at_its_version_and_every_package_has_hashes():
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^([\w.-]+)==([\w.+-]+).*((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", lock, re.MULTILINE)
    assert len(entries) == sum(not line.startswith(("#", " ")) for line in lock.splitlines()), "one without hashes"
    assert sum(hashes.count("--hash=") for *_, hashes in entries) == lock.count("--hash=")
    locked = {(canonicalize_name(name), version) for name, version, _ in entries}
    names = ("requirements.txt", "requirements-serve.txt", "requirements-ray.txt", "requirements-dev.txt")
    wanted = "".join((ROOT / name).read_text() for name in names)
    pinned = re.findall(r"^(\w[\w.-]*)(?:\[\w+\])?==([^ \n]+)", wanted, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^\w", wanted, re.MULTILINE)), "one without a version"
    assert {(canonicalize_name(name), version) for name, version in pinned} <= locked, "make lock"
    build = re.search(r"^torch==(\S+)\+cpu --hash=sha256:", (ROOT / "requirements-cpu.lock").read_text(), re.MULTILINE)
    assert ("torch", build[1]) in locked, "make lock, where pip has torch's build for CPUs"


def test_the_commands_that_pages_name_exist():
    modules, targets = (
        {(page.name, name) for page in PAGES for name in re.findall(command, page.read_text())}
        for command in (r"python -m ((?:stages|benchmarks|tests)(?:\.\w+)+)", r"[`(]make ([a-z][\w-]*)")
    )
    assert [one for one in modules if not (ROOT / f"{one[1].replace('.', '/')}.py").exists()] == []
    assert [one for one in targets if one[1] not in TARGETS] == []
    assert len(modules) > 20 and len(targets) > 10


def test_the_settings_that_the_readme_changes_exist():
    for name in re.findall(r"-S '?([\w.]+)=", README):
        value = PARAMS
        for part in name.split("."):
            value = value[part]


def test_the_modules_that_pages_name_exist():
    for page in PAGES:
        for name in re.findall(r"`([\w/]+/\w+\.py)`", page.read_text()):
            assert any((folder / name).exists() for folder in (ROOT, ROOT / "stages")), f"{page.name}: {name}"


def test_the_readmes_tree_exists():
    tree = README.split("## The tree")[1].split("```")[1]
    for line in tree.splitlines():
        if path := line.split("  ")[0].strip():
            assert (ROOT / path).exists() or path.startswith(("data/", "models/")), path


def test_the_readmes_figures_are_those_of_the_committed_metrics():
    baseline, tuned = (
        json.loads(subprocess.check_output(["git", "show", f"HEAD:{path}"], cwd=ROOT))
        for path in (paths.BASELINE_METRICS, paths.EVALUATE_METRICS)
    )
    rivals = {"bag of words": "bag_of_words", "zero-shot": "zero_shot", "linear probe": "linear_probe"}
    shown = {label: baseline[name] for label, name in rivals.items()} | {"**tuned**": tuned}
    for label, scores in shown.items():
        low, high = (100 * scores["interval"]["accuracy"][end] for end in ("low", "high"))
        figure = f"{scores['accuracy']:.1%} ({low:.1f} to {high:.1f})"
        assert re.search(rf"^\| {re.escape(label)} \|.*\| \**{re.escape(figure)}\** \|$", README, re.MULTILINE), label
    gain, low, high = (100 * tuned[key]["strongest_rival"] for key in ("gain", "gain_low", "gain_high"))
    p_value = tuned["p_value"]["strongest_rival"]
    assert f"{gain:+.1f} points over the linear probe with this seed (95 % interval {low:+.1f} to {high:+.1f}" in README
    assert f"p = {p_value:.2g})" in README


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_pin_their_actions_and_run_what_the_makefile_has(path):
    workflow = yaml.load(path.read_text(), yaml.BaseLoader)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    assert {target for step in steps for target in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))} <= TARGETS


def test_every_script_reads_its_arguments_or_refuses_all():
    scripts = [*ROOT.glob("stages/[!_]*.py"), *ROOT.glob("benchmarks/*.py")]
    read = {f"{script.relative_to(ROOT)}": code for script in scripts if "__main__" in (code := script.read_text())}
    for name, code in read.items():
        assert ("errors.run_script(" in code) != ("ArgumentParser(" in code), name
        assert "sys.argv" not in code, name
    assert {"stages/train.py", "stages/predict.py", "benchmarks/gauntlet.py", "benchmarks/variants.py"} <= set(read)
