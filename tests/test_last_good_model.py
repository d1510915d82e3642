"""While a new model is made, and if that fails, the last evaluated one answers; and a command brings it back."""

import json
import shutil
from pathlib import Path

import pytest

from stages.common import paths
from stages.common.errors import PipelineError
from stages.exporting import equivalence
from stages.serving import evaluated


def remove(*names):
    def change(folder: Path):
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rewrite(name, **values):
    """Another model than the evaluated one: DVC's files are links into its cache, so it is written anew."""

    def change(folder: Path):
        content = json.loads((folder / name).read_text()) | values
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(content))

    return change


IN_FETCH = remove("models/adapter", "models/base", "metrics")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove("models/adapter", "metrics/train.json"), "models/adapter/run.json is missing"),
        (rewrite("models/adapter/run.json", max_length=9), "models/adapter/run.json is not the evaluated one"),
        (remove("models/abstention.json", "metrics/evaluate.json"), "models/abstention.json is missing"),
        (IN_FETCH, "models/adapter/run.json is missing"),
        (rewrite("models/base/source.json", source="path:other"), "models/base/source.json is not the evaluated one"),
    ],
    ids=["in training", "before evaluate", "in evaluate", "in fetch", "another base"],
)
def test_until_another_model_is_evaluated_the_last_one_is_taken(copied, monkeypatch, capsys, change, reason):
    monkeypatch.chdir(copied.folder)
    before = copied.files("models/adapter") | copied.files("models/base")
    with evaluated.model() as model:
        assert model == evaluated.Model()
        tuned = evaluated.scores(model)
    change(copied.folder)
    with evaluated.model() as model:
        after = copied.files(model.adapter) | copied.files(model.base)
        assert model.abstention.read_text() == "{}\n"
        assert json.loads((model.adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
            model.base
        )
        assert evaluated.scores(model) == tuned
    differ = {path for path in before if after[path] != before[path]}
    assert (set(after), differ) == (set(before), {"adapter_config.json"})
    assert not model.adapter.exists()
    told = capsys.readouterr().err
    assert told.startswith(f"{reason} (see dvc status): using the last evaluated model, here since 20")
    assert told.endswith(f", accuracy {tuned['accuracy']:.4g} on the test rows\n")


@pytest.mark.parametrize(
    "change",
    [
        remove("dvc.lock"),
        lambda folder: (folder / "dvc.lock").write_text("<<<<<<< HEAD\nstages:\n=======\n>>>>>>> other\n"),
        lambda folder: (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n"),
        lambda folder: (folder / ".dvc/config.local").write_text("[cache]\n    dir = elsewhere\n"),
    ],
    ids=["no lock", "a conflict", "no evaluation", "an empty cache"],
)
def test_without_an_evaluated_model_in_the_cache_the_workspaces_is_taken(copied, monkeypatch, change):
    monkeypatch.chdir(copied.folder)
    change(copied.folder)
    try:
        with evaluated.model() as model:
            assert model == evaluated.Model()
            assert "accuracy" in evaluated.scores(model)
    finally:
        (copied.folder / ".dvc/config.local").unlink(missing_ok=True)


def test_the_rivals_of_other_data_are_not_taken_for_those_of_the_model(copied, monkeypatch):
    monkeypatch.chdir(copied.folder)
    lock = (copied.folder / "dvc.lock").read_text()
    md5 = evaluated.Evaluated.load().hashes[paths.BASELINE_PREDICTIONS]
    (copied.folder / "dvc.lock").write_text(lock.replace(md5, "0" * 32, 1))  # of `baseline`, which comes first
    reason = r"baseline\.json: expected that of the last evaluated model, found another"
    with evaluated.model() as model:
        with pytest.raises(PipelineError, match=reason):
            evaluated.belonging(paths.BASELINE_METRICS, model)
        assert "accuracy" in evaluated.scores(model)


@pytest.mark.parametrize(
    "change",
    [
        rewrite("models/adapter/run.json", max_length=9),
        rewrite("metrics/evaluate.json", run="0" * 64),
        rewrite("metrics/evaluate.json", run=None),
    ],
    ids=["trained again", "another evaluation", "evaluated before scores named their run"],
)
def test_the_scores_of_another_model_are_refused_where_dvc_has_no_evaluated_one(copied, monkeypatch, change):
    monkeypatch.chdir(copied.folder)
    remove("dvc.lock")(copied.folder)
    change(copied.folder)
    told = "evaluate.json: expected the scores of the model in models/adapter, found those of another one; make them"
    with evaluated.model() as model, pytest.raises(PipelineError, match=told):
        evaluated.scores(model)
    assert told in copied.call("export", "--output", "merged", check=False).stderr
    assert not (copied.folder / "merged").exists()


def test_a_command_judges_one_state_of_dvc_lock(copied, monkeypatch):
    monkeypatch.chdir(copied.folder)
    with evaluated.model() as model:
        before = evaluated.scores(model)
        remove("dvc.lock", "metrics/evaluate.json")(copied.folder)
        assert evaluated.scores(model) == before


def test_an_export_is_tested_on_the_rows_of_the_evaluation(copied, monkeypatch):
    monkeypatch.chdir(copied.folder)
    path, train = paths.PREPARED / "test.parquet", equivalence.rows("train")
    with evaluated.model() as model:
        before = equivalence.rows("test", model)
        path.unlink()  # a link to the cache
        train.to_parquet(path)
        assert equivalence.rows("test", model).equals(before)


def test_while_a_new_base_model_is_fetched_commands_answer_and_export_as_before(copied):
    def made():
        said = copied.call("predict", "--compare", "A warm, funny and wise film.", "Dull.").stdout
        copied.call("export", "--output", "merged")
        copied.call("export", "--adapter", "--output", "published")
        return said, copied.files("merged"), copied.files("published")

    before = made()
    IN_FETCH(copied.folder)
    assert made() == before
    shutil.rmtree(copied.folder / "merged")
    shutil.rmtree(copied.folder / "published")
