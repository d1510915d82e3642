"""A base model that was saved with a classification head, and what its configuration says of an earlier task."""

import json
import shutil

import pytest
import torch
from families import labels_of
from transformers import AutoModelForSequenceClassification

from stages.backbone.base import load_config
from stages.classifier.model import check_head, load_base
from stages.classifier.saved_head import last_layer
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.training import head

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture
def saved(saved_model, tmp_path):
    """A tiny model saved with a head for the given classes; the folder, and its logits."""

    def save(names, family="bert", **config):
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
        model = AutoModelForSequenceClassification.from_pretrained(saved_model(family), pad_token_id=0, **labels)
        if last_layer(model).bias is not None:
            torch.nn.init.normal_(last_layer(model).bias)
        model.save_pretrained(tmp_path)
        change(tmp_path / "config.json", **config)
        return tmp_path, logits(model)

    return save


def change(config, **values):
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(
    ("family", "problem"), [("bert", "single_label"), ("roberta", "multi_label"), ("llama", "single_label")]
)
@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["bad", "fine", "good"], [0, 1, 2]),
        (["good", "bad", "fine"], [1, 2, 0]),
        (["POSITIVE", "bad", "neutral"], [1, 2, 0]),
        (["LABEL_2", "LABEL_0", "LABEL_1"], [1, 2, 0]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], [0, 1, 2]),
    ],
    ids=["as they are", "another order", "another case", "other numbers", "numbers"],
)
def test_the_outputs_of_a_saved_head_are_found_by_the_names_of_their_classes(saved, family, problem, names, order):
    base, expected = saved(names, family)
    wanted = [names[index].replace("LABEL_", "").lower() for index in order]
    model = load_base(base, labels=labels_of(wanted, 0, problem), seed=1)
    assert not head.is_fresh(model)
    torch.testing.assert_close(logits(model), expected[:, order], rtol=0, atol=1e-6)


def test_classes_that_differ_by_their_case_alone_keep_it(saved):
    base, expected = saved(["us", "US"])
    model = load_base(base, labels=labels_of(["US", "us"], 0), seed=1)
    torch.testing.assert_close(logits(model), expected[:, [1, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["entailment", "neutral", "contradiction"], ["bad", "fine", "good"]),
        (["bad", "fine", "good"], ["bad", "fine", "great"]),
        (["bad", "good"], ["bad", "fine", "good"]),
        (["bad", "fine", "good"], ["bad", "good"]),
        (["bad", "good", "good"], ["bad", "fine", "good"]),
        (["LABEL_0", "LABEL_1"], ["bad", "fine", "good"]),
    ],
)
def test_a_head_for_other_classes_is_refused_with_both_lists(saved, names, wanted):
    base, _ = saved(names)
    with pytest.raises(PipelineError) as error:
        load_base(base, labels=labels_of(wanted, 0), seed=1)
    with pytest.raises(PipelineError) as without_weights:
        check_head(base, PROBLEMS["single_label"], wanted)
    assert str(without_weights.value) == str(error.value)
    assert "\n" not in str(error.value)
    assert f"the data's {len(wanted)} classes {', '.join(wanted)}, found" in str(error.value)
    assert f" found one for {len(names)}: {', '.join(names)}; give" in str(error.value)


@pytest.mark.parametrize(
    ("family", "config"),
    [("bert", {}), ("llama", {"id2label": {"0": "bad"}}), ("roberta", {"id2label": None, "num_labels": 7})],
)
def test_a_head_whose_outputs_have_no_names_starts_anew(saved, family, config):
    base, before = saved(["LABEL_0", "LABEL_1"], family, **config)
    check_head(base, PROBLEMS["single_label"], ["bad", "good"])
    labels = labels_of(["bad", "good"], 0)
    one, same, other = (load_base(base, labels=labels, seed=seed) for seed in (1, 1, 2))
    assert head.is_fresh(one) and one.unnamed_head
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))
    assert not torch.allclose(logits(one), before, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "kind", "problem"),
    [
        ("bert", "multi_label_classification", "single_label"),
        ("bert", "regression", "multi_label"),
        ("bert", "single_label_classification", "regression"),
        ("llama", "regression", "single_label"),
    ],
)
def test_what_the_configuration_says_of_an_earlier_task_decides_nothing(saved_model, tmp_path, family, kind, problem):
    base = shutil.copytree(saved_model(family), tmp_path / "base")
    names = ["value"] if problem == "regression" else ["bad", "fine", "good"]
    labels = labels_of(names, 0, problem)
    change(base / "config.json", problem_type=kind, num_labels=7, id2label={"0": "a", "1": "b"}, label2id={"z": 5})
    plain, left = (load_base(folder, labels=labels, seed=1) for folder in (saved_model(family), base))
    assert head.is_fresh(left)
    assert torch.equal(logits(left), logits(plain))
    for name in ("num_labels", "id2label", "label2id", "problem_type"):
        assert getattr(left.config, name) == getattr(plain.config, name)
    given = {"single_label": torch.tensor([2, 0]), "regression": torch.rand(2), "multi_label": torch.rand(2, 3)}
    assert torch.equal(left(IDS, labels=given[problem]).loss, plain(IDS, labels=given[problem]).loss)


@pytest.mark.parametrize("values", [{"id2label": ["a", "b"]}, {"id2label": {"x": "a"}}, {"num_labels": None}])
def test_a_configuration_that_transformers_cannot_read_is_refused_in_one_line(saved_model, tmp_path, values):
    base = shutil.copytree(saved_model("bert"), tmp_path / "base")
    change(base / "config.json", **values)
    with pytest.raises(PipelineError, match=r"expected a model that transformers \S+ knows, found: ") as error:
        load_config(base)
    assert "\n" not in str(error.value)


def test_weights_of_another_size_than_the_configuration_says_are_no_question_of_the_head(saved_model, tmp_path):
    base = shutil.copytree(saved_model("bert"), tmp_path / "base")
    change(base / "config.json", vocab_size=77)
    with pytest.raises(PipelineError, match=r"expected weights of the sizes in config.json, found others for bert"):
        load_base(base, labels=labels_of(["bad", "good"], 0), seed=1)
