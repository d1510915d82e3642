"""The model card that lies beside the adapter, with the hub's front matter."""

from huggingface_hub import EvalResult, ModelCardData

from stages.reporting.markdown import paragraphs, table

REPORTED = {
    "accuracy": "accuracy",
    "f1_macro": "macro-F1",
    "mcc": "MCC",
    "log_loss": "log loss",
    "calibration_error": "expected calibration error",
}

ALSO = {
    "f1_samples": "row F1",
    "f1_micro": "micro-F1",
    "hamming_loss": "Hamming loss",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
"""What is reported too, where the problem has it."""

TITLES = {"single_label": "Text classifier", "multi_label": "Text classifier of several labels"}

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
print(classify({example}, {options}))
```"""

USE_MERGED = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", "models/merged")
print(classify({example}, {options}))
```"""

OPTIONS = {"multi_label": "top_k=None, truncation=True"}
"""How `classify` is called, where `truncation=True` is not all."""

READING = {
    "multi_label": "A text has the labels whose `score` exceeds their threshold: {thresholds}.",
    "regression": "The `score` is the number itself.",
}
"""What its answer means, where it is not the most probable class."""

WINDOWS = (
    "A text of more than {max_length} tokens was classified in windows, whose logits are averaged; `truncation=True` "
    "reads the first alone."
)

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
    kept = f"the lowest {layers} layers of " if (layers := params["model"]["layers"]) else ""
    example = '{"text": "…", "text_pair": "…"}' if data["text_pair"] else '"A warm, funny and wise film."'
    problem, chosen = data["problem"], run["metrics"].get("thresholds", {})
    name = f"{TITLES[problem]}: {', '.join(class_names)}" if problem in TITLES else f"Text regression: {data['label']}"
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
                metric_name=(REPORTED | ALSO)[metric],
                metric_value=value,
            )
            for metric, value in (scores or {}).items()
        ],
    )
    selected, score = next(iter(run["metrics"]["validation"].items()))
    return (
        paragraphs(
            f"---\n{front.to_yaml()}\n---",
            f"# {name}",
            f"{made.get(method, f'A PEFT adapter ({method}) on')} {kept}`{base['source']}` "
            f"(revision `{base['revision']}`, licence {base['license']}), trained on `{data['source']}`. Validation "
            f"{(REPORTED | ALSO)[selected]} at the kept epoch: {score:.4f}. Every parameter and version stands in "
            "`run.json`.",
            results,
            (USE_MERGED if merged else USE).format(
                library=library, kind=kind[library], example=example, options=OPTIONS.get(problem, "truncation=True")
            ),
            READING.get(problem, "").format(thresholds=", ".join(f"{label} {at:.3f}" for label, at in chosen.items())),
            TEMPLATE,
            WINDOWS.format(**params["encode"]) if params["encode"]["truncation"] == "windows" else "",
            ONE_BY_ONE if method in ("prompt", "p_tuning") else "",
        )
        + "\n"
    )


def tested(run: dict, tuned: dict, verdict: str, *, merged: bool = False) -> str:
    """The card with the test results of metrics/evaluate.json and the report's verdict."""
    names = {metric: name for metric, name in (ALSO | REPORTED).items() if metric in tuned}
    scores = {metric: tuned[metric] for metric in names}
    rows = [
        (name, f"{tuned[metric]:.4f}", "{low:.4f} to {high:.4f}".format(**tuned["interval"][metric]))
        for metric, name in names.items()
    ]
    results = paragraphs("## On the test rows", verdict, table(("", "tuned", "95 % interval"), rows), "## Use")
    return model_card(run, list(tuned.get("classes", {})), results=results, scores=scores, merged=merged)


def hub_name(source: str) -> str | None:
    """ORG/NAME of a source on the hub; the front matter knows no others."""
    kind, _, name = source.partition(":")
    return name if kind == "hub" else None
