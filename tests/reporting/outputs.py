"""Made-up outputs of the stages before `report`, for each kind of problem."""

import json
from pathlib import Path

import pandas as pd
from conftest import tiny_params
from ruamel.yaml import YAML

from stages.adapters.run import Run
from stages.common import paths
from stages.problems.kinds import PROBLEMS
from stages.reporting.params import Gate
from stages.scoring.plots import COLUMNS

OPEN = Gate(max_drop=None, min_accuracy=None, min_gain=None, max_p_value=None, max_slice_drop=None)

SECTIONS = {
    "single_label": {},
    "multi_label": {"data": {"problem": "multi_label", "label": "labels", "classes": None}},
    "regression": {"data": {"problem": "regression", "label": "stars", "classes": None}},
}
"""Of params.yaml, where it differs from the tiny one."""

MAIN = {"single_label": "accuracy", "multi_label": "f1_samples", "regression": "mae"}
"""The key of the main score by default."""

BASELINE = {
    "single_label": {
        "linear_probe": {"accuracy": 0.84, "f1_macro": 0.84, "mcc": 0.68, "log_loss": 0.4, "roc_auc": 0.9},
        "zero_shot": {"accuracy": 0.75, "f1_macro": 0.74, "mcc": 0.5, "log_loss": 0.5, "roc_auc": 0.8},
        "bag_of_words": {"accuracy": 0.7, "f1_macro": 0.7, "mcc": 0.4, "log_loss": 0.6, "roc_auc": 0.75},
        "majority": {"accuracy": 0.5, "f1_macro": 0.33, "mcc": 0.0, "log_loss": 0.69, "roc_auc": 0.5},
    },
    "multi_label": {
        "linear_probe": {"f1_samples": 0.7, "accuracy": 0.4, "f1_micro": 0.68, "f1_macro": 0.6, "log_loss": 0.3}
        | {"hamming_loss": 0.2, "roc_auc": 0.8},
        "bag_of_words": {"f1_samples": 0.6, "accuracy": 0.3, "f1_micro": 0.58, "f1_macro": 0.5, "log_loss": 0.4}
        | {"hamming_loss": 0.3, "roc_auc": 0.7},
        "majority": {"f1_samples": 0.4, "accuracy": 0.2, "f1_micro": 0.4, "f1_macro": 0.3, "log_loss": 0.6}
        | {"hamming_loss": 0.4, "roc_auc": 0.5},
    },
    "regression": {
        "median": {"mae": 9.0, "rmse": 12.0, "r2": 0.0, "pearson": 0.0, "spearman": 0.0},
        "linear_probe": {"mae": 4.0, "rmse": 6.0, "r2": 0.6, "pearson": 0.7, "spearman": 0.75},
        "bag_of_words": {"mae": 3.0, "rmse": 5.0, "r2": 0.7, "pearson": 0.8, "spearman": 0.85},
    },
}
"""metrics/baseline.json, without its intervals."""

TUNED = {
    "single_label": {"accuracy": 0.87, "f1_macro": 0.86, "mcc": 0.74, "log_loss": 0.3, "roc_auc": 0.95},
    "multi_label": {"f1_samples": 0.8, "accuracy": 0.5, "f1_micro": 0.78, "f1_macro": 0.7, "log_loss": 0.2}
    | {"hamming_loss": 0.1, "roc_auc": 0.9},
    "regression": {"mae": 2.5, "rmse": 4.0, "r2": 0.8, "pearson": 0.9, "spearman": 0.95},
}
"""The tuned model's scores."""

CLASSES = {"single_label": ["1", "NA"], "multi_label": ["blame", "$praise"], "regression": []}
"""Names that look like a number, a missing value and a formula."""

ANSWERS = {
    "single_label": {
        "label": ["1", "1", "NA", "NA"],
        "tuned": ["1", "NA", "1", "NA"],
        "probability": [0.9, 0.8, 0.95, 0.99],
        "zero_shot": ["NA", "1", "1", "NA"],
        "linear_probe": ["1", "1", "1", "NA"],
    },
    "multi_label": {
        "label": ["blame", "$praise", "(none)", "blame, $praise"],
        "tuned": ["blame", "$praise", "blame", "blame"],
        "probability": [0.9, 0.8, 0.95, 0.99],
        "untrained": ["$praise", "$praise", "(none)", "(none)"],
        "linear_probe": ["blame", "(none)", "(none)", "blame"],
    },
    "regression": {
        "label": [10.0, 20.0, 30.0, 40.0],
        "tuned": [11.0, 20.0, 27.0, 41.5],
        "linear_probe": [12.0, 25.0, 29.0, 41.5],
    },
}
"""data/predictions/test.csv, without its texts."""

