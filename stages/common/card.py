"""The model card that lies beside the adapter, with the hub's front matter."""

from huggingface_hub import EvalResult, ModelCardData

from stages.common.markdown import paragraphs, table

REPORTED = {
    "accuracy": "accuracy",
    "f1_macro": "macro-F1",
    "mcc": "MCC",
    "log_loss": "log loss",
    "calibration_error": "expected calibration error",
}

USE = """\
```python
import json

import torch
from {library} import {kind}
from transformers import AutoTokenizer, pipeline

folder = "models/adapter"
labels = json.load(open(folder + "/labels.json"))
labels["id2label"] = {{int(index): name for index, name in labels["id2label"].items()}}
model = {kind}.from_pretrained(folder, dtype=torch.float32, **labels)
classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(classify({example}, truncation=True))
```"""

USE_MERGED = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", "models/merged")
print(classify({example}, truncation=True))
```"""

TEMPLATE = "The tokenizer puts every text into the prompt template itself; give it the raw text."

ONE_BY_ONE = "Classify one text at a time: behind virtual tokens, transformers takes the padding of a batch for text."


def model_card(
    run: dict,
    class_names: list[str],
    *,
    results: str = "",
    scores: dict[str, float] | None = None,
    merged: bool = False,
) -> str:
    """The card as Markdown.

    Args:
        run: what run.json holds.
        class_names: in the order of the classes.
        results: what is said about the test rows, as Markdown.
        scores: on the test rows, by metric.
        merged: it describes the merged model instead of the adapter.
    """
    params, base = run["params"], run["base_model"]
    data, lora, method = params["data"], params["lora"], params["peft"]["method"]
    library = "transformers" if merged or method == "full" else "peft"
    kind = {"peft": "AutoPeftModelForSequenceClassification", "transformers": "AutoModelForSequenceClassification"}
    made = {
        "lora": f"A LoRA adapter (rank {lora['r']}, top layers: {lora['top_layers']}) on",
        "full": "A copy, tuned as a whole, of",
    }
    example = '{"text": "…", "text_pair": "…"}' if data["text_pair"] else '"A warm, funny and wise film."'
    name = f"Text classifier: {', '.join(class_names)}"
    front = ModelCardData(
        base_model=hub_name(base["source"]),
        datasets=hub_name(data["source"]),
        library_name=library,
        pipeline_tag="text-classification",
        tags=[method, "text-classification"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type=hub_name(data["source"]) or data["source"],
                dataset_name=data["source"],
                dataset_split="test",
                metric_type=metric,
                metric_name=REPORTED[metric],
                metric_value=value,
            )
            for metric, value in (scores or {}).items()
        ],
    )
    validation = run["metrics"]["validation"]
    return (
        paragraphs(
            f"---\n{front.to_yaml()}\n---",
            f"# {name}",
            f"{made.get(method, f'A PEFT adapter ({method}) on')} `{base['source']}` (revision `{base['revision']}`, "
            f"licence {base['license']}), trained on `{data['source']}`. Validation accuracy at the kept epoch: "
            f"{validation['accuracy']:.4f}. Every parameter and version stands in `run.json`.",
            results,
            (USE_MERGED if merged else USE).format(library=library, kind=kind[library], example=example),
            TEMPLATE,
            ONE_BY_ONE if method in ("prompt", "p_tuning") else "",
        )
        + "\n"
    )


def tested(run: dict, tuned: dict, verdict: str, *, merged: bool = False) -> str:
    """The card with the test results of metrics/evaluate.json and the report's verdict."""
    scores = {metric: tuned[metric] for metric in REPORTED}
    rows = [
        (REPORTED[metric], f"{value:.4f}", "{low:.4f} to {high:.4f}".format(**tuned["interval"][metric]))
        for metric, value in scores.items()
    ]
    results = paragraphs("## On the test rows", verdict, table(("", "tuned", "95 % interval"), rows), "## Use")
    return model_card(run, list(tuned["classes"]), results=results, scores=scores, merged=merged)


def hub_name(source: str) -> str | None:
    """ORG/NAME of a source on the hub; the front matter knows no others."""
    kind, _, name = source.partition(":")
    return name if kind == "hub" else None
