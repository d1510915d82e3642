"""The whole pipeline on a tiny model, through DVC: what reruns, what stays, what is equal, what is refused."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LAYERS, ROOT, WIDE, Project, build_wheel, copy_project, sentences, tiny_params, tiny_sources
from families import labels_of
from peft import AutoPeftModelForSequenceClassification
from ruamel.yaml import YAML
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModel, AutoTokenizer, pipeline

from stages import baseline, predict
from stages.backbone import prefix, store
from stages.classifier import inference
from stages.classifier.labels import load_labels
from stages.classifier.model import load_base
from stages.common import errors
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.rows import formats
from stages.scoring.kinds import SCORED
from stages.scoring.plots import COLUMNS
from stages.serving.answers import Classifier, logits

STAGES = ("fetch", "prepare", "encode", "baseline", "audit", "train", "evaluate", "report")

RIVALS = ["majority", "bag_of_words", "untrained", "zero_shot", "zero_shot_calibrated", "linear_probe"]

SCRIPT = """
import json, os, sys
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

texts, folder = json.load(sys.stdin), os.path.join(sys.argv[1], "models")
labels = json.load(open(folder + "/adapter/labels.json"))
labels["id2label"] = {int(index): name for index, name in labels["id2label"].items()}
model = AutoPeftModelForSequenceClassification.from_pretrained(folder + "/adapter", **labels)
tokenizer = AutoTokenizer.from_pretrained(folder + "/adapter")
adapter = pipeline("text-classification", model=model, tokenizer=tokenizer)
merged = pipeline("text-classification", model=folder + "/merged")
assert not [name for name in sys.modules if name.startswith("stages")]
print(json.dumps([adapter(texts), merged(texts)]))
"""


IMPORTS = """
import importlib, os, pkgutil, sys
import datasets, matplotlib, numpy, torch, transformers, warnings
from transformers import AttentionInterface, AttentionMaskInterface

