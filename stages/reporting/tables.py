"""The report's tables: scores of all models, the tuned model's by class and length, its errors, the data."""

from collections.abc import Iterable

import pandas as pd

from stages.common import texts
from stages.common.paths import ALL_SPLITS
from stages.common.rivals import LINEAR_PROBE, TUNED, UNTRAINED, ZERO_SHOT
from stages.problems.main_score import MainScore
from stages.problems.problem import Problem
from stages.reporting.markdown import literal, paragraphs, table
from stages.reporting.wording import COMPARED, METRICS, column_title, further_metrics

SHOWN = 5
"""How many errors, and how many kinds of errors, are shown."""

WIDTH = 100
"""How many characters of a text are shown."""


def comparison(baseline: dict, tuned: dict, *, rows: dict[str, int], problem: Problem, main: MainScore) -> str:
    """All models on the test rows, the weakest first; for each rival, the gain of the tuned model over it.

    With several seeds the tuned model is the kept adapter, and its p-values take the rows alone into account.

    Args:
        baseline: metrics/baseline.json; tuned: metrics/evaluate.json; rows: their number in each split.
    """
    metric, columns = METRICS[main.key], further_metrics(COMPARED, tuned, main.key)
    name_of_tuned, p_value = (f"**{TUNED}** (kept)", "p, rows alone") if "seeds" in tuned else (f"**{TUNED}**", "p")
    models = dict(sorted(baseline.items(), key=lambda item: main.sign * item[1][main.key])) | {name_of_tuned: tuned}
    lines = []
    for name, scores in models.items():
        low, high = (metric.number(scores["interval"][main.key][end]) for end in ("low", "high"))
        gain = (metric.signed(tuned["gain"][name]), f"{tuned['p_value'][name]:.2g}") if name in baseline else ("", "")
        details = (f"{scores[key]:{METRICS[key].digits}}" for key in columns)
        lines.append([name, f"{metric.score(scores[main.key])} ({low} to {high})", *details, *gain])
    first = f"{rows['train']:,} training rows, {rows['test']:,} test rows"
    scored = (f"{metric.name} (95 % interval)", *(column_title(key, problem) for key in columns))
    return table([first, *scored, metric.column_title("tuned gains"), p_value], lines)


def by_seed(seeds: dict, *, kept: int, main: MainScore) -> str:
    """The main score of every seed's adapter, its gain over the strongest rival, and which one is `tuned` elsewhere.

    Args:
        seeds: `seeds` of metrics/evaluate.json; kept: the seed of the adapter in models/adapter.
    """
    metric = METRICS[main.key]
    lines = [
        (f"{seed} (kept)" if seed == str(kept) else seed, metric.score(values[main.key]), metric.signed(values["gain"]))
        for seed, values in seeds["by_seed"].items()
    ]
    mean = metric.mean(seeds["mean"], seeds["std"]), metric.signed_mean(seeds["gain"], seeds["gain_std"])
    columns = ("seed", metric.name, metric.column_title("gain over the strongest rival"))
    return paragraphs(
        table(columns, [*lines, ("mean ± standard deviation", *mean)]),
        f"Everywhere else `{TUNED}` is the kept adapter alone, the one that is best on the validation rows.",
    )