SUSPECTS = {
    "single_label": {
        "label": ["1", "NA", "1", "NA"],
        "likely": ["NA", "1", "NA", "1"],
        "quality": [0.0012, 0.1, 0.2, 0.3],
    },
    "multi_label": {
        "label": ["blame", "$praise", "(none)", "blame"],
        "likely": ["(none)", "blame", "blame", "$praise"],
        "quality": [0.0012, 0.1, 0.2, 0.3],
    },
    "regression": {
        "label": [12.5, 20.0, 30.0, 7.0],
        "likely": [55.123456, 45.0, 28.0, 30.0],
        "quality": [0.0012, 0.01, 0.02, 0.025],
    },
}
"""data/predictions/suspects.csv, without its rows and texts."""


def suspects(problem: str) -> pd.DataFrame:
    """data/predictions/suspects.csv, as the report reads it; rows 7 and 110 are those of `answers`."""
    given = {name: list(map(str, values)) for name, values in SUSPECTS[problem].items()}
    texts = ["a | b", "second | here", "long " * 40, "trained"]
    rows = {"row": ["910", "7", "110", "7"], "split": ["train", "test", "test", "validation"], "text": texts}
    return pd.DataFrame(rows | given)


def baseline(problem: str) -> dict[str, dict]:
    """metrics/baseline.json."""
    return {name: with_intervals(scores) for name, scores in BASELINE[problem].items()}


def tuned(problem: str, *, gain: float = 0.03, p_value: float = 0.004, **scores: float) -> dict:
    """metrics/evaluate.json, the gain over every rival being the same."""
    names = (*BASELINE[problem], "strongest_rival")
    classes = {name: {"precision": 0.75, "recall": 0.5, "f1": 0.6} for name in CLASSES[problem]}
    return {
        **with_intervals(TUNED[problem] | scores),
        **({"classes": classes} if classes else {}),
        "gain": dict.fromkeys(names, gain),
        "gain_low": dict.fromkeys(names, gain - 0.02),
        "gain_high": dict.fromkeys(names, gain + 0.02),
        "p_value": dict.fromkeys(names, p_value),
    }


def tuned_with_seeds(problem: str, *, gain: float = 0.02, p_value: float = 0.03) -> dict:
    """metrics/evaluate.json of a run with the seeds 42, whose adapter was kept, and 1."""
    values, key = tuned(problem), next(iter(PROBLEMS[problem].main_scores))
    over = {"mean": values[key], "std": 0.01, "gain_std": 0.005, "gain": gain, "gain_low": gain - 0.015}
    by_seed = {"42": {key: values[key], "gain": 0.03}, "1": {key: values[key] - 0.02, "gain": 0.01}}
    return values | {"seeds": over | {"gain_high": gain + 0.015, "p_value": p_value, "by_seed": by_seed}}


def tuned_with_slices(problem: str, *, p_value: float = 0.01) -> dict:
    """metrics/evaluate.json of a run with two slices, of which one is far worse; p_value: of the difference."""
    values, main = tuned(problem), PROBLEMS[problem].main_scores[MAIN[problem]]
    better, worse = (values[main.key] + main.sign * step for step in (0.05, -0.25))
    slices = {
        name: with_intervals({main.key: score})
        | {"rows": rows, "rest": rest, "p_value": p_value, "strongest_rival": 0.5, "gain": main.sign * (score - 0.5)}
        for name, rows, score, rest in (("en_GB", 1700, better, worse), ("de*", 300, worse, better))
    }
    return values | {"slices": {"lang": slices}}


def with_intervals(scores: dict[str, float]) -> dict:
    """Scores, and an interval around each."""
    return scores | {"interval": {key: {"low": value - 0.05, "high": value + 0.03} for key, value in scores.items()}}


def answers(problem: str) -> pd.DataFrame:
    """data/predictions/test.csv, as the report reads it."""
    texts = ["first", "second | here", "long " * 40, "last"]
    given = {name: list(map(str, values)) for name, values in ANSWERS[problem].items()}
    words = ["", "here", "long, long long", ""]
    return pd.DataFrame({"row": ["12", "7", "110", "3"], "text": texts, **given, "words": words})


