"""run.json: a file with fixed keys, and what its readers take from it."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from conftest import ROOT, tiny_params

from stages.adapters.run import Run
from stages.common import errors, paths
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS


def run(metrics: dict | None = None, **sections: dict) -> Run:
    """That of a tiny training."""
    return Run(
        depth=2,
        max_length=64,
        params=tiny_params(**sections),
        base_model={"source": "path:models/raw/tiny", "revision": None, "license": "MIT"},
        packages={"torch": "2"},
        metrics={"main": "accuracy", "best_epoch": 1, "validation": {"accuracy": 0.75, "loss": 0.5}} | (metrics or {}),
    )


def test_the_file_has_the_fields_in_their_order_and_reads_back_the_same(tmp_path):
    made = run()
    made.save(tmp_path)
    written = (tmp_path / "run.json").read_text()
    values = {key: getattr(made, key) for key in ("depth", "max_length", "params", "base_model", "packages", "metrics")}
    assert written == json.dumps(values, indent=2) + "\n"
    assert Run.load(tmp_path) == made
    assert {path.name for path in tmp_path.iterdir()} == {"run.json"}


def test_a_run_cannot_be_changed():
    made = run()
    with pytest.raises(FrozenInstanceError):
        made.depth = 0


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run({"validation": {"loss": float("nan")}}).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_number_that_is_not_finite_is_not_read(tmp_path):
    run({"thresholds": {"a": 0.125}}).save(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace("0.125", "NaN"))
    with pytest.raises(PipelineError, match=r"run.json: expected what .* damaged \(Out of range float.*; restore"):
        Run.load(tmp_path)


@pytest.mark.parametrize("field", [field.name for field in fields(Run)])
def test_a_missing_key_is_one_clear_line(field, tmp_path):
    run().save(tmp_path)
    path = tmp_path / "run.json"
    values = json.loads(path.read_text())
    del values[field]
    path.write_text(json.dumps(values))
    with pytest.raises(PipelineError) as caught:
        Run.load(tmp_path)
    expected = "expected the keys depth, max_length, params, base_model, packages, metrics, found "
    assert str(caught.value).startswith(f"{path}: {expected}{', '.join(values)}; ")
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_one_clear_line(tmp_path):
    run().save(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(PipelineError, match=r"run\.json: expected the keys depth, .*, metrics, found .*, version; "):
        Run.load(tmp_path)


def test_a_missing_file_says_which_command_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        errors.run(lambda: Run.load(paths.ADAPTER))
    assert capsys.readouterr().err == "error: models/adapter/run.json is missing; make it with: dvc repro\n"


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_problem_is_that_of_the_data(name):
    assert run(data={"problem": name}).problem is PROBLEMS[name]


def test_a_single_text_has_one_column_and_a_pair_two():
    data = {"text": "review", "text_pair": None}
    assert run(data=data).columns == {"text": "review"}
    assert run(data=data | {"text_pair": "answer"}).columns == {"text": "review", "text_pair": "answer"}


@pytest.mark.parametrize(("truncation", "stride"), [("head", None), ("tail", None), ("windows", 7)])
def test_windows_alone_have_a_stride(truncation, stride):
    assert run(encode={"truncation": truncation, "stride": 7}).window_stride == stride


def test_what_was_fitted_after_the_training_is_read_where_there_is_some():
    assert (run().thresholds, run().temperature) == ([], 1.0)
    fitted = run({"thresholds": {"praise": 0.25, "blame": 0.5}, "temperature": 2.0})
    assert (fitted.thresholds, fitted.temperature) == ([0.25, 0.5], 2.0)


def test_seed_method_and_label_words_are_those_of_the_run():
    words = {"negative": " bad", "positive": " good"}
    made = run({"seed": 7}, encode={"label_words": words}, peft={"method": "ia3"})
    assert (made.seed, made.method, made.label_words) == (7, "ia3", words)
    assert replace(made, params=tiny_params()).label_words is None


@pytest.mark.parametrize("module", ["run", "card"])
def test_the_report_loads_no_library_that_takes_seconds(module):
    heavy = "{'torch', 'transformers', 'peft', 'datasets', 'scipy', 'sklearn'}"
    code = f"import sys, stages.adapters.{module}; print(sorted({heavy} & set(sys.modules)))"
    if module == "card":
        code = code.replace("; print", "; from huggingface_hub import ModelCardData; print")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