def settings():
    return {
        "verbosity": transformers.logging.get_verbosity(),
        "progress bars": (transformers.utils.logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()),
        "backend": matplotlib.get_backend(auto_select=False),
        "figures": {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"},
        "attention": sorted(AttentionInterface().valid_keys()),
        "attention masks": sorted(AttentionMaskInterface().valid_keys()),
        "threads": torch.get_num_threads(),
        "random": (torch.initial_seed(), numpy.random.get_state()[1].tolist()),
        "folder": (os.getcwd(), sorted(os.listdir())),
        "arguments": sys.argv,
    }

before = settings()
import stages
names = [found.name for found in pkgutil.walk_packages(stages.__path__, "stages.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name == "ray", error  # requirements-ray.txt
    assert settings() == before, name
    assert "matplotlib.pyplot" not in sys.modules, name
print(len(names))
"""


def test_importing_a_module_changes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modules = [path for path in (ROOT / "stages").rglob("*.py") if path.name != "__init__.py"]
    packages = [path for path in (ROOT / "stages").rglob("*/__init__.py") if path.parent != ROOT / "stages"]
    assert int(done.stdout) == len(modules) + len(packages) > 50


def test_each_stage_writes_exactly_its_files(project):
    assert set(project.files("models/base")) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "source.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert set(project.files("models/adapter")) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "labels.json",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    arrays = {
        f"{split}/{name}"
        for split in ("train", "validation", "test")
        for name in ("labels.npy", "offsets.npy", "rows.npy", "states-00000.npy", "tokens.bin")
    }
    assert set(project.files("data/encoded")) == arrays | {
        "about.json",
        "prefix.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    assert set(project.files("data/features")) == {"train.parquet", "validation.parquet", "test.parquet"}
    assert set(project.files("data/predictions")) == {"baseline.parquet", "suspects.csv", "test.csv"}
    assert set(project.files("metrics")) == {
        *(f"plots/{name}.csv" for name in COLUMNS),
        "train/loss.csv",
        "train/main.csv",
        "data.json",
        "encode.json",
        "baseline.json",
        "train.json",
        "validation.json",
        "evaluate.json",
        "headline.json",
        "report.md",
        "card.md",
        "summary.png",
    }
    assert not project.run("git", "status", "--porcelain").stdout


def test_a_run_prints_a_line_at_the_start_and_one_at_the_end_of_each_stage_and_little_else(project):
    lines = project.log.splitlines()
    for stage in STAGES:
        own = [line for line in lines if line.startswith(f"{stage}: ")]
        told = sum(not re.search(r" of [\d,]+ \w+, \d\d:\d\d left", line) for line in own)  # progress takes time
        assert told == (1 if stage == "report" else 2), stage  # the report takes seconds: its verdict is its end
    assert not noise(lines)
    assert len(lines) < 70, "with the environment and the report's first part a file of `make` has less than 120"


def noise(lines: list[str]) -> list[str]:
    """Those that no stage has to say: warnings, reports and progress bars of libraries."""
    return [line for line in lines if re.search(r"Warning|LOAD REPORT|\{'|it/s|\x1b|\|", line)]


@pytest.mark.parametrize(
    "stage", [stage if stage == "train" else pytest.param(stage, marks=pytest.mark.long) for stage in STAGES]
)
def test_a_stage_in_a_process_of_its_own_prints_no_more_and_writes_the_same_bytes(stage, copied, own_sources):
    before = {folder: copied.files(folder) for folder in ("data", "models", "metrics")}
    done = copied.run("dvc", "repro", "--single-item", "--force", "--no-run-cache", stage)
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert any(line.startswith(f"{stage}: ") for line in lines)
    assert not noise(lines)
    assert {folder: copied.files(folder) for folder in before} == before


def test_the_data_metrics_count_every_row(project):
    metrics = json.loads((project.folder / "metrics/data.json").read_text())
    rows, dropped = metrics["rows"], metrics["dropped"]
    assert rows["source"] == 163 == rows["train"] + rows["validation"] + rows["test"] + sum(dropped.values())
    assert (dropped["blank"], dropped["in_no_class"], dropped["duplicate"]) == (1, 1, 1)
    for split in ("train", "validation", "test"):
        assert sum(metrics[split].values()) == rows[split]


def test_every_rival_is_scored_with_the_same_metrics_and_gains_are_differences(project):
    baseline = json.loads((project.folder / "metrics/baseline.json").read_text())
    tuned = json.loads((project.folder / "metrics/evaluate.json").read_text())
    assert tuned.pop("run") == hashlib.sha256((project.folder / "models/adapter/run.json").read_bytes()).hexdigest()
    gain, p_values = tuned.pop("gain"), tuned.pop("p_value")
    low, high, classes, uncalibrated = (
        tuned.pop(name) for name in ("gain_low", "gain_high", "classes", "uncalibrated")
    )
    assert list(baseline) == RIVALS
    assert baseline["linear_probe"].pop("regularization") in (0.1, 1.0)
    assert all(set(scores) == set(tuned) for scores in baseline.values())
    assert set(uncalibrated) == {"log_loss", "brier", "calibration_error"}
    assert uncalibrated["log_loss"] != tuned["log_loss"]
    for name, scores in baseline.items():
        assert gain[name] == pytest.approx(tuned["accuracy"] - scores["accuracy"], abs=2e-5)
        assert low[name] <= gain[name] <= high[name]
        assert 0 < p_values[name] <= 1
    assert gain["strongest_rival"] == min(gain[name] for name in baseline)
    assert set(classes) == {"negative", "positive"}
    assert set(tuned["interval"]) == set(tuned) - {"interval", "calibration_error"}
    assert tuned["accuracy"] > 0.8, "the tiny task can be learned"


def test_the_recorded_scores_are_those_of_the_recorded_predictions(project):
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    tuned = json.loads((project.folder / "metrics/evaluate.json").read_text())
    baseline = json.loads((project.folder / "metrics/baseline.json").read_text())
    assert (table["label"] == table["tuned"]).mean() == pytest.approx(tuned["accuracy"], rel=1e-4)
    for name, scores in baseline.items():
        assert (table["label"] == table[name]).mean() == pytest.approx(scores["accuracy"], rel=1e-4)
    counts = pd.read_csv(project.folder / "metrics/plots/confusion.csv")
    assert set(counts["model"]) == {"zero_shot", "linear_probe", "tuned"}
    for model, label, answer, rows in counts.itertuples(index=False):
        assert rows == ((table["label"] == label) & (table[model] == answer)).sum()
    assert counts["rows"].sum() == 3 * len(table)


def test_dvc_draws_the_defined_charts_and_no_others_and_warns_of_nothing(project):
    done = project.run("dvc", "plots", "show", "--json")
    drawn = {name for name, charts in json.loads(done.stdout)["data"].items() if charts}
    curves = ("roc", "precision_recall", "reliability", "risk_coverage", "confusion", "by_class", "length", "errors")
    assert drawn == {f"metrics/plots/{name}.csv" for name in curves} | {
        "metrics/train/loss.csv",
        "metrics/train/main.csv",
        "metrics/summary.png",
    }
    assert "errors" not in json.loads(done.stdout)
    assert not done.stderr


def test_the_rows_of_all_files_are_known_by_their_numbers_in_the_source(project):
    tested = pd.read_csv(project.folder / "data/predictions/test.csv")
    assert list(tested)[:5] == ["row", "text", "label", "tuned", "probability"]
    prepared = {
        name: pd.read_parquet(project.folder / f"data/prepared/{name}.parquet")
        for name in ("train", "validation", "test")
    }
    joined = tested.merge(prepared["test"], on="row", suffixes=("", "_prepared"), validate="one_to_one")
    assert len(joined) == len(tested) == len(prepared["test"])
    assert joined["text"].tolist() == joined["text_prepared"].tolist()
    rivals = pd.read_parquet(project.folder / "data/predictions/baseline.parquet")
    assert list(rivals) == ["row", *RIVALS]
    assert rivals["row"].tolist() == tested["row"].tolist()
    for name, split in prepared.items():
        assert split["row"].is_unique
        assert np.load(project.folder / f"data/encoded/{name}/rows.npy").tolist() == split["row"].tolist()
    assert sum(split["row"].nunique() for split in prepared.values()) == pd.concat(prepared)["row"].nunique()


def test_the_f1_of_each_class_is_drawn_for_every_model(project):
    table = pd.read_csv(project.folder / "metrics/plots/by_class.csv").pivot(
        index="class", columns="model", values="f1"
    )
    tested = pd.read_csv(project.folder / "data/predictions/test.csv")
    recorded = json.loads((project.folder / "metrics/evaluate.json").read_text())["classes"]
    assert set(table.columns) == {"bag_of_words", "zero_shot", "linear_probe", "tuned"}
    assert table.index.tolist() == list(recorded) == ["negative", "positive"]
    for name, column in table.items():
        expected = f1_score(tested["label"], tested[name], labels=table.index, average=None, zero_division=0)
        np.testing.assert_allclose(column, expected, rtol=1e-3)
    assert table["tuned"].to_dict() == pytest.approx(
        {name: scores["f1"] for name, scores in recorded.items()}, rel=1e-3
    )


def test_the_train_metrics_count_the_parameters_of_all_layers_in_use(project):
    metrics = json.loads((project.folder / "metrics/train.json").read_text())
    trained, total = metrics["trainable_parameters"], metrics["total_parameters"]
    config = json.loads((project.folder / "models/base/config.json").read_text())
    layer, norm, start_of_head = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * WIDE + 2 * 32, 32, 2 * 32
    assert trained > 0
    assert total - trained == config["vocab_size"] * 32 + (LAYERS - 1) * layer + norm + start_of_head


def test_the_model_before_tuning_is_whole_and_the_tuned_one_has_the_layers_in_use(project):
    labels = json.loads((project.folder / "models/adapter/labels.json").read_text())
    assert labels["num_hidden_layers"] == LAYERS - 1
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "models/adapter")
    untuned = load_base(
        project.folder / "models/base",
        labels=labels_of(["negative", "positive"], tokenizer.pad_token_id),
        seed=42,
        head="label_words",
    )
    assert len(prefix.blocks(untuned)) == LAYERS
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    answers = classifier(untuned, tokenizer).answers(table["text"].tolist())
    recorded = pd.read_parquet(project.folder / "data/predictions/baseline.parquet")["zero_shot"]
    np.testing.assert_allclose(answers[["negative", "positive"]], np.stack(recorded), atol=1e-5)


def test_the_linear_probe_reads_the_states_above_the_layers_in_use(project):
    about = store.About.load(project.folder / "data/encoded")
    model = AutoModel.from_pretrained(project.folder / "models/base").eval()
    features, labels = {}, {}
    for name in ("train", "validation", "test"):
        rows = store.load_rows(project.folder / "data/encoded" / name, about)
        with torch.inference_mode():
            states = [
                model(**inference.inputs(replace(rows, states=None), [row]), output_hidden_states=True)
                for row in range(len(rows))
            ]
        features[name] = np.stack([one.hidden_states[LAYERS - 1][0, -1].double().numpy() for one in states])
        labels[name] = rows.labels
        saved = pd.read_parquet(project.folder / f"data/features/{name}.parquet")
        assert list(saved) == ["row", "features"]
        assert saved["row"].tolist() == rows.source_rows.tolist()
        np.testing.assert_allclose(np.stack(saved["features"]), features[name], rtol=0, atol=1e-4)
    options = Params.load(project.folder / "params.yaml").baseline
    problem = SCORED["single_label"]
    main_score = problem.main_scores["accuracy"]
    task = baseline.Task(problem=problem, names=about.class_names, main_score=main_score, labels=labels)
    expected = baseline.best(task, baseline.linear_probes(task, features, options)).outputs
    recorded = pd.read_parquet(project.folder / "data/predictions/baseline.parquet")["linear_probe"]
    np.testing.assert_allclose(np.stack(recorded), expected["test"], atol=1e-3)


def test_elsewhere_the_merged_model_and_with_its_base_the_adapter_agree_with_evaluate(project, tmp_path):
    project.call("export")
    assert "library_name: transformers" in (project.folder / "models/merged/README.md").read_text()
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(project.folder / "models/base")
    command = (sys.executable, "script.py", str(project.folder))
    done = Project(tmp_path).run(*command, input=json.dumps(table["text"].tolist()))
    for answers in json.loads(done.stdout):
        assert [answer["label"] for answer in answers] == table["tuned"].tolist()
        np.testing.assert_allclose([answer["score"] for answer in answers], table["probability"], atol=1e-4)


class Accuracy(evaluate.Metric):
    """The accuracy by scikit-learn, without a hub and without this project's code."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"accuracy": accuracy_score(references, predictions)}


def test_hugging_faces_evaluator_measures_the_same_accuracy_on_the_exported_model(project, tmp_path):
    project.call("export", "--output", str(tmp_path / "merged"))
    data = datasets.Dataset.from_parquet(str(project.folder / "data/prepared/test.parquet"), cache_dir=str(tmp_path))
    names = data.features["label"].names
    # evaluate 0.4.6 asks of a pipeline object whether it is a TFPreTrainedModel, which transformers 5 does not have
    measured = evaluate.evaluator("text-classification").compute(
        str(tmp_path / "merged"),
        data=data,
        metric=Accuracy(keep_in_memory=True),
        label_mapping={name: index for index, name in enumerate(names)},
    )
    tuned = json.loads((project.folder / "metrics/evaluate.json").read_text())
    assert measured["accuracy"] == pytest.approx(tuned["accuracy"], rel=1e-4)
    assert 0.5 < measured["accuracy"] <= 1


def test_predict_agrees_with_evaluate_from_file_to_file(project, tmp_path):
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    table[["text"]].to_csv(tmp_path / "in.csv", index=False)
    project.call("predict", "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.jsonl"), "--compare")
    answers = pd.read_json(tmp_path / "out.jsonl", lines=True)
    assert answers["text"].tolist() == table["text"].tolist()
    assert answers["label"].tolist() == table["tuned"].tolist()
    assert answers["untouched_label"].tolist() == table["zero_shot"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)
    np.testing.assert_allclose(answers["negative"] + answers["positive"], 1, atol=1e-6)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_predict_carries_the_other_columns_through_in_their_order(project, tmp_path, ending):
    texts = [text for text, _ in sentences(4)]
    given = pd.DataFrame({"id": ["007", "008", "", "010"], "label": list("abcd"), "body": texts, "negative": ["1"] * 4})
    path = tmp_path / f"in.{ending}"
    match ending:
        case "csv" | "tsv":
            given.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
        case "jsonl":
            given.to_json(path, orient="records", lines=True)
        case "parquet":
            given.to_parquet(path)
    out = tmp_path / f"out.{ending}"
    project.call("predict", "--input", str(path), "--text", "body", "--output", str(out), "--compare")
    found = formats.read_all(out)
    answers = ["predicted_label", "probability", "predicted_negative", "positive"]
    assert list(found) == [*given, *answers, *(f"untouched_{name.removeprefix('predicted_')}" for name in answers)]
    assert found[list(given)].astype(str).to_numpy().tolist() == given.to_numpy().tolist()
    assert found["predicted_label"].tolist() == ["positive", "negative"] * 2


def test_the_only_column_of_texts_needs_no_name(tmp_path):
    table = pd.DataFrame({"id": ["1", "2", ""], "review": ["good", "7", ""], "note": ["", "", ""]}, dtype=object)
    assert predict.text_columns(table, {"text": "text"}, named=None, file=tmp_path) == {"text": "review"}
    with pytest.raises(errors.PipelineError, match="name the column with --text"):
        predict.text_columns(table.assign(note="a"), {"text": "text"}, named=None, file=tmp_path)
    with pytest.raises(errors.PipelineError, match="did you mean 'review'"):
        predict.text_columns(table, {"text": "text"}, named="reveiw", file=tmp_path)
    with pytest.raises(errors.PipelineError, match="'text_pair' of the training"):
        predict.text_columns(table, {"text": "review", "text_pair": "text_pair"}, named=None, file=tmp_path)


@pytest.mark.parametrize(
    ("text", "content", "read"),
    [
        (None, "one\ntwo, and\n", ["one", "two, and"]),
        ("body", "id,body\n1,one\n2,'two'\n", ["one", "'two'"]),
        ("body", 'id\tbody\n1\tone\n2\t"two"\n', ["one", "two"]),
        ("body", "id;body\n1;one\n", ["one"]),
    ],
)
def test_predict_reads_open_streams_to_their_end(text, content, read, monkeypatch):
    there, here = os.pipe()
    os.write(here, content.encode())
    os.close(here)
    monkeypatch.setattr(sys, "argv", ["predict", "--input", f"/dev/fd/{there}", *(["--text", text] if text else [])])
    given, roles = predict.read_texts(predict.parse_arguments(), {"text": "text"}, {})
    (chunk,) = given.chunks()
    os.close(there)
    assert chunk.table[roles["text"]].tolist() == read


def test_a_class_named_like_a_column_of_the_answers_has_a_column_of_its_own(saved_model):
    names = ["text", "label", "good"]
    model = load_base(saved_model("llama"), labels=labels_of(names, 0), seed=1)
    tokenizer = AutoTokenizer.from_pretrained(saved_model("llama"))
    tokenizer.pad_token = tokenizer.eos_token
    found = classifier(model, tokenizer).answers(["good film"])
    assert list(found) == ["label", "probability", "class text", "class label", "good"]
    assert found["label"].isin(names).all()


def test_predict_gives_no_answer_from_logits_that_are_no_numbers_and_names_the_row(saved_model):
    model = load_base(saved_model("llama"), labels=labels_of(["bad", "good"], 0), seed=1)
    tokenizer = AutoTokenizer.from_pretrained(saved_model("llama"))
    tokenizer.pad_token = tokenizer.eos_token
    (token,) = set(tokenizer("wise").input_ids[-1:])
    model.model.embed_tokens.weight.data[token] = torch.nan
    with pytest.raises(errors.PipelineError, match=r"predict: logits: .* found NaN or infinity in row 2; if precision"):
        classifier(model, tokenizer).answers(["A film, long and dull.", "wise"])
    with pytest.raises(errors.PipelineError, match="in row 9; "):
        classifier(model, tokenizer).answers(["A film, long and dull.", "wise"], rows=[4, 9])
    assert len(classifier(model, tokenizer).answers(["A film, long and dull."])) == 1


def classifier(model, tokenizer):
    """A model that answers with one of several classes."""
    names = list(model.config.id2label.values())
    return Classifier(logits=partial(logits, model, tokenizer=tokenizer), problem=PROBLEMS["single_label"], names=names)


def test_predict_answers_every_line_also_a_blank_one(project):
    texts = [text for text, _ in sentences(2)]
    header, good, blank, bad = project.call("predict", input=f"{texts[0]}\n\n{texts[1]}\n").stdout.splitlines()
    assert header == "text\tlabel\tprobability\tnegative\tpositive"
    assert good.startswith(f"{texts[0]}\tpositive\t")
    assert bad.startswith(f"{texts[1]}\tnegative\t")
    assert blank.startswith("\t")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict"], "expected texts as arguments, on standard input or in --input FILE, found none"),
        (["predict", "--input", "absent.csv"], "absent.csv: expected a file, found none"),
        (
            ["predict", "--input", "metrics/plots/confusion.csv"],
            "confusion.csv: expected the column 'text' of the training, or else one column of texts, found model, ",
        ),
        (
            ["predict", "--input", "metrics/plots/confusion.csv", "--text", "modle"],
            "confusion.csv: expected a column 'modle' (--text), found model, ",
        ),
        (["predict", "--text", "body", "text"], "--text: expected --input FILE with it, which has that column"),
        (["predict", "--batch-size", "0", "text"], "--batch-size: expected 1 or more, found 0"),
        (
            ["predict", "--output", "x.txt", "text"],
            "expected a file ending in .csv, .tsv, .jsonl, .parquet, found x.txt",
        ),
        (["export", "--output", "stages"], "--output: expected a new folder or an earlier export, found stages"),
        (["export", "--output", "models/base"], "--output: expected a new folder or an earlier export"),
        (["export", "--output", "models/seeds"], "--output: expected a new folder or an earlier export"),
        (["export", "--output", "."], "--output: expected a new folder or an earlier export, found ., where"),
        (["predict", "--output", "metrics/plots/length.csv", "text"], "found metrics/plots/length.csv, where the"),
        (["predict", "--input", "/dev/zero"], "zero: expected a file, found a device"),
        (["predict", "--input", "a.csv", "text"], "expected texts or --input, found both"),
    ],
)
def test_a_command_given_the_wrong_thing_says_what_it_expected(project, command, message):
    refused(project.call(*command, check=False), message)


