"""report: the comparison as a Markdown table, from the metrics files alone.

python -m stages.report
"""

import json

from stages.common import errors, paths

COLUMNS = {"accuracy": "accuracy", "f1_macro": "macro-F1", "mcc": "MCC", "log_loss": "log loss", "roc_auc": "ROC AUC"}


def main() -> None:
    data, baseline, tuned = (
        json.loads(path.read_text()) for path in (paths.DATA_METRICS, paths.BASELINE_METRICS, paths.EVALUATE_METRICS)
    )
    print(table(baseline, tuned, rows=data["rows"]))


def table(baseline: dict, tuned: dict, *, rows: dict[str, int]) -> str:
    """All models on the test rows, the weakest first, and what tuning gained over the strongest rival."""
    models = dict(sorted(baseline.items(), key=lambda item: item[1]["accuracy"])) | {"**tuned (LoRA)**": tuned}
    header = [f"| {rows['train']:,} training rows, {rows['test']:,} test rows | " + " | ".join(COLUMNS.values()) + " |"]
    rule = ["|---|" + "---:|" * len(COLUMNS)]
    body = [
        f"| {name} | {scores['accuracy']:.1%} | " + " | ".join(f"{scores[key]:.3f}" for key in list(COLUMNS)[1:]) + " |"
        for name, scores in models.items()
    ]
    gain = 100 * tuned["gain"]["strongest_rival"]
    strongest = max(baseline, key=lambda name: baseline[name]["accuracy"])
    return "\n".join([*header, *rule, *body, "", f"Tuned minus the strongest rival ({strongest}): {gain:+.1f} points."])


if __name__ == "__main__":
    errors.run(main)
