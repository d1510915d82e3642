"""The model card that is saved with the adapter, with the hub's front matter."""

import json
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from stages.adapters.run import Run
from stages.common import paths
from stages.common.texts import literal

CLASSES = {"peft": "AutoPeftModelForSequenceClassification", "transformers": "AutoModelForSequenceClassification"}
"""The class that loads the model, by library."""

LOAD_AND_CLASSIFY = """\
```python
import json

import torch
{download}from {library} import {kind}
from transformers import AutoTokenizer, pipeline

folder = {folder}
labels = json.load(open(folder + "/labels.json"))
labels["id2label"] = {{int(index): name for index, name in labels["id2label"].items()}}
model = {kind}.from_pretrained(folder, dtype=torch.float32, **labels)
classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(classify({example}, {options}))
```"""

LOAD_AND_CLASSIFY_MERGED = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", {folder})
print(classify({example}, {options}))
```"""

RUN_IN_ONNX = """\
```
pip install onnxruntime tokenizers{download}
python example.py {example}
```"""

WHOLE = "The folder holds the whole model: it loads from any place, by its path alone."

WHOLE_ON_HUB = "The repository holds the whole model: its name is all that is needed to load it."

ON_HUB = "The folder holds the adapter alone: it loads from any place that can fetch {name} from the hub."

BASE_BESIDE = (
    "The folder holds the adapter alone, and its `adapter_config.json` names the base model by the path `{base}`, "
    "relative to the working directory: run the code in the folder that has `{base}`. Elsewhere, copy `{base}` along "
    "with the adapter, or take the merged model, which needs no other files (`python -m stages.export`)."
)

TEMPLATE = "The tokenizer puts every text into the prompt template itself; give it the raw text."

WINDOWS_IN_ONNX = "A text of more than {max_length} tokens is classified in windows, whose logits are averaged."

WINDOWS = (
    "A text of more than {max_length} tokens was classified in windows, whose logits are averaged; with "
    "`truncation=True` only the first window is read."
)

ONE_BY_ONE = (
    "Classify one text at a time: with virtual tokens, transformers reads the padding of a batch as part of the text."
)


def model_card(
    run: Run,
    class_names: list[str],
    *,
    results: str = "",
    scores: dict[str, tuple[str, float]] | None = None,
    folder: Path = paths.ADAPTER,
    repository: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        run: the training that made the adapter.
        class_names: in the order of the classes, or labels.
        results: the section on the test rows, as Markdown.
        scores: the name and value of each test score, by the metric's key in the metrics files.
        folder: what the card describes: models/adapter, or its export: one of `paths.EXPORTS`.
        repository: ORG/NAME on the hub, to which it goes.
    """
    in_onnx = folder == paths.ONNX
    library = "onnx" if in_onnx else "transformers" if folder == paths.MERGED or run.method == "full" else "peft"
    names = class_names or [run.params["data"]["label"]]
    in_windows = WINDOWS_IN_ONNX if in_onnx else WINDOWS
    paragraphs = [
        front_matter(run, title(run, names), library=library, scores=scores or {}),
        f"# {title(run, map(literal, names))}",
        origin(run),
        results,
        usage(run, library=library, folder=folder, repository=repository),
        place(run, library=library, folder=folder, repository=repository),
        "" if in_onnx else reading(run, class_names),
        TEMPLATE,
        in_windows.format(max_length=run.max_length) if run.window_stride is not None else "",
        ONE_BY_ONE if run.method in ("prompt", "p_tuning") else "",
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def title(run: Run, names: Iterable[str]) -> str:
    """The task of the model, and the names of its classes, its labels or the number that it predicts."""
    kind = "Multi-label text classifier" if run.problem.several_answers else "Text classifier"
    return f"{'Text regression' if run.problem.numeric else kind}: {', '.join(names)}"


def front_matter(run: Run, name: str, *, library: str, scores: dict[str, tuple[str, float]]) -> str:
    """The YAML from which the hub reads the task, library, base model, data and test scores."""
    source = run.params["data"]["source"]
    front = ModelCardData(
        base_model=hub_name(run.base_model["source"]),
        datasets=hub_name(source),
        library_name=library,
        pipeline_tag="text-classification",
        tags=[run.method, "text-classification"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type=hub_name(source) or source,
                dataset_name=source,
                dataset_split="test",
                metric_type=metric,
                metric_name=metric_name,
                metric_value=value,
            )
            for metric, (metric_name, value) in scores.items()
        ],
    )
    return f"---\n{front.to_yaml()}\n---"


def origin(run: Run) -> str:
    """Which model was tuned, how, and on what; and its score on the validation rows."""
    base, lora, layers = run.base_model, run.params["lora"], run.params["model"]["layers"]
    match run.method:
        case "lora":
            top = lora["top_layers"] if run.depth else "all"  # some models cannot be split
            made = f"A LoRA adapter (rank {lora['r']}, top layers: {top}) on"
        case "full":
            made = "A fully fine-tuned copy of"
        case method:
            made = f"A PEFT adapter ({method}) on"
    kept = f"the lowest {layers} layers of " if layers else ""
    score = run.metrics["validation"][run.main.key]
    return (
        f"{made} {kept}{literal(base['source'])} (revision {literal(str(base['revision']))}, licence "
        f"{literal(base['license'])}), trained on {literal(run.params['data']['source'])}. "
        f"Validation {run.main.name} at the kept epoch: {score:.4f}. All parameters and versions are in `run.json`."
    )


def usage(run: Run, *, library: str, folder: Path, repository: str | None) -> str:
    """The code that loads the model and classifies a text, or a pair of texts."""
    if folder == paths.ONNX:
        text = "$'…\\t…'" if "text_pair" in run.columns else '"A warm, funny and wise film."'
        download = f" huggingface_hub\nhf download {repository} --local-dir model && cd model" if repository else ""
        return RUN_IN_ONNX.format(example=text, download=download)
    pair = {"text": "…", "text_pair": "…"}
    example = pair if "text_pair" in run.columns else "A warm, funny and wise film."
    name = f'"{repository or folder}"'
    code = {"options": "top_k=None, truncation=True" if run.problem.several_answers else "truncation=True"}
    code["example"] = json.dumps(example, ensure_ascii=False)
    if folder == paths.MERGED:
        return LOAD_AND_CLASSIFY_MERGED.format(folder=name, **code)
    download = "from huggingface_hub import snapshot_download\n" if repository else ""
    code |= {"library": library, "kind": CLASSES[library], "download": download}
    return LOAD_AND_CLASSIFY.format(folder=f"snapshot_download({name})" if repository else name, **code)


def place(run: Run, *, library: str, folder: Path, repository: str | None) -> str:
    """From where the folder loads, and what has to be beside it."""
    if library != "peft":
        return WHOLE_ON_HUB if repository else WHOLE
    name = hub_name(run.base_model["source"])
    if name and folder == paths.PUBLISHED:
        return ON_HUB.format(name=literal(name))
    return BASE_BESIDE.format(base=paths.BASE_MODEL)


def reading(run: Run, class_names: list[str]) -> str:
    """How to read what `classify` returns, where it is not the most probable class; else nothing."""
    if run.problem.numeric:
        return "The `score` is the number itself."
    if not run.thresholds:
        return ""
    listed = ", ".join(f"{literal(name)} {at:.3f}" for name, at in zip(class_names, run.thresholds, strict=True))
    return f"A text has the labels whose `score` exceeds their threshold: {listed}."


def hub_name(source: str) -> str | None:
    """ORG/NAME of a source on the hub; None for other sources, which the front matter cannot name."""
    kind, _, name = source.partition(":")
    return name if kind == "hub" else None
