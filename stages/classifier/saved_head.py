"""A head that the base model was saved with: its outputs are matched to the data's classes by their names.

Nothing else that a checkpoint's configuration says of an earlier task (`problem_type`, `num_labels`) decides anything.
"""

import re

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import PipelineError
from stages.common.texts import shortened
from stages.problems.problem import label_text

FORMS = (
    label_text,
    lambda name: label_text(name).casefold(),
    lambda name: re.sub(r"^LABEL_(\d+)$", r"\1", label_text(name)),
)
"""The forms in which names are compared, one after the other. Transformers calls an output without a name LABEL_1."""


def match(model: PreTrainedModel, saved: list[str]) -> bool:
    """Put the outputs of a saved head, in place, into the order of the data's classes; returns whether that can be.

    It cannot where no output has a name (LABEL_0, LABEL_1) and the classes are not called 0, 1, ...: nothing then says
    which output is which.

    Args:
        model: its configuration has the data's classes.
        saved: the name of each output in the checkpoint.

    Raises:
        PipelineError: the names are those of other classes.
    """
    wanted = list(model.config.id2label.values())
    for form in FORMS:
        found, names = [*map(form, saved)], [*map(form, wanted)]
        if len(set(found)) == len(found) and sorted(found) == sorted(names):
            order, last = [found.index(name) for name in names], last_layer(model)
            for part in last.parameters():
                part.data = part.data[order]
            return True
    if len(saved) == len(wanted) and saved == [f"LABEL_{index}" for index in range(len(saved))]:
        return False
    expected, found = (shortened(", ".join(names), 300) for names in (wanted, saved))
    raise PipelineError(
        f"model.source: expected a model without a head, or with one for the data's {len(wanted)} classes {expected}, "
        f"found one for {len(saved)}: {found}; give the data's classes the same names (data.classes), or choose the "
        "model that it was tuned from"
    )


def renew(last: nn.Linear, *, deviation: float) -> None:
    """Give the head's last layer random weights, in place, as that of a model without a head has."""
    nn.init.normal_(last.weight, std=deviation)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def last_layer(model: PeftModel | PreTrainedModel) -> nn.Linear:
    """The head's last layer, which gives the logits."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    return [
        part for part in whole.modules() if isinstance(part, nn.Linear) and part.out_features == model.config.num_labels
    ][-1]
