"""The gauntlet: how its tasks are built, that it goes on where it stopped, and what it counts."""

import contextlib
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from families import sentences

from benchmarks import gauntlet, results, standings, tasks, variants
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.params import Params


def rows(negative: int, positive: int) -> pd.DataFrame:
    """Rows of two classes, in turn as long as both last."""
    names = [name for pair in zip(range(negative), range(positive), strict=False) for name in ("negative", "positive")]
    names += ["negative"] * (negative - positive) + ["positive"] * (positive - negative)
    return pd.DataFrame({"text": [f"text {number}" for number in range(len(names))], "label": names})


@pytest.fixture
def splits() -> tasks.Tables:
    """The splits of a task of two classes."""
    return {"train": rows(400, 400), "validation": rows(60, 60), "test": rows(100, 100)}


def test_every_task_changes_source_columns_and_template_alone(tmp_path):
    for task in tasks.TASKS.values():
        kinds = ("source", "revision", "file", "format", "columns", "text", "text_pair", "label", "classes", "problem")
        assert set(task.changes) <= {f"data.{kind}" for kind in kinds} | {"encode.template"}
    for name, task in (tasks.TASKS | tasks.SHUFFLED).items():
        built = tasks.write_rows(tmp_path / name, {"train": rows(1, 1)}) if task.build else {}
        for model in tasks.MODELS.values():
            tasks.write_params(tmp_path / "params.yaml", built | task.changes | model)
            Params.load(tmp_path / "params.yaml")


def test_few_rows_have_validation_rows_in_the_default_proportion(splits):
    few = tasks.few(splits, rows=100)
    assert {split: len(table) for split, table in few.items()} == {"train": 100, "validation": 14, "test": 200}


def test_an_imbalanced_task_has_one_rare_row_for_twenty_in_every_split(splits):
    counts = {split: dict(table["label"].value_counts()) for split, table in tasks.imbalanced(splits, ratio=20).items()}
    assert counts["train"] == {"negative": 400, "positive": 20}
    assert counts["validation"] == {"negative": 60, "positive": 3}
    assert counts["test"] == {"negative": 100, "positive": 5}


def test_only_training_rows_get_wrong_labels(splits):
    before = splits["train"]["label"].copy()
    wrong = tasks.mislabelled(splits, share=0.1)
    assert (wrong["train"]["label"] != before).sum() == 80
    assert (splits["train"]["label"] == before).all()
    assert wrong["validation"] is splits["validation"]
    assert wrong["test"] is splits["test"]


def test_pairs_say_which_class_name_is_right(splits):
    pairs = tasks.paired(splits)["test"]
    assert len(pairs) == 400
    right = pairs[pairs["label"] == "yes"].set_index("text")["topic"]
    assert right.to_dict() == splits["test"].set_index("text")["label"].to_dict()


def test_shuffled_labels_have_the_same_counts_and_other_texts_for_each_seed(splits):
    one, other = (tasks.shuffled(splits, rows=500, seed=seed)["train"] for seed in (1, 2))
    labels = pd.concat(splits.values()).drop_duplicates().set_index("text")["label"]
    truth, drawn = labels[one["text"]].to_numpy(), one["label"].to_numpy()
    assert len(one) == 500
    assert set(one["text"]) != set(other["text"])
    assert sorted(drawn) == sorted(truth)
    assert 0.4 < (drawn == truth).mean() < 0.6


def test_a_built_task_draws_from_all_rows_of_another(project, own_sources, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = Params.load(project.folder / "params.yaml").data.model_dump(mode="json")
    changes = {f"data.{key}": data[key] for key in data.keys() - {"limit", "split"}}
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(changes))
    found = tasks.all_rows("tiny")
    metrics = json.loads((project.folder / "metrics/data.json").read_text())
    over_limit = sum(metrics["dropped"][f"over_limit_{split}"] for split in found)
    assert sum(map(len, found.values())) == over_limit + sum(metrics["rows"][split] for split in found)


def test_a_key_that_params_lack_is_refused(tmp_path):
    with pytest.raises(KeyError, match=r"data\.color"):
        tasks.write_params(tmp_path / "params.yaml", {"data.color": "red"})


