"""The head: it starts as a linear probe, and carries what is scaled into it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS, tiny_params
from families import ENCODER_DECODERS, MODELS, adapted, described, labels_of, unlabelled
from scipy.special import expit, softmax

from stages import train
from stages.backbone import precision
from stages.classifier import inference
from stages.classifier.model import load_base
from stages.common import paths
from stages.common.errors import PipelineError
from stages.params import Params
from stages.training import head

CLASSES = ["bad", "fine", "good"]
LABELS = labels_of(CLASSES)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture
def rows():
    """Rows of unequal lengths, all but one of whose tokens are their class's."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(90) % 3)
    tokens = [np.r_[5, np.full(generator.integers(2, 9), 10 + label)] for label in labels]
    return replace(unlabelled(tokens, pad_token_id=0), labels=labels)


def fitted(base, rows, arguments=LABELS):
    """The logits of a model whose head was fitted."""
    model = load_base(base, labels=arguments, seed=1)
    head.put(model, head.fitted(model, rows, batch_size=8, precision="float32", seed=0))
    return inference.logits(model, rows, batch_size=8, progress="test")


@pytest.mark.parametrize(
    "family",
    [
        name if name in FAMILIES else pytest.param(name, marks=pytest.mark.long)
        for name in MODELS
        if name not in ENCODER_DECODERS
    ],
)
def test_a_fitted_head_tells_the_classes_apart_by_small_logits(family, saved_model, rows):
    logits = fitted(saved_model(family), rows)
    assert (logits.argmax(axis=1) == rows.labels).mean() > 0.9
    assert np.abs(logits).max() < 1.5
    np.testing.assert_array_equal(fitted(saved_model(family), rows), logits)


def right(logits, labels):
    """The mean probability of the right class."""
    return softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.fixture
def many():
    """Rows whose tokens are those of one of 15 classes."""
    tokens = [np.full(2 + row % 7, 5 + row % 15) for row in range(300)]
    return replace(unlabelled(tokens, pad_token_id=0), labels=np.arange(300) % 15)


FIFTEEN = [f"class {label}" for label in range(15)]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_of_many_classes_the_right_one_begins_with_a_fair_probability(family, saved_model, many):
    assert 0.25 < right(fitted(saved_model(family), many, labels_of(FIFTEEN)), many.labels) < 0.75


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_of_many_labels_each_begins_with_a_fair_probability(family, saved_model, many):
    has = np.eye(15, dtype=np.float32)[many.labels]
    has[:, 3] = 0
    logits = fitted(saved_model(family), replace(many, labels=has), labels_of(FIFTEEN, problem="multi_label"))
    probabilities = expit(logits)
    assert 0.25 < probabilities[has == 1].mean() < 0.75
    assert 0.01 < probabilities[has == 0].mean() < 0.25
    assert probabilities[:, 3].mean() < 0.25


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_of_many_classes_one_without_rows_is_never_the_answer(family, saved_model, many):
    many.labels[many.labels == 3] = 4
    assert 3 not in fitted(saved_model(family), many, labels_of(FIFTEEN)).argmax(axis=1)


def test_labels_that_say_nothing_begin_near_their_shares(saved_model, rows):
    shuffled = replace(rows, labels=np.random.default_rng(1).permutation(np.arange(90) % 15))
    logits = fitted(saved_model("bert"), shuffled, labels_of(FIFTEEN))
    assert -np.log(softmax(logits, axis=1)[np.arange(90), shuffled.labels]).mean() > 2


@pytest.mark.parametrize("names", [CLASSES, FIFTEEN])
def test_a_head_is_fitted_even_where_the_drawn_rows_lack_a_class(names, saved_model, rows, monkeypatch):
    monkeypatch.setattr(head, "MAX_ROWS", 20)
    (last,) = np.random.default_rng(0).permutation(90)[-1:]
    rows.labels[:] = np.where(np.arange(90) == last, 2, np.minimum(rows.labels, 1))
    answers = fitted(saved_model("bert"), rows, labels_of(names)).argmax(axis=1)
    assert set(answers) == {0, 1}


def test_a_fitted_head_tells_several_labels_by_their_signs(saved_model, rows):
    has = np.eye(3, dtype=np.float32)[rows.labels]
    has[:, 1] = 1 - has[:, 2]  # two of three rows have it
    arguments = labels_of(CLASSES, problem="multi_label")
    logits = fitted(saved_model("llama"), replace(rows, labels=has), arguments)
    assert ((logits > 0) == has).mean() > 0.9


