"""The benchmarks: what RESULTS.md says is what was measured, and the script for a GPU runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import abstention, bench, gpu, gpu_results, growth, labels, results, scale
from stages import prepare
from stages.common import paths
from stages.common.errors import PipelineError


def test_the_committed_results_are_those_that_were_measured():
    parts = results.measured()
    optional = {"gpu", "former_gauntlet"}
    assert set(parts) - optional == set(results.SECTIONS) - optional
    assert (results.HERE / "RESULTS.md").read_text() == results.document(parts)


def test_the_report_writes_the_page_and_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "HERE", tmp_path)
    results.report()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("RESULTS.md", "time_accuracy.png", "growth.png", "gauntlet.png")
    }
    assert (tmp_path / "RESULTS.md").read_text() == results.document(results.measured())


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A folder for the results and RESULTS.md."""
    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(results, name, tmp_path)
    return tmp_path


def test_values_are_still_valid_under_the_same_conditions_alone(kept, monkeypatch):
    assert results.still_valid("variants", rows=10) == {}
    results.save("variants", {"rows": 10, "variants": {}})
    assert results.still_valid("variants", rows=10) == {"rows": 10, "variants": {}}
    assert results.still_valid("variants", rows=11) == {}
    monkeypatch.setattr(results, "conditions_here", lambda: {"hardware": "another", "settings": {}})
    assert results.still_valid("variants", rows=10) == {}


def test_a_part_that_fails_leaves_its_result_and_the_others_are_measured(kept, monkeypatch):
    def fails(clone: bench.Clone) -> dict:
        raise PipelineError("repro failed")

    monkeypatch.setattr(bench, "PARTS", {"share": fails, "startup": lambda clone: {"git": 1.5}})
    monkeypatch.setattr(bench, "Clone", lambda folder: None)
    monkeypatch.setattr(sys, "argv", ["bench"])
    (kept / "share.json").write_text(before := (ROOT / "benchmarks/results/share.json").read_text())
    with pytest.raises(PipelineError, match="expected a result of every part, found errors in share; see above"):
        bench.main()
    assert (kept / "share.json").read_text() == before
    assert "| git | 1.5 |" in (kept / "RESULTS.md").read_text()


def test_a_command_that_fails_says_what_it_printed(tmp_path):
    clone = object.__new__(bench.Clone)
    clone.folder = tmp_path
    with pytest.raises(PipelineError, match=r"failed:\nfull$"):
        clone.python("-c", "print('full'); exit(1)")


class Measured:
    """A clone in which everything has run, with the same metrics everywhere, until something fails."""

    def __init__(self, folder: Path, runs: int = 3) -> None:
        self.folder, self.left = folder, runs

    def python(self, *arguments: str) -> bench.Run:
        if not self.left:
            raise PipelineError("no space left")
        self.left -= 1
        return bench.Run(1.0, 1.0, [])

    def retrain(self) -> bench.Run:
        return self.python()

    def limits(self) -> dict:
        return {"test": 10}

    def set(self, **sections: dict) -> None:
        pass

    def metric(self, file: str) -> dict:
        tuned = {"accuracy": 0.5, "interval": {"accuracy": {}}, "gain": {"strongest_rival": 0.0}}
        return tuned | {"trainable_parameters": 1, "abstention": {"rows": 10}}


def test_methods_that_are_not_measured_any_more_keep_their_results(kept, tmp_path):
    results.save("methods", {"rows": {"test": 10, "train": 500}, "methods": {"lora": {}, "vera": {"accuracy": 0.7}}})
    with pytest.raises(PipelineError, match="no space"):
        bench.methods(Measured(tmp_path))
    found = results.measured()["methods"]["values"]["methods"]
    assert [found[name]["accuracy"] for name in ("lora", "rslora", "vera")] == [0.5, 0.5, 0.7]


def test_every_split_is_kept_as_soon_as_it_is_measured(kept, monkeypatch):
    monkeypatch.setattr(abstention, "Clone", Measured)
    monkeypatch.setattr(abstention, "write_params", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["abstention"])
    with pytest.raises(PipelineError, match="no space"):
        abstention.main()
    assert [*results.measured()["abstention"]["values"]["splits"]] == ["42", "1", "2"]


def test_a_promise_holds_where_the_interval_reaches_it_or_nothing_is_answered():
    found = {"rows": 1_000, "threshold": 0.8, "answered": 0.5}
    scored = [found | {"accuracy": 0.88, "low": 0.85, "high": high} for high in (0.905, 0.895)]
    splits = dict(zip("012", [found | {"answered": 0.0}, *scored], strict=True))
    page = results.abstention({"target": 0.9, "splits": splits})
    assert [line.split(" | ")[-2:] for line in page.splitlines()[-3:]] == [
        ["", "yes |"],
        ["88.0% (85.0 to 90.5)", "yes |"],
        ["88.0% (85.0 to 89.5)", "no |"],
    ]