def write_plots(problem: str, folder: Path) -> None:
    """metrics/plots."""
    folder.mkdir(parents=True)
    models = [*BASELINE[problem], "tuned"]
    given = answers(problem).drop(columns=["row", "text", "probability", "words"], errors="ignore")
    given = given.melt("label", var_name="model", value_name="answer")
    tables = {"numbers": given} if problem == "regression" else {}
    if problem == "single_label":
        tables["confusion"] = given.value_counts(["model", "label", "answer"]).rename("rows").reset_index()
    curves = {
        "roc": {"false_positive_rate": [0, 0.2, 1], "true_positive_rate": [0, 0.8, 1]},
        "reliability": {"confidence": [0.6, 0.9], "accuracy": [0.5, 0.95], "rows": [2, 2]},
        "precision_recall": {"recall": [1, 0], "precision": [0.5, 1]},
    }
    errors = {"error_characteristic": {"error": [0, 1, 3], "rows_within": [0.25, 0.5, 1]}}
    curves = (errors if problem == "regression" else curves) | {
        "length": {"tokens": [20, 30], "rows": [2, 2], "score": [0.75, 0.5]}
    }
    if names := CLASSES[problem]:
        curves["by_class"] = {"class": names, "f1": [0.5, 0.75]}
    for name, points in curves.items():
        tables[name] = pd.concat([pd.DataFrame(points).assign(model=model) for model in models])
    for name, columns in COLUMNS.items():
        tables.get(name, pd.DataFrame(columns=columns)).to_csv(folder / f"{name}.csv", index=False)


def run(problem: str, *, main: str | None = None) -> Run:
    """What made the adapter; `main`: the key of the main score, if not the default."""
    main = main or MAIN[problem]
    return Run(
        depth=2,
        max_length=64,
        params=tiny_params(**SECTIONS[problem]),
        base_model={"source": "path:models/raw/tiny", "revision": None, "license": "MIT"},
        packages={},
        metrics={"main": main, "seed": 42, "best_epoch": 1, "validation": {main: 0.75, "loss": 0.5}},
    )


def data(problem: str) -> dict:
    """metrics/data.json."""
    counts = dict.fromkeys(CLASSES[problem], 2) or {"mean": 25.0, "standard_deviation": 11.18}
    rows = {"source": 3010, "train": 3000, "validation": 4, "test": 4}
    splits = dict.fromkeys(("train", "validation", "test"), counts)
    return {"rows": rows, **splits, "dropped": {"blank": 0, "over_limit_train": 2}}


def encode(*, cut: bool) -> dict:
    """metrics/encode.json; if texts were cut, a tenth of all tokens, from 30 of the 3,008 texts."""
    splits = {name: {"tokens": 300, "truncated_rows": 0, "truncated_tokens": 0} for name in paths.SPLITS}
    if not cut:
        return {"max_length": 256} | splits
    splits["train"] |= {"truncated_rows": 30, "truncated_tokens": 100}
    runs = {"128": 450, "256": 900, "300": 1000, "windows": 1350}
    choices = {
        name: {"share_read": min(count / 1000, 1), "tokens": count, "gigabytes": count / 100}
        for name, count in runs.items()
    }
    return {"max_length": 256} | splits | {"choices": choices}


def write_all(problem: str, folder: Path) -> None:
    """Everything that the report reads, below `folder`."""
    YAML().dump(tiny_params(**SECTIONS[problem]), folder / paths.PARAMS)
    for path, values in (
        (paths.DATA_METRICS, data(problem)),
        (paths.ENCODE_METRICS, encode(cut=False)),
        (paths.BASELINE_METRICS, baseline(problem)),
        (paths.EVALUATE_METRICS, tuned(problem)),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(values))
    write_plots(problem, folder / paths.EVALUATE_PLOTS)
    (folder / paths.TEST_PREDICTIONS).parent.mkdir(parents=True)
    answers(problem).to_csv(folder / paths.TEST_PREDICTIONS, index=False)
    suspects(problem).to_csv(folder / paths.SUSPECTS, index=False)
    (folder / paths.ADAPTER).mkdir(parents=True)
    run(problem).save(folder / paths.ADAPTER)