def test_a_head_is_fitted_on_no_more_rows_than_that_takes(saved_model, rows, monkeypatch):
    read, inputs = [], head.head_inputs

    def counted(model, indices, *, rows):
        read.extend(indices)
        return inputs(model, indices, rows=rows)

    monkeypatch.setattr(head, "MAX_ROWS", 60)
    monkeypatch.setattr(head, "head_inputs", counted)
    fitted(saved_model("llama"), rows)
    assert len(read) == len(set(read)) == 60
    assert set(rows.labels[read]) == {0, 1, 2}


def test_a_class_without_rows_is_never_the_answer(saved_model, rows):
    rows.labels[rows.labels == 1] = 2
    assert 1 not in fitted(saved_model("llama"), rows).argmax(axis=1)


def test_a_head_is_fresh_where_the_base_was_saved_without_it(saved_model, tmp_path):
    model = load_base(saved_model("roberta"), labels=LABELS, seed=1)
    assert head.is_fresh(model)
    model.save_pretrained(tmp_path)
    assert not head.is_fresh(load_base(tmp_path, labels=LABELS, seed=1))


@pytest.fixture
def built(rows, monkeypatch):
    """The logits of the model that `train` starts from, by its base and `lora.head_init`."""

    def build(base, head_init):
        monkeypatch.setattr(paths, "BASE_MODEL", base)
        about = described(class_names=CLASSES, depth=0, hidden_size=0)
        params = Params.model_validate(tiny_params(lora={"head_init": head_init}))
        model, starts, _ = train.build(params, about, rows, seed=1)
        (start,) = starts.values()
        start(model)
        return inference.logits(model, rows, batch_size=8, progress="test")

    return build


def test_training_starts_from_the_head_that_was_asked_for(built, saved_model, rows):
    right = {name: built(saved_model("llama"), name).argmax(axis=1) == rows.labels for name in ("probe", "random")}
    assert right["probe"].mean() > 0.9 > 0.7 > right["random"].mean()


@pytest.mark.parametrize(("init", "names"), [("auto", ["probe"]), ("random", ["random"]), ("mean_probe", [])])
def test_numbers_start_from_the_head_that_is_asked_for(saved_model, rows, init, names):
    model = load_base(saved_model("bert"), labels=labels_of(["value"], problem="regression"), seed=1)
    numbers = replace(rows, labels=rows.labels.astype(np.float32))
    found = head.starts(model, numbers, init=init, batch_size=8, precision="float32", seed=0)
    assert list(found) == names


def test_label_words_are_refused_where_the_model_has_no_head_for_them(built, saved_model):
    with pytest.raises(PipelineError, match=r"label_words: expected classes .* found single_label and BertForMasked"):
        built(saved_model("bert"), "label_words")


def test_a_base_that_was_saved_with_its_head_keeps_it(built, saved_model, rows, tmp_path):
    model = load_base(saved_model("llama"), labels=LABELS, seed=1)
    model.save_pretrained(tmp_path)
    kept = inference.logits(model, rows, batch_size=8, progress="test")
    np.testing.assert_allclose(built(tmp_path, "probe"), kept, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_in_16_bits_numbers_far_from_0_are_still_told_apart(family, rows, saved_model, monkeypatch):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model(family))
    numbers = replace(rows, labels=(250 + 1.3 * rows.labels).astype(np.float32))
    about = described(problem="regression", class_names=["value"], depth=0, hidden_size=0)
    params = Params.model_validate(tiny_params(precision="bfloat16", lora={"head_init": "probe"}))
    model, starts, _ = train.build(params, about, numbers, seed=1)
    starts["probe"](model)
    with torch.inference_mode(), precision.autocast("bfloat16"):
        found = model.eval()(**inference.inputs(numbers, np.arange(90))).logits.float().flatten().numpy()
    assert np.abs(found - numbers.labels).mean() < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scaled_head_divides_the_logits(family, saved_model):
    params = Params.model_validate(tiny_params(lora={"r": 3}))
    base = load_base(saved_model(family), labels=LABELS, seed=1)
    model = adapted(base, params, depth=LAYERS - 1, base=saved_model(family)).eval()
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
        head.scale(model, 1.7)
        torch.testing.assert_close(model(input_ids=IDS).logits, before / 1.7, rtol=1e-5, atol=1e-6)
