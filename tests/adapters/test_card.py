"""The model card: the hub reads its front matter, people how the model was made and how to use it."""

import ast
import re
from dataclasses import replace

import pytest
from conftest import tiny_params
from huggingface_hub import ModelCard
from peft import PeftConfig

from stages import export
from stages.adapters import card
from stages.adapters.run import Run
from stages.common import paths

COMMIT = "0" * 40
CLASSES = ["negative", "positive"]
SCORES = {"accuracy": ("accuracy", 0.875), "f1_macro": ("macro-F1", 0.8125)}


def made(*, base: str = "path:models/raw/tiny", metrics: dict | None = None, **sections: dict) -> Run:
    """What made a tiny adapter."""
    data = {"source": "path:data/raw/rows.csv"} | sections.pop("data", {})
    return Run(
        depth=2,
        max_length=64,
        params=tiny_params(data=data, **sections),
        base_model={"source": base, "revision": COMMIT, "license": "MIT"},
        packages={},
        metrics=metrics or {"main": "accuracy", "best_epoch": 1, "validation": {"accuracy": 0.75, "loss": 0.5}},
    )


def code(text: str) -> str:
    """The only code block of a card; it is valid Python."""
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(block)
    return block


def test_where_no_layers_were_left_unchanged_all_are_said_to_have_adapters():
    assert "(rank 8, top layers: all) on" in card.origin(replace(made(), depth=0))


def test_the_hub_finds_task_library_and_test_scores():
    front = ModelCard(card.model_card(made(), CLASSES, scores=SCORES)).data
    assert (front.pipeline_tag, front.library_name) == ("text-classification", "peft")
    assert front.tags == ["lora", "text-classification"]
    found = {result.metric_type: (result.metric_name, result.metric_value) for result in front.eval_results}
    assert found == SCORES
    assert {result.dataset_split for result in front.eval_results} == {"test"}
    assert {result.dataset_type for result in front.eval_results} == {"path:data/raw/rows.csv"}
    assert front.base_model is front.datasets is None


def test_without_test_scores_the_front_matter_has_none():
    assert not ModelCard(card.model_card(made(), CLASSES)).data.eval_results


def test_sources_on_the_hub_are_named_as_the_hub_knows_them():
    run = made(base="hub:org/model", data={"source": "hub:org/data"})
    front = ModelCard(card.model_card(run, CLASSES, scores=SCORES)).data
    assert (front.base_model, front.datasets) == ("org/model", "org/data")
    assert {result.dataset_type for result in front.eval_results} == {"org/data"}


def test_parts_have_a_blank_line_between_them_and_results_stand_before_the_use():
    parts = card.model_card(made(), CLASSES, results="## On the test rows").split("\n\n")
    assert parts[0].startswith("---\n")
    assert parts[1:4] == [
        "# Text classifier: `negative`, `positive`",
        f"A LoRA adapter (rank 8, top layers: 2) on `path:models/raw/tiny` (revision `{COMMIT}`, licence `MIT`), "
        "trained on `path:data/raw/rows.csv`. Validation accuracy at the kept epoch: 0.7500. All parameters and "
        "versions are in `run.json`.",
        "## On the test rows",
    ]
    assert parts[4].startswith("```python\n")
    assert parts[-2].startswith("The folder holds the adapter alone, and its `adapter_config.json` names ")
    assert parts[-1] == card.TEMPLATE + "\n"
    assert "" not in parts


@pytest.mark.parametrize(
    ("method", "layers", "beginning"),
    [
        ("lora", 3, "A LoRA adapter (rank 8, top layers: 2) on the lowest 3 layers of `path:"),
        ("ia3", None, "A PEFT adapter (ia3) on `path:"),
        ("full", None, "A fully fine-tuned copy of `path:"),
    ],
)
def test_the_card_says_how_the_model_was_made(method, layers, beginning):
    assert f"\n\n{beginning}" in card.model_card(made(peft={"method": method}, model={"layers": layers}), CLASSES)


@pytest.mark.parametrize(
    ("method", "folder", "library", "loaded"),
    [
        ("lora", paths.ADAPTER, "peft", "from peft import AutoPeftModelForSequenceClassification\n"),
        ("full", paths.ADAPTER, "transformers", "from transformers import AutoModelForSequenceClassification\n"),
        ("lora", paths.MERGED, "transformers", 'pipeline("text-classification", "models/merged")'),
    ],
)
def test_the_code_loads_with_the_library_that_the_front_matter_names(method, folder, library, loaded):
    text = card.model_card(made(peft={"method": method}), CLASSES, folder=folder)
    assert ModelCard(text).data.library_name == library
    assert loaded in code(text)


