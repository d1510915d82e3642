"""labels.json: the arguments with which `from_pretrained` makes the head, here and wherever the model is loaded."""

from pathlib import Path

from stages.backbone.base import load_config
from stages.common import files
from stages.problems.problem import Problem

NAMES = ("num_labels", "id2label", "label2id", "pad_token_id", "problem_type")
"""The arguments."""


def label_arguments(problem: Problem, class_names: list[str], pad_token_id: int) -> dict:
    """The keyword arguments with which `from_pretrained` makes a head for these classes, whatever the base's
    configuration says of the task that it was tuned for before."""
    return {
        "num_labels": len(class_names),
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: index for index, name in enumerate(class_names)},
        "pad_token_id": pad_token_id,
        "problem_type": problem.transformers_type,
    }


def load_labels(folder: Path) -> dict:
    """The arguments saved as labels.json, with integers again as keys of `id2label`, which JSON turned into text.

    A whole model without that file has them in its configuration.
    """
    path = folder / "labels.json"
    if not path.exists() and (folder / "config.json").exists():
        config = load_config(folder)
        return {name: getattr(config, name) for name in NAMES}
    labels = files.read_json(path)
    with files.reading(path):
        return labels | {"id2label": {int(index): name for index, name in labels["id2label"].items()}}