@pytest.fixture
def tiny(tmp_path, monkeypatch, saved_model) -> gauntlet.Folders:
    """Folders in which the tiny task and the tiny model can run, stages in this process."""
    table = pd.DataFrame(sentences(120), columns=["text", "label"])
    table["label"] = table["label"].map(lambda rating: "positive" if rating > 0 else "negative")
    small = {"encode.max_length": 64, "train.epochs": 2, "evaluate.resamples": 100, "baseline.ngrams": [1]}
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(small, build=lambda: {"train": table}))
    monkeypatch.setitem(tasks.MODELS, "tiny", {"model.layers": None, "lora.top_layers": 2})

    def fetch(model: str, folder: Path, log: Path) -> None:
        for path in saved_model("bert").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        source = {"source": "path:models/raw/tiny", "revision": None, "license": "MIT"}
        (folder / "source.json").write_text(json.dumps(source))

    def stage(name: str, folder: Path, log: Path) -> float:
        with contextlib.chdir(folder):
            importlib.import_module(f"stages.{name}").main()
        return 1.0

    monkeypatch.setattr(gauntlet, "fetch_base", fetch)
    monkeypatch.setattr(gauntlet, "stage", stage)
    return gauntlet.Folders(tmp_path / "data", tmp_path / "bases", tmp_path / "results")


def test_a_task_runs_with_every_seed_and_what_has_a_result_is_not_run_again_and_kept(tiny, tmp_path, monkeypatch):
    gauntlet.run_all(tiny, [("tiny", "tiny")], seeds=(1, 2), jobs=1)
    path = gauntlet.result_file(tiny.results, "tiny", "tiny")
    result, written = json.loads(path.read_text()), path.read_bytes()
    assert {seed: found["train"]["seed"] for seed, found in result["seeds"].items()} == {"1": 1, "2": 2}
    assert all("f1_macro" in rival["interval"] for rival in result["baseline"].values())
    assert json.loads((tiny.data / "tiny/params.json").read_text())["train.epochs"] == 2

    monkeypatch.setattr(gauntlet, "stage", lambda *_: pytest.fail("ran again"))
    gauntlet.run_all(tiny, [("tiny", "tiny")], seeds=(1, 2), jobs=1)
    assert path.read_bytes() == written

    other = result | {"task": "other", "conditions": {"hardware": "", "settings": {"model.layers": 99}}}
    gauntlet.result_file(tiny.results, "other", "tiny").write_text(json.dumps(other))
    with pytest.raises(PipelineError, match=r"expected results of one params\.yaml"):
        gauntlet.report(tiny.results, seeds=(1, 2))
    gauntlet.result_file(tiny.results, "other", "tiny").unlink()

    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(results, name, tmp_path / name)
    gauntlet.report(tiny.results, seeds=(1, 2))
    assert "| tiny | tiny | accuracy: " in (tmp_path / "HERE/RESULTS.md").read_text()
    assert (tmp_path / "HERE/gauntlet.png").stat().st_size

    monkeypatch.setitem(tasks.TASKS, "other", tasks.TASKS["tiny"])
    gauntlet.result_file(tiny.results, "other", "tiny").write_text(
        json.dumps(other | {"conditions": result["conditions"]})
    )
    path.unlink()
    gauntlet.report(tiny.results, seeds=(1, 2))
    page = (tmp_path / "HERE/RESULTS.md").read_text()
    assert [f"| {task} | tiny | accuracy: " in page for task in ("tiny", "other")] == [True, True]

    gauntlet.result_file(tiny.results, "other", "tiny").write_text(json.dumps(other))
    gauntlet.report(tiny.results, seeds=(1, 2))
    page = (tmp_path / "HERE/RESULTS.md").read_text()
    anew, former = page.split("### With former settings")
    assert [part.count("| tiny | tiny | accuracy: ") for part in (anew, former)] == [0, 1]
    assert [part.count("| other | tiny | accuracy: ") for part in (anew, former)] == [1, 0]
    assert "`model.layers: 99`" in anew
    assert "`model.layers: 99`" not in former

    again = other | {"conditions": {"hardware": "", "settings": {"model.layers": 98}}}
    gauntlet.result_file(tiny.results, "other", "tiny").write_text(json.dumps(again))
    with pytest.raises(PipelineError, match=r"former_gauntlet\.json: expected its tasks to be measured anew before"):
        gauntlet.report(tiny.results, seeds=(1, 2))
    assert (tmp_path / "HERE/RESULTS.md").read_text() == page

    gauntlet.result_file(tiny.results, "other", "tiny").write_text(json.dumps(other))
    path.write_text(json.dumps(result | {"conditions": other["conditions"]}))
    gauntlet.report(tiny.results, seeds=(1, 2))
    assert "### With former settings" not in (tmp_path / "HERE/RESULTS.md").read_text()


