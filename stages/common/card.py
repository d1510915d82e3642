"""The model card that lies beside the adapter."""

from stages.common.params import Params

CARD = """\
---
base_model: models/base
library_name: peft
pipeline_tag: text-classification
tags: [lora, text-classification]
---

# Text classifier: {class_names}

A LoRA adapter (rank {r}, top layers: {top_layers}) on `{model}`, trained on `{data}`.
Validation accuracy at the kept epoch: {accuracy:.4f}. Every parameter and version stands in `run.json`.

```python
import json

import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

labels = json.load(open("models/adapter/labels.json"))
labels["id2label"] = {{int(index): name for index, name in labels["id2label"].items()}}
model = AutoPeftModelForSequenceClassification.from_pretrained("models/adapter", dtype=torch.float32, **labels)
tokenizer = AutoTokenizer.from_pretrained("models/adapter")
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
print(classify("A warm, funny and wise film.", truncation=True))
```

The tokenizer puts every text into the prompt template itself; give it the raw text.
"""


def model_card(class_names: list[str], params: Params, metrics: dict) -> str:
    """The card as Markdown with the hub's front matter; `metrics` are those of metrics/train.json."""
    return CARD.format(
        class_names=", ".join(class_names),
        r=params.lora.r,
        top_layers=params.lora.top_layers,
        model=params.model.source,
        data=params.data.source,
        accuracy=metrics["validation"]["accuracy"],
    )
