"""The classifier: base model, its head, LoRA adapter; made, loaded and run.

What is saved from here loads with plain transformers and PEFT.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from tqdm import tqdm
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from stages.common import parallel, pooled, prefix
from stages.common.base import load_config
from stages.common.device import device
from stages.common.errors import PipelineError
from stages.common.params import Lora
from stages.common.store import Rows

transformers.logging.set_verbosity_error()  # a fresh head is meant to be missing from the checkpoint
transformers.logging.disable_progress_bar()


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether the saved model is a causal language model, whose head scores words."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return causal is not None and causal.__name__ in (config.architectures or [])


def label_word_rows(base: Path, *, words: dict[str, str]) -> torch.Tensor:
    """The language-model head's rows for the words of each class, (classes, hidden); several tokens: their mean."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).get_output_embeddings().weight.detach()
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words.values()]
    return torch.stack([rows[tokens].mean(dim=0) for tokens in ids])


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


def label_arguments(class_names: list[str], pad_token_id: int) -> dict:
    """The keyword arguments with which `from_pretrained` makes a head for these classes; saved as labels.json."""
    return {
        "num_labels": len(class_names),
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: index for index, name in enumerate(class_names)},
        "pad_token_id": pad_token_id,
    }


def load_base(
    base: Path, *, labels: dict, seed: int, head: str = "random", words: dict[str, str] | None = None
) -> PreTrainedModel:
    """The base model with a classification head.

    `fresh_modules` of the returned model names the modules whose weights the base lacks.

    Args:
        labels: see `label_arguments`.
        seed: of a random head.
        head: "random", or "label_words": a causal model's starts from the language-model head's rows for the label
            words, which makes it a zero-shot classifier; any other model's is random.
        words: each class's word; None: its own name.
    """
    config = load_config(base, **labels)
    transformers.set_seed(seed)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        base, config=config, dtype=torch.float32, output_loading_info=True
    )
    model.config.use_cache = False
    model.fresh_modules = sorted({key.rpartition(".")[0] for key in loading["missing_keys"]})
    if is_causal(config):
        pooled.narrow(model)
        if head == "label_words":
            model.score.weight.data.copy_(label_word_rows(base, words=label_words(list(labels["label2id"]), words)))
    return model


def add_lora(model: PreTrainedModel, lora: Lora, *, depth: int, base: Path) -> PeftModel:
    """Put LoRA adapters on the blocks from `depth` on; with the head, they are all that is trained.

    Raises:
        PipelineError: `lora.target_modules` names nothing within a block, or PEFT refuses the combination.
    """
    available = projections(prefix.blocks(model)[depth])
    targets = available if lora.target_modules == "all-linear" else lora.target_modules
    if unknown := [name for name in targets if not any(f".{path}".endswith(f".{name}") for path in available)]:
        raise PipelineError(
            f"lora.target_modules: expected names of a layer's projections, found {', '.join(unknown)}; "
            f"this model has {', '.join(available)}"
        )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
        target_modules=targets,
        layers_to_transform=list(range(depth, model.config.num_hidden_layers)),
        modules_to_save=trained_whole(model),
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
    )
    model.name_or_path = str(base)
    return get_peft_model(model, config)


def projections(block: nn.Module) -> list[str]:
    """The names, within a block, of the linear layers that LoRA can adapt."""
    return [name for name, part in block.named_modules() if isinstance(part, nn.Linear | Conv1D)]


def trained_whole(model: PreTrainedModel) -> list[str]:
    """The names of the modules that are trained and saved whole.

    They are those on top of the base model, and what the base lacks beneath them (BERT's pooler, where the base was
    saved from a language model): left out, it would start at random again in every loading.
    """
    tops = [(name, part) for name, part in model.named_children() if name != model.base_model_prefix]
    heads = [name for name, part in tops if any(True for _ in part.parameters())]
    return heads + [name for name in model.fresh_modules if name.split(".")[0] not in heads]


def load_labels(folder: Path) -> dict:
    """The arguments that were saved as labels.json, whose keys JSON turned into text."""
    labels = json.loads((folder / "labels.json").read_text())
    return labels | {"id2label": {int(index): name for index, name in labels["id2label"].items()}}


def load_adapter(folder: Path) -> PreTrainedModel:
    """The tuned classifier: base model and saved adapter, loaded as anyone would, and merged, which runs faster."""
    config = load_config(Path(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]))
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, **load_labels(folder)
    ).merge_and_unload()
    if is_causal(config):
        pooled.narrow(model)
    return model


def logits(model: PreTrainedModel, rows: Rows, *, batch_size: int, progress: str) -> np.ndarray:
    """The model's logits for every row, (rows, classes) float32.

    Args:
        model: spliced at the depth of the stored states.
        progress: what the progress bar says.
    """
    result = np.empty((len(rows), model.config.num_labels), dtype=np.float32)

    def compute(model: PreTrainedModel, numbers: np.ndarray) -> None:
        result[numbers] = array(model(**inputs(rows, numbers)).logits)

    run(model, compute, rows, batch_size, progress)
    return result


def logits_and_features(
    model: PreTrainedModel, rows: Rows, *, batch_size: int, progress: str
) -> tuple[np.ndarray, np.ndarray]:
    """The same logits, and in the same pass the pooled final hidden states, (rows, hidden) float32.

    Pooled is the state of the last token in a causal model, which alone has seen the whole text, and the mean over the
    tokens in an encoder (Reimers & Gurevych 2019).
    """
    result = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    features = np.empty((len(rows), model.config.hidden_size), dtype=np.float32)
    causal = is_causal(model.config)

    def compute(model: PreTrainedModel, numbers: np.ndarray) -> None:
        batch = inputs(rows, numbers)
        output = model(**batch, output_hidden_states=True)
        hidden = output.hidden_states[-1]
        if causal:
            last = pooled.last_tokens(batch["input_ids"], model.config.pad_token_id)
            hidden = hidden[torch.arange(len(numbers)), last]
        else:
            mask = batch["attention_mask"].unsqueeze(-1)
            hidden = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        result[numbers], features[numbers] = array(output.logits), array(hidden)

    run(model, compute, rows, batch_size, progress)
    return result, features


def inputs(rows: Rows, numbers: np.ndarray) -> dict[str, torch.Tensor]:
    """The named rows as the model takes them, without their labels."""
    return {name: tensor.to(device()) for name, tensor in rows.batch(numbers).items() if name != "labels"}


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as float32 in NumPy."""
    return tensor.float().cpu().numpy()


def run(
    model: PreTrainedModel,
    compute: Callable[[PreTrainedModel, np.ndarray], None],
    rows: Rows,
    batch_size: int,
    progress: str,
) -> None:
    """Call `compute` on all rows, in batches of like length."""
    batches = list(rows.by_length(batch_size))
    with tqdm(total=len(rows), desc=progress, unit="row") as bar:
        for numbers, _ in zip(batches, parallel.each_batch(model, compute, batches), strict=True):
            bar.update(len(numbers))