def test_variants_encode_once_for_each_depth_and_are_not_run_again(tiny, tmp_path, monkeypatch):
    ran = []
    stage = gauntlet.stage
    monkeypatch.setattr(gauntlet, "stage", lambda name, *where: ran.append(name) or stage(name, *where))
    monkeypatch.setattr(gauntlet, "HOME", tmp_path)
    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(results, name, tmp_path / name)
    for name in ("TASK", "MODEL"):
        monkeypatch.setattr(variants, name, "tiny")
    tried = {"as it is": {}, "slower": {"train.lr": 1e-5}, "one layer": {"lora.top_layers": 1}}
    monkeypatch.setattr(variants, "VARIANTS", tried)

    variants.main()
    once = ["train", "evaluate"]
    assert ran == ["prepare", *(["encode", "baseline", *once, *once, "encode", "baseline", *once])]
    page = (tmp_path / "HERE/RESULTS.md").read_text()
    assert "| slower | `train.lr=1e-05` | " in page
    variants.main()
    assert len(ran) == 11


def test_variants_are_measured_anew_under_other_conditions_or_with_other_changes(tmp_path, monkeypatch):
    ran = []

    class Runs:
        def __init__(self, *folders: object) -> None:
            pass

        def measured(self, changes: dict) -> dict:
            ran.append(changes)
            return {"changes": changes}

    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(results, name, tmp_path)
    monkeypatch.setattr(results, "report", lambda: None)
    monkeypatch.setattr(gauntlet, "prepare", lambda *_: None)
    monkeypatch.setattr(gauntlet, "read", lambda _: {"rows": {}})
    monkeypatch.setattr(variants, "Runs", Runs)
    slow, slower = ({"slow": {"train.lr": rate}, "as it is": {}} for rate in (1e-4, 1e-5))
    for tried, hardware in ((slow, "one"), (slow, "one"), (slower, "one"), (slower, "another")):
        monkeypatch.setattr(variants, "VARIANTS", tried)
        monkeypatch.setattr(results, "conditions_here", lambda hardware=hardware: {"hardware": hardware})
        variants.main()
    assert ran == [*slow.values(), slower["slow"], *slower.values()]


def test_development_rows_are_training_rows_alone(splits):
    made = tasks.development(splits, rows=700)
    assert [*made["train"]["text"], *made["test"]["text"]] == [*splits["train"]["text"]]
    assert {split: len(table) for split, table in made.items()} == {"train": 700, "validation": 120, "test": 100}


@pytest.fixture
def ran(tmp_path, monkeypatch) -> list[tuple[str, str]]:
    """The stages that ran, each with the name of its log; they measure nothing, and the rows of tasks are there."""

    def stage(name: str, folder: Path, log: Path) -> float:
        ran.append((name, log.stem))
        for path in (paths.TRAIN_METRICS, paths.EVALUATE_METRICS):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text("{}")
        return 1.0

    ran: list[tuple[str, str]] = []
    monkeypatch.setattr(gauntlet, "stage", stage)
    monkeypatch.setattr(gauntlet, "baseline", lambda folder: {})
    monkeypatch.setitem(tasks.MODELS, "tiny", {})
    (tmp_path / "bases/tiny").mkdir(parents=True)
    for task in ("tiny", "broken", "odd"):
        monkeypatch.setitem(tasks.TASKS, task, tasks.Task())
        for name in ("data.json", "params.json"):
            files.write_text(tmp_path / "data" / task / name, "{}")
    return ran


@pytest.fixture
def folders(tmp_path) -> gauntlet.Folders:
    """The folders of the stages in `ran`."""
    return gauntlet.Folders(tmp_path / "data", tmp_path / "bases", tmp_path / "results")


def failing(failures: dict[tuple[str, str], Exception]) -> Callable[[str, Path, Path], float]:
    """A stage that fails, by its name and that of its log."""
    stage = gauntlet.stage

    def run(name: str, folder: Path, log: Path) -> float:
        if error := failures.get((name, log.stem)):
            raise error
        return stage(name, folder, log)

    return run


def test_a_failed_task_leaves_no_result_and_does_not_stop_the_others(ran, folders, monkeypatch, capsys):
    failures = {
        ("train", "broken--tiny"): PipelineError("too few rows"),
        ("evaluate", "odd--tiny"): ZeroDivisionError("by zero"),
    }
    monkeypatch.setattr(gauntlet, "stage", failing(failures))
    settings = [(task, "tiny") for task in ("broken", "odd", "tiny")]
    with pytest.raises(PipelineError, match="found none for broken with tiny, odd with tiny"):
        gauntlet.run_all(folders, settings, seeds=(1,), jobs=1)
    assert [path.name for path in folders.results.glob("*.json")] == ["tiny--tiny.json"]
    said = capsys.readouterr().out
    assert "broken, tiny: too few rows" in said and "ZeroDivisionError: by zero" in said