def refused(done, message, *, status=None):
    assert done.returncode if status is None else done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_and_report_before_the_first_run_say_what_makes_their_input(tmp_path, project):
    empty = copy_project(tmp_path / "empty")
    (empty.folder / "params.yaml").write_text((project.folder / "params.yaml").read_text())
    refused(empty.call("predict", "text", check=False), "models/adapter/run.json is missing; make it with: dvc repro")
    refused(empty.call("report", check=False), "metrics/data.json is missing; make it with: dvc repro")


@pytest.mark.parametrize(
    ("stage", "section", "changes", "message"),
    [
        ("fetch", "model", {"revision": "0" * 64}, f"expected an archive with sha256 {'0' * 64}, found "),
        ("fetch", "model", {"file": "tiny_model/config.json"}, "expected a .gguf file or a folder with config.json"),
        ("prepare", "data", {"columns": ["id", "text", "rating"], "classes": None}, "expected a label in every row"),
        ("encode", "encode", {"max_gb": 1e-6}, "expected the stored states to fit encode.max_gb = 1e-06"),
        ("train", "lora", {"target_modules": ["query"]}, "found query; this model has self_attn.q_proj"),
        ("train", "lora", {"r": "abc"}, "lora.r: expected integer, found 'abc'"),
    ],
)
def test_a_failing_stage_says_why_and_loses_nothing(copied, stage, section, changes, message):
    params = YAML(typ="safe").load(copied.folder / "params.yaml")
    params[section] |= changes
    copied.write_params(params)
    before = {folder: copied.files(folder) for folder in ("models", "data", "metrics")}
    refused(copied.call(stage, check=False), message)
    assert {folder: copied.files(folder) for folder in before} == before


