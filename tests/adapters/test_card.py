"""The model card: the hub reads its front matter, and its numbers are those of the metrics files."""

import json

import pytest
from huggingface_hub import ModelCard
from peft import PeftConfig

from stages import export
from stages.adapters import card

COMMIT = "0" * 40


@pytest.fixture
def made(project):
    return json.loads((project.folder / "models/adapter/run.json").read_text())


@pytest.fixture
def tuned(project):
    return json.loads((project.folder / "metrics/evaluate.json").read_text())


def test_the_hub_finds_task_library_and_test_scores(made, tuned):
    front = ModelCard(card.tested(made, tuned, "**Tuning was worth it**")).data
    assert (front.pipeline_tag, front.library_name) == ("text-classification", "peft")
    scores = {result.metric_type: result.metric_value for result in front.eval_results}
    assert scores == {name: tuned[name] for name in card.REPORTED}
    assert {result.dataset_split for result in front.eval_results} == {"test"}
    assert front.base_model is front.datasets is None


def test_sources_on_the_hub_are_named_as_the_hub_knows_them(made, tuned):
    made["base_model"]["source"], made["params"]["data"]["source"] = "hub:org/model", "hub:org/data"
    front = ModelCard(card.tested(made, tuned, "")).data
    assert (front.base_model, front.datasets) == ("org/model", "org/data")


def test_the_committed_card_is_the_one_made_from_the_metrics(project, made, tuned):
    written = (project.folder / "metrics/card.md").read_text()
    verdict = next(line for line in written.splitlines() if "McNemar" in line)
    assert written == card.tested(made, tuned, verdict)


def test_a_published_adapter_names_its_base_model_on_the_hub(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.folder)
    export.publish(tmp_path, {"source": "hub:org/model", "revision": COMMIT})
    config = PeftConfig.from_pretrained(tmp_path)
    assert (config.base_model_name_or_path, config.revision) == ("org/model", COMMIT)
    kept = {path.name: path.read_bytes() for path in (project.folder / "models/adapter").iterdir()}
    for name in set(kept) - {"adapter_config.json"}:
        assert (tmp_path / name).read_bytes() == kept[name]
