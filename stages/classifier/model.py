"""The classifier: the base model and its head; made, and run, tuned or not."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from stages.backbone import parallel
from stages.backbone.base import load_config
from stages.backbone.device import device
from stages.backbone.store import Rows
from stages.classifier import last_token as pooled
from stages.common.errors import PipelineError

transformers.logging.set_verbosity_error()  # a fresh head is meant to be missing from the checkpoint
transformers.logging.disable_progress_bar()


PROBLEM_TYPES = {"multi_label": "multi_label_classification", "regression": "regression"}
"""What transformers calls a problem, where it does not tell by itself."""


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether the model reads from left to right, so that its last token alone has seen the whole text.

    Encoders that can be run so too (BERT) have a masked language model as well.
    """
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def scores_words(model: PreTrainedModel) -> bool:
    """Whether the classifier's base was saved with a language-model head that reads the states that its `score` reads.

    Without one (encoders, or a decoder saved alone) there are no label words to start from; nor are there for a number.
    """
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), None)
    scores = hasattr(model, "score") and model.config.num_labels > 1
    return scores and causal is not None and causal.__name__ in (model.config.architectures or [])


def label_word_rows(model: PreTrainedModel, base: Path, words: dict[str, str]) -> torch.Tensor:
    """The language-model head's rows for the words of each class, (classes, hidden); several tokens: their mean.

    Args:
        model: the classifier made from `base`; many a language model's head is its token embeddings, which it has.
    """
    if model.config.tie_word_embeddings:
        head = model.get_input_embeddings()
    else:
        head = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).get_output_embeddings()
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words.values()]
    return torch.stack([head.weight.detach()[tokens].mean(dim=0) for tokens in ids])


def label_words(class_names: list[str], words: dict[str, str] | None) -> dict[str, str]:
    """The word that stands for each class, in the order of the classes; without `words`, the class's own name.

    Raises:
        PipelineError: `words` names other classes than the data.
    """
    if words is None:
        return {name: f" {name}" for name in class_names}
    if set(words) != set(class_names):
        raise PipelineError(f"encode.label_words: expected words for {class_names}, found them for {list(words)}")
    return {name: words[name] for name in class_names}


def label_word_head(model: PreTrainedModel, base: Path, words: dict[str, str] | None) -> torch.Tensor:
    """The weights with which a head scores the label words, (classes, hidden).

    A softmax reads how logits differ. A sigmoid reads each by itself, and a language model's all lie far from 0: there
    the weights are centred, so that a label's logit says how its word compares with the others.

    Args:
        model: see `label_word_rows`.
        words: each class's word; None: its own name.
    """
    rows = label_word_rows(model, base, label_words(list(model.config.label2id), words))
    return rows - rows.mean(dim=0) if model.config.problem_type == PROBLEM_TYPES["multi_label"] else rows


def label_arguments(class_names: list[str], pad_token_id: int, problem: str = "single_label") -> dict:
    """The keyword arguments with which `from_pretrained` makes a head for these classes."""
    labels = {
        "num_labels": len(class_names),
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: index for index, name in enumerate(class_names)},
        "pad_token_id": pad_token_id,
    }
    return labels | ({"problem_type": PROBLEM_TYPES[problem]} if problem in PROBLEM_TYPES else {})


def load_base(
    base: Path, *, labels: dict, seed: int, head: str = "random", words: dict[str, str] | None = None
) -> PreTrainedModel:
    """The base model with a classification head.

    `fresh_modules` of the returned model names the modules whose weights the base lacks.

    Args:
        labels: see `label_arguments`; also the changes of `stages.backbone.base.lowest`.
        seed: of a random head.
        head: with "label_words", that of a model with a language-model head starts from its rows for the label words,
            which makes it a zero-shot classifier; every other head is random.
        words: each class's word; None: its own name.

    Raises:
        PipelineError: the base was saved with a classification head of another size.
    """
    config = load_config(base, **labels)
    transformers.set_seed(seed)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        base, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if loading["mismatched_keys"]:
        raise PipelineError(
            f"{base}: expected a model without a head, or with one for the data's {config.num_labels} classes, found "
            "one for another number; choose as model.source the model that it was tuned from"
        )
    model.config.use_cache = False
    model.fresh_modules = sorted({key.rpartition(".")[0] for key in loading["missing_keys"]})
    if is_causal(config):
        pooled.narrow(model)
    if head == "label_words" and scores_words(model):
        model.score.weight.data.copy_(label_word_head(model, base, words))
    return model


def load_labels(folder: Path) -> dict:
    """The arguments that were saved as labels.json, whose keys JSON turned into text."""
    labels = json.loads((folder / "labels.json").read_text())
    return labels | {"id2label": {int(index): name for index, name in labels["id2label"].items()}}


def logits(model: PreTrainedModel, rows: Rows, *, batch_size: int, progress: str) -> np.ndarray:
    """The model's logits for every row, (rows, classes) float32.

    Args:
        model: spliced at the depth of the stored states.
        progress: what the progress bar says.
    """
    result = np.empty((len(rows), model.config.num_labels), dtype=np.float32)

    def compute(model: PreTrainedModel, numbers: np.ndarray) -> None:
        result[numbers] = array(model(**inputs(rows, numbers)).logits)

    parallel.each_batch(model, compute, rows.by_length(batch_size), progress=progress)
    return result


def logits_and_features(
    model: PreTrainedModel,
    rows: Rows,
    *,
    after: tuple[int, ...],
    batch_size: int,
    progress: str,
    precision: str = "float32",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same logits, and in the same pass pooled hidden states, (rows, hidden); OPT may project its final ones.

    Args:
        after: how many of the model's layers they are read after; after all of them comes its final norm.
    """
    result = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    features = {layers: [np.empty(0)] * len(rows) for layers in after}

    def compute(model: PreTrainedModel, numbers: np.ndarray) -> None:
        batch = inputs(rows, numbers)
        output = model(**batch, output_hidden_states=True)
        result[numbers] = array(output.logits)
        for layers, kept in features.items():
            place = layers - model.config.num_hidden_layers - 1  # from the end: a spliced model has fewer
            states = array(pooled_states(output.hidden_states[place], batch, model.config))
            for number, row in zip(numbers, states, strict=True):
                kept[number] = row

    parallel.each_batch(model, compute, rows.by_length(batch_size), progress=progress, precision=precision)
    return result, [np.stack(features[layers]) for layers in after]


def pooled_states(hidden: torch.Tensor, batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> torch.Tensor:
    """One state for each row, (rows, hidden), of its tokens', (rows, tokens, hidden).

    In a causal model it is the last token's, which alone has seen the whole text; in an encoder the mean over the
    tokens (Reimers & Gurevych 2019).
    """
    if is_causal(config):
        return hidden[torch.arange(len(hidden)), pooled.last_tokens(batch["input_ids"], config.pad_token_id)]
    mask = batch["attention_mask"].unsqueeze(-1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def inputs(rows: Rows, numbers: np.ndarray) -> dict[str, torch.Tensor]:
    """The named rows as the model takes them, without their labels."""
    return {name: tensor.to(device()) for name, tensor in rows.batch(numbers).items() if name != "labels"}


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as float32 in NumPy."""
    return tensor.float().cpu().numpy()