def test_a_params_error_ends_with_status_2(copied):
    (copied.folder / "params.yaml").write_text((copied.folder / "params.yaml").read_text() + "sede: 1\n")
    refused(copied.stage("report", check=False), "sede: unknown key; did you mean 'seed'?", status=2)


def test_an_encoder_without_a_language_model_head_and_classes_that_look_like_numbers_go_all_the_way(
    tmp_path, index, saved_model
):
    bert = copy_project(tmp_path / "bert")
    sources = tiny_sources(index, saved_model("bert"))
    sources["data"] |= {"classes": None, "columns": ["id", "label", "text"], "label": "label"}
    kinds = ("bad", "fine", "good")
    rows = "".join(
        f"{number}\t{number % 3}\t{kinds[number % 3]} {text}\n" for number, (text, _) in enumerate(sentences(150))
    )
    sources["data"]["revision"] = build_wheel(index, "three_classes", {"three.txt": rows.encode()})
    sources["data"] |= {"source": "package:three-classes==1.0", "file": "three.txt"}
    bert.write_params(tiny_params(**sources | {"encode": {"label_words": None, "max_length": 64}}))
    bert.commit("Describe the pipeline")
    for stage in STAGES:
        bert.call(stage)
    baseline = json.loads((bert.folder / "metrics/baseline.json").read_text())
    assert set(baseline) == {"majority", "bag_of_words", "untrained", "linear_probe"}
    assert json.loads((bert.folder / "metrics/evaluate.json").read_text())["accuracy"] > 0.5
    assert "**tuned**" in (bert.folder / "metrics/report.md").read_text()
    assert json.loads((bert.folder / "models/adapter/labels.json").read_text())["label2id"] == {"0": 0, "1": 1, "2": 2}


