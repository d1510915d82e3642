"""The script that most people would write: transformers' Trainer and PEFT's LoRA on all layers.

    python -m benchmarks.plain --train-rows 3000 --test-rows 1000 --precision float32

Dynamic padding, random batches, LoRA on the query and value projections (PEFT's default for this architecture), no
stored states. Reads models/base, data/prepared and the tokenizer of data/encoded: model, split, rows and prompt are
the pipeline's own. Prints one line of JSON: the seconds of each phase, the test accuracy, and the tokens trained on.
"""

import argparse
import json
import tempfile

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, TaskType, get_peft_model
from sklearn.metrics import accuracy_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from stages.common import paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-rows", type=int, required=True)
    parser.add_argument("--test-rows", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    print(json.dumps(run(**vars(parser.parse_args()))))


def run(*, train_rows: int, test_rows: int, precision: str) -> dict[str, float]:
    """What `main` prints."""
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(paths.ENCODED / "tokenizer")
    train = tokenized(tokenizer, "train", train_rows)
    set_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(
        paths.BASE_MODEL, num_labels=train.features["labels"].num_classes, pad_token_id=tokenizer.pad_token_id
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16)),
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=1,
                learning_rate=5e-4,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=16,
                save_strategy="no",
                use_cpu=not torch.accelerator.is_available(),
                bf16=precision == "bfloat16",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=train,
            eval_dataset=tokenized(tokenizer, "test", test_rows),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda given: {"accuracy": accuracy_score(given.label_ids, given.predictions.argmax(1))},
        )
        before, training, after = trainer.evaluate(), trainer.train(), trainer.evaluate()
    return {
        "before_s": before["eval_runtime"],
        "train_s": training.metrics["train_runtime"],
        "accuracy": after["eval_accuracy"],
        "tokens": sum(map(len, train["input_ids"])),
    }


def tokenized(tokenizer: PreTrainedTokenizerBase, split: str, rows: int) -> Dataset:
    """The first rows of a prepared split, as the Trainer takes them."""
    data = Dataset.from_parquet(str(paths.PREPARED / f"{split}.parquet")).select(range(rows))
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    return data.rename_column("label", "labels").select_columns(["input_ids", "attention_mask", "labels"])


if __name__ == "__main__":
    main()