def test_the_seeds_before_a_failure_are_kept_and_only_those_that_are_lacking_are_trained(
    ran, folders, monkeypatch, capsys
):
    path, setting = gauntlet.result_file(folders.results, "tiny", "tiny"), [("tiny", "tiny")]
    gauntlet.run_all(folders, setting, seeds=(1,), jobs=1)
    with monkeypatch.context() as broken, pytest.raises(PipelineError, match="found none for tiny"):
        broken.setattr(gauntlet, "stage", failing({("train", "tiny--tiny"): PipelineError("no space")}))
        gauntlet.run_all(folders, setting, seeds=(1, 2), jobs=1)
    assert [*json.loads(path.read_text())["seeds"]] == ["1"]
    with pytest.raises(PipelineError, match="expected results with seeds 1, 2, found none"):
        gauntlet.report(folders.results, seeds=(1, 2))
    assert "tiny--tiny.json is left out, it lacks seeds 2" in capsys.readouterr().out

    ran.clear()
    gauntlet.run_all(folders, setting, seeds=(1, 2), jobs=1)
    assert [name for name, _ in ran] == ["train", "evaluate"]
    assert [*json.loads(path.read_text())["seeds"]] == ["1", "2"]
    assert not path.with_suffix("").exists()


def test_a_stage_before_the_training_runs_again_only_where_it_failed_or_the_params_have_changed(
    ran, folders, monkeypatch
):
    setting = [("tiny", "tiny")]
    for failed in ("baseline", "train", "train"):
        with monkeypatch.context() as broken, pytest.raises(PipelineError, match="found none for tiny"):
            broken.setattr(gauntlet, "stage", failing({(failed, "tiny--tiny"): PipelineError("no space")}))
            gauntlet.run_all(folders, setting, seeds=(1,), jobs=1)
    assert [name for name, _ in ran] == ["encode", "baseline"]

    ran.clear()
    monkeypatch.setitem(tasks.MODELS, "tiny", {"encode.max_length": 64})
    gauntlet.run_all(folders, setting, seeds=(1,), jobs=1)
    assert [name for name, _ in ran] == ["encode", "baseline", "train", "evaluate"]


def test_seeds_are_not_added_to_what_other_conditions_gave(ran, folders, capsys):
    path, setting = gauntlet.result_file(folders.results, "tiny", "tiny"), [("tiny", "tiny")]
    gauntlet.run_all(folders, setting, seeds=(1,), jobs=1)
    files.write_json(path, json.loads(path.read_text()) | {"conditions": {"hardware": "another"}})
    before = path.read_bytes()
    with pytest.raises(PipelineError, match="found none for tiny"):
        gauntlet.run_all(folders, setting, seeds=(1, 2), jobs=1)
    assert 'found one under {"hardware": "another"}; remove the file' in capsys.readouterr().out
    assert path.read_bytes() == before
    gauntlet.run_all(folders, setting, seeds=(1,), jobs=1)


def test_a_shuffled_task_is_trained_with_the_first_seed_alone():
    assert gauntlet.lacking({"seeds": {}}, "shuffled-1", (1, 2)) == [1]
    assert gauntlet.lacking({"seeds": {"1": {}}}, "shuffled-1", (1, 2)) == []
    assert gauntlet.lacking({"seeds": {"1": {}}}, "movies", (1, 2)) == [2]


def test_a_failed_preparation_leaves_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", {"empty": tasks.Task({"data.source": "path:data/raw/none"})})
    monkeypatch.setattr(gauntlet, "TASKS", tasks.TASKS)
    folders = gauntlet.Folders(tmp_path / "data", tmp_path / "bases", tmp_path / "results")
    log = folders.results / "empty.log"
    with pytest.raises(PipelineError, match=re.escape(f"prepare failed, see {log}: error: ")):
        gauntlet.prepare(folders, ["empty"], [])
    assert "data/raw/none" in log.read_text()


def scored(**scores: float) -> dict:
    """Scores as in a metrics file, each with an interval of 4 points."""
    return scores | {"interval": {key: {"low": value - 0.02, "high": value + 0.02} for key, value in scores.items()}}