def test_a_model_and_a_file_of_the_users_own_need_few_changes_and_go_all_the_way(tmp_path, saved_model, monkeypatch):
    own = copy_project(tmp_path / "own")
    shutil.copytree(saved_model("gpt2"), own.folder / "models/raw/gpt2")
    answers = {2.0: "liked", -2.0: "disliked"}
    rows = pd.DataFrame([(text, answers[rating]) for text, rating in sentences(150)], columns=["review", "sentiment"])
    rows.to_csv(own.folder / "data/raw/reviews.csv", index=False)
    data = {"source": "path:data/raw/reviews.csv", "text": "review", "label": "sentiment", "format": None}
    own.write_params(tiny_params(model={"source": "path:models/raw/gpt2"}, data=data))
    own.commit("Describe the pipeline")
    for stage in STAGES:
        own.call(stage)
    monkeypatch.chdir(own.folder)
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        "models/adapter", dtype=torch.float32, **load_labels(Path("models/adapter"))
    )
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained("models/adapter"), device="cpu"
    )
    table = pd.read_csv("data/predictions/test.csv")
    found = pd.DataFrame(classify(table["text"].tolist()))
    assert found["label"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(found["score"], table["probability"], atol=1e-4)
    assert set(table["label"]) == {"liked", "disliked"}


@pytest.mark.parametrize("stage", ["prepare", "encode", "baseline", "train", "evaluate"])
def test_a_stage_leaves_nothing_behind_on_nfs(stage, copied, nfs, own_sources):
    copied.call(stage)
    hidden = [path for path in copied.folder.rglob(".*") if re.search("nfs-|unfinished", path.name)]
    assert hidden == []
