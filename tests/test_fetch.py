"""fetch: from a hub or a folder to models/base, which needs nothing of either; what cannot be used is refused whole."""

import json
import os
import shutil

import pytest
import torch
from conftest import copy_project, tiny_params
from peft import LoraConfig
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from stages import fetch
from stages.common.errors import PipelineError

RAW = {"source": "path:models/raw/tiny"}


@pytest.fixture
def raw(tmp_path, monkeypatch, saved_model):
    """A tiny GPT-2 of the user's own, in a folder that is a project."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved_model("gpt2"), tmp_path / "models/raw/tiny")
    write_params(tmp_path, RAW)
    return tmp_path / "models/raw/tiny"


def write_params(folder, model):
    YAML().dump(tiny_params(model=model), folder / "params.yaml")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder):
    """The line in which fetch ends; nothing is left of it."""
    with pytest.raises(PipelineError) as caught:
        fetch.main()
    assert "\n" not in str(caught.value)
    assert [path.name for path in (folder / "models").iterdir()] == ["raw"]
    return str(caught.value)


def test_the_same_model_arrives_from_a_hub_and_from_a_folder(tmp_path, hub, saved_model):
    model = saved_model("gpt2")
    card = {"README.md": b"---\nlicense: mit\n---\n", "pytorch_model.bin": b"pickle"}
    commit = hub.add("models/org/tiny", {path.name: path.read_bytes() for path in model.iterdir()} | card)
    project = copy_project(tmp_path / "project")
    project.write_params(tiny_params(model={"source": "hub:org/tiny", "revision": commit, "file": None}))
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    assert "models/base: hub:org/tiny, 0 MB, licence mit" in project.stage("fetch", env=os.environ | environment).stderr
    assert (tmp_path / "home/hub/models--org--tiny").is_dir()
    from_hub = project.files("models/base")
    source = json.loads((project.folder / "models/base/source.json").read_text())
    from_hub.pop("source.json")
    assert source == {
        "source": "hub:org/tiny",
        "revision": commit,
        "file": None,
        "license": "mit",
        "sha256": from_hub,
    }
    assert set(from_hub) == {path.name for path in model.iterdir()}

    shutil.copytree(model, project.folder / "models/raw/tiny")
    project.write_params(tiny_params(model=RAW))
    assert "models/base: path:models/raw/tiny, 0 MB, licence not stated" in project.call("fetch").stderr
    from_path = project.files("models/base")
    from_path.pop("source.json")
    assert from_path == from_hub
    base = project.folder / "models/base"
    assert AutoModelForCausalLM.from_pretrained(base).config.model_type == "gpt2"
    assert AutoTokenizer.from_pretrained(base)("positive").input_ids


def test_a_changed_file_of_the_users_own_reruns_fetch(raw, tmp_path):
    project = copy_project(tmp_path / "project")
    shutil.move(raw, project.folder / "models/raw/tiny")
    project.write_params(tiny_params(model=RAW))
    assert not project.run("git", "check-ignore", "models/raw/tiny/model.safetensors", check=False).stdout
    project.dvc("repro", "fetch")
    assert "fetch" not in project.dvc("status", "fetch").stdout
    change(project.folder / "models/raw/tiny/config.json", summary_first_dropout=0.0)
    assert "models/raw" in project.dvc("status", "fetch").stdout


def test_an_adapter_that_lies_beside_a_whole_model_stays_there(raw, tmp_path):
    LoraConfig(base_model_name_or_path="org/other", target_modules=["c_attn"]).save_pretrained(raw)
    fetch.main()
    assert not (tmp_path / "models/base/adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(tmp_path / "models/base")


def test_code_of_a_repository_is_forgotten_where_transformers_has_its_own(raw, tmp_path):
    change(raw / "config.json", auto_map={"AutoModelForCausalLM": "org/elsewhere--modeling.Model"})
    change(raw / "tokenizer_config.json", auto_map={"AutoTokenizer": ["org/elsewhere--tokenizing.Tokenizer", None]})
    (raw / "modeling.py").write_text("raise SystemExit")
    fetch.main()
    base = tmp_path / "models/base"
    assert not list(base.glob("*.py"))
    assert not [path.name for path in base.glob("*.json") if "elsewhere" in path.read_text()]
    assert AutoTokenizer.from_pretrained(base)("positive").input_ids


def test_a_model_that_needs_code_of_its_own_is_refused(raw, tmp_path):
    change(raw / "config.json", model_type="own", auto_map={"AutoConfig": "configuration.Own"})
    assert (
        "config.json: it refers to custom code (auto_map), which is never run, and transformers does not support 'own'"
        in (refused(tmp_path))
    )


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def point(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def index(path):
    shards = {"wte.weight": "model-00001-of-00002.safetensors", "wpe.weight": "model-00002-of-00002.safetensors"}
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    path.rename(path.with_name("model-00001-of-00002.safetensors"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.safetensors: expected weights in safetensors, found a truncated file or another format"),
        (point, "model.safetensors: expected weights in safetensors, found a truncated file or another format"),
        (index, "tiny: expected model-00002-of-00002.safetensors, found config.json, "),
        (lambda path: path.rename(path.with_name("pytorch_model.bin")), "pickled weights are not loaded"),
        (lambda path: path.rename(path.with_name("model-fp16.safetensors")), "tiny: expected model.safetensors, found"),
        (lambda path: path.with_name("config.json").write_text("{"), "config.json: expected JSON, found: Expecting"),
        (
            lambda path: path.with_name("config.json").write_text("[]"),
            "config.json: expected a JSON object, found list",
        ),
        (lambda path: path.with_name("config.json").unlink(), "expected a .gguf file or a folder with config.json"),
        (lambda path: shutil.rmtree(path.parent), "expected a file or folder, found none; put it there"),
    ],
    ids=["cut", "pointer", "shard", "pickle", "variant", "json", "list", "config", "folder"],
)
def test_a_model_that_is_not_whole_is_refused(raw, tmp_path, damage, message):
    damage(raw / "model.safetensors")
    assert message in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "null"),
        ({"weight_map": {}}, "{}"),
        ({"weight_map": ["wte.weight"]}, '["wte.weight"]'),
        ({"weight_map": {"wte.weight": None}}, '{"wte.weight": null}'),
    ],
)
def test_an_index_of_weights_that_names_no_files_is_refused(raw, tmp_path, content, found):
    (raw / "model.safetensors.index.json").write_text(json.dumps(content))
    assert refused(tmp_path) == (
        "model.safetensors.index.json: expected weight_map, an object with the file of each weight, found "
        f"{found}; fetch or copy it again"
    )


def without_files(tokenizer):
    for path in tokenizer.parent.glob("tokenizer*"):
        path.unlink()


def without_merges(tokenizer):
    parts = json.loads(tokenizer.read_text())["model"]
    tokenizer.with_name("vocab.json").write_text(json.dumps(parts["vocab"]))
    tokenizer.unlink()


@pytest.mark.parametrize(
    ("family", "damage", "found"),
    [
        ("gpt2", without_files, "found config.json, generation_config.json, model.safetensors; save it into"),
        ("bert", without_files, "found config.json, generation_config.json, model.safetensors; save it into"),
        ("llama", without_files, "found config.json, generation_config.json, model.safetensors, of which: Couldn't "),
        ("gpt2", without_merges, "tokenizer_config.json, vocab.json"),
        ("gpt2", lambda path: path.write_text("{"), "tokenizer_config.json, of which: "),
    ],
    ids=["gpt2", "bert", "llama", "no merges", "damaged"],
)
def test_a_model_without_a_tokenizer_of_its_own_is_refused(raw, tmp_path, saved_model, family, damage, found):
    shutil.copytree(saved_model(family), raw, dirs_exist_ok=True)
    damage(raw / "tokenizer.json")
    told = refused(tmp_path)
    assert told.startswith("path:models/raw/tiny: expected a fast tokenizer (tokenizer.json) beside the weights, found")
    assert found in told


@pytest.mark.parametrize("added", [["<user>", "<url>"], ["zyx"]])
def test_a_tokenizer_with_more_tokens_than_the_model_has_embeddings_is_refused(raw, tmp_path, added):
    tokenizer = AutoTokenizer.from_pretrained(raw)
    embeddings = len(tokenizer)
    tokenizer.add_tokens(added)
    tokenizer.save_pretrained(raw)
    expected = f"each of the tokenizer's {len(tokenizer)} tokens, found {embeddings} embeddings: {', '.join(added)} ha"
    assert expected in refused(tmp_path)


def test_a_special_token_without_an_embedding_is_refused_only_where_it_stands_around_a_text(raw, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(raw)
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    tokenizer.save_pretrained(raw)
    fetch.main()
    shutil.rmtree(tmp_path / "models/base")
    end = {"single": "$A [NEW]", "special_tokens": [("[NEW]", tokenizer.pad_token_id)]}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**end)
    tokenizer.save_pretrained(raw)
    assert "embeddings: [NEW] has none; call the model's resize_token_embeddings" in refused(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", "nan"), ("float32", "-inf"), ("bfloat16", "inf"), ("float16", "nan"), ("float8_e4m3fn", "nan")],
)
def test_a_weight_that_is_no_number_is_refused_by_its_name(raw, tmp_path, dtype, value):
    weights = load_file(raw / "model.safetensors")
    name = "transformer.h.1.mlp.c_fc.weight"
    changed = weights[name].clone()
    changed[3, 5] = float(value)
    save_file(weights | {"positions": torch.arange(4), "none": torch.empty(0)}, raw / "model.safetensors")
    fetch.check_weights(raw)
    save_file(weights | {name: changed.to(getattr(torch, dtype))}, raw / "model.safetensors")
    assert refused(tmp_path) == (
        f"model.safetensors: expected finite weights, found NaN or infinity in {name}; fetch or copy it again, or "
        "choose another model.source"
    )


def test_a_gguf_file_that_is_none_is_refused(raw, tmp_path):
    (raw / "x.gguf").write_bytes(b"not a model")
    write_params(tmp_path, RAW | {"source": "path:models/raw/tiny/x.gguf"})
    assert "x.gguf: expected a GGUF file of a language model that transformers reads, found" in refused(tmp_path)


def test_nothing_beside_a_gguf_file_is_read(raw, tmp_path, monkeypatch):
    shutil.copy(raw / "model.safetensors", raw / "x.gguf")
    LoraConfig(base_model_name_or_path="org/other", target_modules=["c_attn"]).save_pretrained(raw)
    write_params(tmp_path, RAW | {"source": "path:models/raw/tiny/x.gguf"})
    seen = []

    def read(pretrained_model_name_or_path, gguf_file):
        seen.extend(pretrained_model_name_or_path.iterdir())
        assert (pretrained_model_name_or_path / gguf_file).read_bytes() == (raw / "x.gguf").read_bytes()
        raise ValueError("enough")

    monkeypatch.setattr(AutoConfig, "from_pretrained", read)
    assert refused(tmp_path).endswith("found: enough")
    assert [path.name for path in seen] == ["x.gguf"]


def test_a_failure_leaves_the_former_model(raw, tmp_path):
    fetch.main()
    before = {path.name: path.read_bytes() for path in (tmp_path / "models/base").iterdir()}
    cut(raw / "model.safetensors")
    with pytest.raises(PipelineError):
        fetch.main()
    assert {path.name: path.read_bytes() for path in (tmp_path / "models/base").iterdir()} == before
