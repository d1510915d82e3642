"""What `from_pretrained` is told of the labels, and labels.json."""

import pytest
from families import labels_of

from stages.classifier.labels import load_labels
from stages.common import files


@pytest.mark.parametrize(
    ("problem", "names", "kind"),
    [
        ("single_label", ["bad", "good"], None),
        ("multi_label", ["warm", "funny", "wise"], "multi_label_classification"),
        ("regression", ["value"], "regression"),
    ],
)
def test_arguments_name_the_classes_both_ways_and_survive_the_disk(problem, names, kind, tmp_path):
    arguments = labels_of(names, pad_token_id=3, problem=problem)
    assert arguments == {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "pad_token_id": 3,
        "problem_type": kind,
    }
    files.write_json(tmp_path / "labels.json", arguments)
    assert load_labels(tmp_path) == arguments