def test_made_up_rows_are_prepared_as_the_growth_of_costs_is_measured(saved_model, tmp_path, monkeypatch):
    folder = growth.workspace(tmp_path / "rows", saved_model("llama"), {"train": 200, "test": 50}, 8)
    monkeypatch.chdir(folder)
    prepare.main()
    assert {path.name for path in paths.PREPARED.iterdir()} >= {f"{name}.parquet" for name in paths.SPLITS}


@pytest.mark.parametrize("options", [(), pytest.param(("--tuned",), marks=pytest.mark.long)])
def test_wrong_labels_are_measured_beside_the_labels_as_they_are(finished, monkeypatch, capsys, options):
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", ["labels", *options])
    labels.main()
    found, probe = json.loads(capsys.readouterr().out), json.loads(paths.BASELINE_METRICS.read_text())["linear_probe"]
    assert found["clean"] == pytest.approx(probe["accuracy"])
    assert [share["flipped"] for share in found["shares"].values()] == [3, 6]
    if options:
        assert found["tuned"]["clean"] == json.loads(paths.EVALUATE_METRICS.read_text())["accuracy"]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """What the script for a GPU writes on a machine without one."""
    folder = tmp_path_factory.mktemp("gpu")
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([ROOT / "benchmarks/gpu.sh", folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["gpu.json", "gpu.log"]
    return folder / "gpu.json"


@pytest.mark.long
def test_the_dry_run_of_the_script_for_a_gpu_measures_every_part(dry_run):
    measured = json.loads(dry_run.read_text())
    errors = {name: part["error"] for name, part in measured["parts"].items() if "error" in part}
    assert errors == {}
    text = gpu_results.section(measured)
    for row in ("encode, batch 8", "train, top 1 layers", "train, all layers", "predict, batch 16", "tiny, float32"):
        assert row in text


@pytest.mark.long
def test_a_dry_run_does_not_become_a_result(dry_run):
    with pytest.raises(SystemExit, match="found a dry run"):
        gpu.report(dry_run)


def test_a_part_that_fails_or_takes_too_long_leaves_what_it_found(monkeypatch):
    setitimer = signal.setitimer
    monkeypatch.setattr(signal, "setitimer", lambda timer, seconds: setitimer(timer, seconds / 10))

    def fails(found):
        found["before"] = 1
        raise RuntimeError("out of memory")

    def lasts(found):
        while True:
            found["before"] = 1

    assert gpu.guarded(fails, 9) | {"part_s": 0} == {"before": 1, "error": "RuntimeError: out of memory", "part_s": 0}
    assert gpu.guarded(fails, 4) == {"error": "no time left"}
    found = gpu.guarded(lasts, 5)
    assert (found["before"], found["error"]) == (1, "TimeoutError: more than 5 s")


MEASURED = {
    name: [{"rows": rows, "seconds": 10 + rows / 1_000, "peak MiB": 400 + rows / 10_000} for rows in (1e3, 1e4, 1e6)]
    for name in (growth.PREPARE_ROWS, growth.ENCODE_ROWS)
} | {
    growth.PREPARE_PROCESSES: [
        {"processes": number, "seconds": seconds} for number, seconds in zip((1, 2, 4), (100, 82, 86), strict=True)
    ],
    growth.ENCODE_PROCESSES: [{"processes": number, "seconds": 40 + 3 * number} for number in (1, 2, 4)],
}
SHARE = {"gflops": {"frozen": 100}, "share": {"encode": 0.5, "fused": 0.25}}


def test_the_predicted_costs_go_through_the_measured_points_and_workers_share_what_can_be_divided():
    fitted = scale.Workers.fitted(MEASURED, cores=2)
    one, four = (scale.costs(scale.Setting(rows=1e6, workers=workers), MEASURED, SHARE, fitted) for workers in (1, 4))
    assert one["prepare"].seconds == pytest.approx(1_010)
    # 100 = 60 + 40, 82 = 60 + 40 / 2 + 2, 86 = 60 + 40 / 2 + 3 * 2, on two cores
    assert four["prepare"].seconds == pytest.approx(1_010 * (0.6 + 0.4 / 4) + 3 * 2)
    assert one["prepare"].memory == pytest.approx(500 * 2**20)
    frozen, top = scale.Setting(rows=1e6).operations
    assert one["encode"].seconds == pytest.approx(1_010 + 25e6 * frozen / 50e9)
    assert four["encode"].seconds == pytest.approx(1_010 + 25e6 * frozen / 200e9 + 3 * 3)
    assert one["train"].seconds == pytest.approx(25e6 * 2 * top / 25e9)
    assert four["train"].seconds == pytest.approx(one["train"].seconds / 4 + 3 * 3)
    assert one["encode"].disk == 1e6 * 25 * 576 * 4


def test_the_costs_are_printed_for_every_number_of_rows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale", "--rows", "1e4", "1e8", "--workers", "8", "--rate", "1e14"])
    scale.main()
    said = capsys.readouterr().out
    assert "% of prepare. Each further worker takes " in said
    assert "10,000 rows of 25 tokens, 8 worker(s):" in said and "100,000,000 rows" in said
    assert said.count("| encode | ") == 2
