"""The model card with the test rows' results: the hub reads its front matter, and its numbers are the metrics'."""

import json

import pytest
from huggingface_hub import ModelCard
from reporting import outputs

from stages.adapters.run import Run
from stages.common import paths
from stages.reporting import tested_card

VERDICT = "**Tuning was worth it**"


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("single_label", {"accuracy": "accuracy", "f1_macro": "macro-F1", "mcc": "MCC", "log_loss": "log loss"}),
        (
            "multi_label",
            {
                "f1_samples": "row F1",
                "accuracy": "accuracy",
                "f1_micro": "micro-F1",
                "f1_macro": "macro-F1",
                "hamming_loss": "Hamming loss",
                "log_loss": "log loss",
            },
        ),
        (
            "regression",
            {
                "mae": "MAE",
                "rmse": "RMSE",
                "r2": "R²",
                "pearson": "Pearson correlation",
                "spearman": "Spearman correlation",
            },
        ),
    ],
)
def test_the_hub_finds_the_test_scores_and_people_their_intervals(problem, names):
    tuned = outputs.tuned(problem)
    card = tested_card.tested_card(outputs.run(problem), tuned, VERDICT)
    results = ModelCard(card).data.eval_results
    found = {result.metric_type: (result.metric_name, result.metric_value) for result in results}
    assert found == {key: (name, tuned[key]) for key, name in names.items()}
    assert {result.dataset_split for result in results} == {"test"}
    lines = [
        "| {} | {:.4f} | {low:.4f} to {high:.4f} |".format(name, tuned[key], **tuned["interval"][key])
        for key, name in names.items()
    ]
    assert f"## On the test rows\n\n{VERDICT}\n\n|  | tuned | 95 % interval |\n|---|---:|---:|\n" in card
    assert "\n".join(lines) + "\n\n## Use\n\n" in card


def test_with_several_seeds_the_scores_are_named_as_those_of_the_kept_one():
    card = tested_card.tested_card(outputs.run("single_label"), outputs.tuned_with_seeds("single_label"), VERDICT)
    assert f"{VERDICT}\n\n|  | tuned, seed 42 | 95 % interval |\n" in card


def test_a_merged_models_card_has_the_same_results():
    run, tuned = outputs.run("single_label"), outputs.tuned("single_label")
    card = tested_card.tested_card(run, tuned, VERDICT, folder=paths.MERGED)
    assert 'pipeline("text-classification", "models/merged")' in card
    assert "| accuracy | 0.8700 |" in card


def test_the_committed_card_is_the_one_made_from_the_metrics(project):
    written = (project.folder / "metrics/card.md").read_text()
    tuned = json.loads((project.folder / "metrics/evaluate.json").read_text())
    verdict = next(line for line in written.splitlines() if "McNemar" in line)
    assert written == tested_card.tested_card(Run.load(project.folder / "models/adapter"), tuned, verdict)
    assert "| expected calibration error | " in written