def result(task: str, *, baseline: dict, tuned: list[dict], gains: list[tuple[float, float]], main: str) -> dict:
    """A result file: gains are the gain over the strongest rival and its p-value, of each seed."""
    seeds = {}
    for seed, (metrics, (gain, p_value)) in enumerate(zip(tuned, gains, strict=True)):
        over = {"gain": gain, "gain_low": gain - 0.02, "gain_high": gain + 0.02, "p_value": p_value}
        seeds[f"{seed}"] = {
            "train": {"main": main, "recipe": {"head_init": "probe"}, "best_epoch": 1},
            "evaluate": metrics | {key: {"strongest_rival": value} for key, value in over.items()},
            "seconds": {"train": 1.2, "evaluate": 1.0},
        }
    data = {"rows": {"train": 1000, "validation": 100, "test": 200}}
    return {"task": task, "model": "small", "data": data, "baseline": baseline, "seeds": seeds}


@pytest.fixture
def values() -> dict:
    """A task of classes, one of numbers and a shuffled one."""
    classes = result(
        "classes",
        baseline={
            "bag_of_words": scored(accuracy=0.70, f1_macro=0.72, log_loss=0.6),
            "linear_probe": scored(accuracy=0.80, f1_macro=0.70, log_loss=0.5),
        },
        tuned=[scored(accuracy=value, f1_macro=0.716, log_loss=0.4) for value in (0.85, 0.81, 0.77)],
        gains=[(0.05, 0.01), (0.01, 0.2), (-0.03, 0.01)],
        main="accuracy",
    )
    numbers = result(
        "numbers",
        baseline={"median": scored(mae=2.0, pearson=0.0), "linear_probe": scored(mae=1.0, pearson=0.6)},
        tuned=[scored(mae=0.9, pearson=0.59)],
        gains=[(0.1, 0.001)],
        main="mae",
    )
    return standings.summarized(
        [result("noise", baseline={}, tuned=[scored()], gains=[(0.05, 0.01)], main="accuracy"), numbers, classes],
        tasks=["classes", "numbers"],
        models=["small"],
    )


def test_gains_are_over_the_rival_that_is_best_in_each_score(values):
    one, other = values["settings"]
    assert standings.strongest(one, "accuracy") == ("linear_probe", pytest.approx(80))
    assert standings.gain(one, "accuracy") == pytest.approx(1)
    assert standings.gain(one, "f1_macro") == pytest.approx(-0.4)
    assert standings.strongest(other, "mae") == ("linear_probe", pytest.approx(50))
    assert standings.gain(other, "mae") == pytest.approx(5)
    assert standings.gain_interval(other) == (pytest.approx(4), pytest.approx(6))


def test_gains_and_losses_count_as_significant_and_only_scores_below_the_interval_as_below_the_start(values):
    one, other = values["settings"]
    assert [standings.significant(one), standings.significant(other)] == [1, 1]
    assert [standings.significant(one, -1), standings.significant(other, -1)] == [1, 0]
    assert [standings.below_start(one), standings.below_start(other)] == [(1, 3), (0, 1)]
    one["seeds"]["0"]["start"] = "mean_probe"
    assert standings.below_start(one)[1] == 2


def test_the_conclusions_count_settings(values):
    page = standings.gauntlet(values)
    assert "minus 0.5 points: 2 of 2 pairs of task and model by the main score, 1 of 2 by macro-F1" in page
    assert "mean gain over the strongest rival: +3.0 points of the main score, -0.7 of macro-F1" in page
    assert "with most of its seeds: 1 of 2 pairs; significantly worse than the strongest: 0 of 2" in page
    assert "more than the start's interval: 1 of 4 trainings that start as one of the rivals does" in page
    assert "a gain is claimed in 1 of 1 sets of rows" in page
    assert "| classes | small | accuracy: linear_probe | 1,000 | 80.0 | 81.0 | +1.0 | -0.4 | 1 of 3 | 1 of 3 |" in page
    assert "| numbers | small | tuned | 0.900 (0.880 to 0.920) | 59.0 (57.0 to 61.0) |" in page
    values["settings"][0]["seeds"]["1"]["gain"] = [-0.02, -0.04, -0.001]
    values["settings"][0]["seeds"]["1"]["p_value"] = 0.04
    assert "significantly worse than the strongest: 1 of 2" in standings.gauntlet(values)


def test_the_picture_has_a_row_for_each_task(values):
    (axes,) = standings.picture(values).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["classes", "numbers"]
    assert [text.get_text() for text in axes.texts] == ["81.0 %", "55.0 %"]