@pytest.mark.parametrize(
    ("folder", "base", "method", "said"),
    [
        (paths.ADAPTER, "hub:org/model", "lora", "run the code in the folder that has `models/base`"),
        (paths.PUBLISHED, "hub:org/model", "lora", "from any place that can fetch `org/model` from the hub"),
        (paths.PUBLISHED, "package:tiny==1.0", "lora", "copy `models/base` along with the adapter"),
        (paths.MERGED, "package:tiny==1.0", "lora", "it loads from any place, by its path alone"),
        (paths.PUBLISHED, "path:models/raw/tiny", "full", "it loads from any place, by its path alone"),
    ],
)
def test_the_card_says_from_where_the_folder_loads(folder, base, method, said):
    text = card.model_card(made(base=base, peft={"method": method}), CLASSES, folder=folder)
    assert said in text
    assert text.count("The folder holds") == 1
    assert str(folder) in code(text)


@pytest.mark.parametrize(
    ("repository", "lines"),
    [
        (None, "pip install onnxruntime tokenizers\npython example.py "),
        (
            "org/mine",
            "pip install onnxruntime tokenizers huggingface_hub\n"
            "hf download org/mine --local-dir model && cd model\npython example.py ",
        ),
    ],
)
def test_a_model_in_onnx_is_run_by_its_own_script_where_it_lies_or_once_it_is_downloaded(repository, lines):
    assert lines in card.model_card(made(), CLASSES, folder=paths.ONNX, repository=repository)


def test_one_text_or_a_pair_is_classified():
    assert 'classify("A warm, funny and wise film.", truncation=True)' in code(card.model_card(made(), CLASSES))
    pair = card.model_card(made(data={"text_pair": "answer"}), CLASSES)
    assert 'classify({"text": "…", "text_pair": "…"}, truncation=True)' in code(pair)


def test_several_labels_are_read_with_their_thresholds():
    metrics = {
        "main": "accuracy",
        "thresholds": {"blame": 0.25, "praise": 0.5},
        "validation": {"accuracy": 0.5, "loss": 0.5},
    }
    text = card.model_card(made(data={"problem": "multi_label"}, metrics=metrics), ["blame", "praise"])
    assert "\n# Multi-label text classifier: `blame`, `praise`\n" in text
    assert "A text has the labels whose `score` exceeds their threshold: `blame` 0.250, `praise` 0.500." in text
    assert 'classify("A warm, funny and wise film.", top_k=None, truncation=True)' in code(text)


def test_a_number_is_read_as_it_is():
    metrics = {"main": "mae", "validation": {"mae": 0.5, "loss": 0.5}}
    text = card.model_card(made(data={"problem": "regression", "label": "stars"}, metrics=metrics), [])
    assert "\n# Text regression: `stars`\n" in text
    assert "Validation MAE at the kept epoch: 0.5000." in text
    assert "\n\nThe `score` is the number itself.\n\n" in text


def test_windows_and_virtual_tokens_have_a_warning_of_their_own():
    plain = card.model_card(made(), CLASSES)
    windows = card.model_card(made(encode={"truncation": "windows", "max_length": "auto"}), CLASSES)
    virtual = card.model_card(made(peft={"method": "p_tuning"}), CLASSES)
    assert "A text of more than 64 tokens was classified in windows" in windows
    assert card.ONE_BY_ONE in virtual
    assert "windows" not in plain + virtual
    assert card.ONE_BY_ONE not in plain + windows


def test_a_published_adapter_names_its_base_model_on_the_hub(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.folder)
    export.publish(paths.ADAPTER, tmp_path, {"source": "hub:org/model", "revision": COMMIT})
    config = PeftConfig.from_pretrained(tmp_path)
    assert (config.base_model_name_or_path, config.revision) == ("org/model", COMMIT)
    kept = {path.name: path.read_bytes() for path in (project.folder / "models/adapter").iterdir()}
    for name in set(kept) - {"adapter_config.json"}:
        assert (tmp_path / name).read_bytes() == kept[name]