def by_class(classes: dict[str, dict[str, float]], rows: dict[str, int], problem: Problem) -> str:
    """Precision, recall and F1 of the tuned model, by class or label.

    Args:
        classes: the scores by name; rows: their number by name, in the test split.
    """
    lines = [
        (literal(name), f"{rows[name]:,}", *(f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")))
        for name, scores in classes.items()
    ]
    return table((f"tuned, by {problem.noun}", "test rows", "precision", "recall", "F1"), lines)


def by_length(lengths: pd.DataFrame, main: MainScore) -> str:
    """The main score on fifths of the test rows by length, from metrics/plots/length.csv."""
    metric, models = METRICS[main.key], [name for name in (ZERO_SHOT, LINEAR_PROBE, TUNED) if name in lengths]
    lines = [
        (f"up to {row['tokens']:.0f} tokens", f"{row['rows']:,.0f}", *(metric.score(row[model]) for model in models))
        for row in lengths.to_dict("records")
    ]
    return table((f"{metric.name}, by length", "test rows", *models), lines)


def errors(answers: pd.DataFrame) -> str:
    """How many rows tuning corrected and broke, the most common confusions, and the wrong and the corrected
    answers with the highest confidence. For answers without a probability: `largest_errors`.

    Args:
        answers: data/predictions/test.csv, all of it as text.
    """
    if "probability" not in answers:
        return largest_errors(answers)
    before = ZERO_SHOT if ZERO_SHOT in answers else UNTRAINED
    was_right, is_right = (answers[model] == answers["label"] for model in (before, TUNED))
    corrected, broken, wrong = answers[is_right & ~was_right], answers[was_right & ~is_right], answers[~is_right]
    confused = wrong.value_counts(["label", TUNED]).head(SHOWN)
    common = "; ".join(
        f"{literal(label)} taken for {literal(answer)}, {count:,} row{'s' if count > 1 else ''}"
        for (label, answer), count in confused.items()
    )
    summary = (
        f"Compared with the untouched model ({before}), tuning corrected {len(corrected):,} of {len(answers):,} test "
        f"rows and broke {len(broken):,}."
    )
    return paragraphs(
        f"{summary} Most common errors: {common}." if common else f"{summary} No answer is wrong.",
        *most_confident("Wrong answers with the highest confidence:", wrong, before),
        *most_confident("Corrected, with the highest confidence:", corrected, before),
    )


def most_confident(title: str, answers: pd.DataFrame, before: str) -> Iterable[str]:
    """The rows whose answers have the highest probability, under a title; nothing where there are no rows."""
    if answers.empty:
        return ()
    columns = ("label", before, TUNED)
    rows = answers.loc[answers["probability"].astype(float).nlargest(SHOWN).index]
    lines = [
        (row["row"], text, *(literal(row[name]) for name in columns), f"{float(row['probability']):.3f}")
        for row, text in zip(rows.to_dict("records"), beginnings(rows), strict=True)
    ]
    return title, table(("row", "text", *columns, "probability"), lines, names=5)


def largest_errors(answers: pd.DataFrame) -> str:
    """On how many rows the tuned model is closer to the true number than the linear probe, and on how many farther; and
    the rows with the largest errors."""
    numbers = answers[["label", LINEAR_PROBE, TUNED]].astype(float)
    before, after = ((numbers[model] - numbers["label"]).abs() for model in (LINEAR_PROBE, TUNED))
    farthest = answers.loc[after.nlargest(SHOWN).index]
    lines = [
        (row, text, *(f"{numbers.loc[index, column]:.4g}" for column in ("label", TUNED)))
        for index, row, text in zip(farthest.index, farthest["row"], beginnings(farthest), strict=True)
    ]
    return paragraphs(
        f"The tuned model is closer to the true number than the linear probe on {(after < before).sum():,} of "
        f"{len(answers):,} test rows, and farther from it on {(after > before).sum():,}. Largest errors:",
        table(("row", "text", "number", "answer"), lines, names=2),
    )


def beginnings(answers: pd.DataFrame) -> list[str]:
    """The beginning of each row's text, or texts."""
    return [literal(texts.shortened(text, WIDTH)) for text in texts.joined(answers)]


def data_counts(data: dict, problem: Problem) -> str:
    """How the source's rows were used: by split and class, and those that were dropped, by reason.

    Args:
        data: metrics/data.json.
    """
    splits = [split for split in ALL_SPLITS if split in data]
    lines = [(literal(name), *(count(data[split][name]) for split in splits)) for name in data["train"]]
    dropped = "; ".join(f"{reason.replace('_', ' ')} {found:,}" for reason, found in data["dropped"].items() if found)
    title = f"{problem.noun}s" if problem.numeric else f"rows, by {problem.noun}"
    return paragraphs(
        table((title, *splits), lines),
        f"Of {data['rows']['source']:,} rows, these were left out: {dropped or 'none'}.",
    )


def count(value: float) -> str:
    """A number of rows, or a statistic of the labels of a regression, as text."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
