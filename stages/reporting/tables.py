"""The report's tables: scores of all models, the tuned model's by class, length and slice, its errors, the data as
read."""

from collections.abc import Iterable

import pandas as pd

from stages.common import texts
from stages.common.paths import ALL_SPLITS, SPLITS
from stages.common.rivals import LINEAR_PROBE, STRONGEST_RIVAL, TUNED, UNTRAINED, ZERO_SHOT
from stages.common.texts import literal
from stages.problems.main_score import SIGNIFICANT, MainScore
from stages.problems.problem import Problem
from stages.reporting.markdown import paragraphs, table
from stages.reporting.verdict import named_slices, worst_slice
from stages.reporting.wording import COMPARED, METRICS, column_title, further_metrics

SHOWN = 5
"""How many errors, and how many kinds of errors, are shown."""

SUSPECTS_SHOWN = 10
"""How many suspect labels are shown."""

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
    scores = lengths.pivot(index=["tokens", "rows"], columns="model", values="score")
    metric, models = METRICS[main.key], [name for name in (ZERO_SHOT, LINEAR_PROBE, TUNED) if name in scores]
    lines = [
        (f"up to {tokens:.0f} tokens", f"{rows:,.0f}", *(metric.score(of_models[model]) for model in models))
        for (tokens, rows), of_models in scores.iterrows()
    ]
    return table((f"{metric.name}, by length", "test rows", *models), lines)


def slices_line(tuned: dict, main: MainScore) -> str:
    """The worst slice, and which slices are proven to be worse than the rest; nothing where there are no slices.

    Args:
        tuned: metrics/evaluate.json.
    """
    if "slices" not in tuned:
        return ""
    metric, slices = METRICS[main.key], named_slices(tuned["slices"])
    name, worst = worst_slice(tuned["slices"], main)
    proven = [
        other
        for other, scores in slices.items()
        if main.sign * (scores["rest"] - scores[main.key]) > 0 and scores["p_value"] < SIGNIFICANT
    ]
    others = f"Proven to be worse than the other rows: {'; '.join(proven)}"
    if not proven:
        others = "No slice is proven to be worse than the other rows"
    return (
        f"Worst slice: {name}, {metric.name} {metric.score(worst[main.key])} on {worst['rows']:,} test rows, "
        f"{metric.score(worst['rest'])} on the others, p = {worst['p_value']:.2g}. {others} (p-values corrected for "
        f"{len(slices)} slices by Holm's method)."
    )


def by_slice(tuned: dict, main: MainScore, rival: str) -> str:
    """The main score of every slice, the worst first, beside the rival that is strongest on all rows.

    Args:
        tuned: metrics/evaluate.json; without slices there is no table.
        rival: the name of the strongest rival.
    """
    if "slices" not in tuned:
        return ""
    metric = METRICS[main.key]
    lines = []
    for name, scores in sorted(named_slices(tuned["slices"]).items(), key=lambda item: main.sign * item[1][main.key]):
        low, high = (metric.number(scores["interval"][main.key][end]) for end in ("low", "high"))
        score, of_rival = f"{metric.score(scores[main.key])} ({low} to {high})", metric.score(scores[STRONGEST_RIVAL])
        lines.append(
            [name, f"{scores['rows']:,}", score, of_rival, metric.signed(scores["gain"]), f"{scores['p_value']:.2g}"]
        )
    columns = (f"{metric.name}, by slice", "test rows", f"{TUNED} (95 % interval, all slices together)", rival)
    return table([*columns, metric.column_title("gain"), "p against the other rows"], lines)


def errors(answers: pd.DataFrame) -> str:
    """How many rows tuning corrected and broke, the most common confusions, and the wrong and the corrected
    answers with the highest confidence; beside the wrong ones, the words that speak most for them. For answers without
    a probability: `largest_errors`.

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
        *most_confident("Wrong answers with the highest confidence:", wrong, ("label", before, TUNED, "words")),
        *most_confident("Corrected, with the highest confidence:", corrected, ("label", before, TUNED)),
    )


def most_confident(title: str, answers: pd.DataFrame, columns: tuple[str, ...]) -> Iterable[str]:
    """The rows whose answers have the highest probability, under a title; nothing where there are no rows."""
    if answers.empty:
        return ()
    rows = answers.loc[answers["probability"].astype(float).nlargest(SHOWN).index]
    lines = [
        (row["row"], text, *(literal(row[name]) for name in columns), f"{float(row['probability']):.3f}")
        for row, text in zip(rows.to_dict("records"), beginnings(rows), strict=True)
    ]
    return title, table(("row", "text", *map(titled, columns), "probability"), lines, names=2 + len(columns))


def titled(column: str) -> str:
    """The title of a column of data/predictions/test.csv."""
    return f"words that speak for {TUNED}" if column == "words" else column


def largest_errors(answers: pd.DataFrame) -> str:
    """On how many rows the tuned model is closer to the true number than the linear probe, and on how many farther; and
    the rows with the largest errors."""
    numbers = answers[["label", LINEAR_PROBE, TUNED]].astype(float)
    before, after = ((numbers[model] - numbers["label"]).abs() for model in (LINEAR_PROBE, TUNED))
    farthest = answers.loc[after.nlargest(SHOWN).index]
    lines = [
        (row, text, literal(words), *(f"{numbers.loc[index, column]:.4g}" for column in ("label", TUNED)))
        for index, row, text, words in zip(
            farthest.index, farthest["row"], beginnings(farthest), farthest["words"], strict=True
        )
    ]
    return paragraphs(
        f"The tuned model is closer to the true number than the linear probe on {(after < before).sum():,} of "
        f"{len(answers):,} test rows, and farther from it on {(after > before).sum():,}. Largest errors:",
        table(("row", "text", "words that speak for the error", "number", "answer"), lines, names=3),
    )


def suspect_labels(suspects: pd.DataFrame, answers: pd.DataFrame, *, rows: dict[str, int], problem: Problem) -> str:
    """How many labels are suspect, for how many the tuned model gives the likely label, and the most suspect ones.

    The tuned model is asked about the test rows alone: it was trained and chosen on the labels of the others.

    Args:
        suspects: data/predictions/suspects.csv, and answers: data/predictions/test.csv, both all of it as text.
        rows: their number in each split.
    """
    found = suspects["split"].value_counts()
    counts = "; ".join(f"{split} {found.get(split, 0):,} of {rows[split]:,}" for split in SPLITS)
    if suspects.empty:
        return f"Suspect labels: {counts}."
    asked = suspects[suspects["split"] == "test"].merge(answers[["row", TUNED]], on="row")
    shown = suspects.head(SUSPECTS_SHOWN)
    lines = [
        (
            *(row["row"], row["split"], text),
            *(f"{float(row[name]):.4g}" if problem.numeric else literal(row[name]) for name in ("label", "likely")),
            f"{float(row['quality']):.4f}",
        )
        for row, text in zip(shown.to_dict("records"), beginnings(shown), strict=True)
    ]
    return paragraphs(
        f"Suspect labels, which linear probes trained on other rows contradict: {counts} "
        f"(data/predictions/suspects.csv). The tuned model agrees with the probes on "
        f"{agrees(asked, problem).sum():,} of the {len(asked):,} in test. The most suspect:",
        table(("row", "split", "text", "label", "likely", "label quality"), lines, names=5),
    )


def agrees(asked: pd.DataFrame, problem: Problem) -> pd.Series:
    """Whether the tuned model gives the likely label; for numbers, whether it is closer to that than to the label."""
    if not problem.numeric:
        return asked[TUNED] == asked["likely"]
    label, likely, answer = (asked[name].astype(float) for name in ("label", "likely", TUNED))
    return (answer - likely).abs() < (answer - label).abs()


def beginnings(answers: pd.DataFrame) -> list[str]:
    """The beginning of each row's text, or texts."""
    return [literal(texts.shortened(text, WIDTH)) for text in texts.joined(answers)]


def what_was_read(encode: dict, rows: dict[str, int], *, windows: bool) -> str:
    """How much of the texts was read and, where some were cut, what other choices would read and cost.

    Args:
        encode: metrics/encode.json; rows: their number in each split.
        windows: whether long texts were read in windows.
    """
    length = f"{encode['max_length']:,} tokens"
    splits = [split for split in ALL_SPLITS if split in encode]
    cut, lost, read = (
        sum(encode[split][key] for split in splits) for key in ("truncated_rows", "truncated_tokens", "tokens")
    )
    if not cut:
        how = f"in windows of at most {length}" if windows else f"within `encode.max_length`, {length}"
        return f"Every text was read to its end, {how}."
    chosen = f"{encode['max_length']}"
    cost = encode["choices"][chosen]["tokens"]
    lines = [
        (
            f"**{name}**" if name == chosen else name,
            f"{choice['share_read']:.1%}",
            f"{choice['tokens'] / cost:.2f}",
            f"{choice['gigabytes']:.2f}",
        )
        for name, choice in encode["choices"].items()
    ]
    others = "other lengths" + (" and `encode.truncation: windows`" if "windows" in encode["choices"] else "")
    return paragraphs(
        f"{cut:,} of {sum(rows[split] for split in splits):,} texts were cut to `encode.max_length`, {length}: "
        f"{lost / (lost + read):.1%} of all tokens were not read. "
        f"What {others} would read and cost:",
        table(("`encode.max_length`", "tokens read", "tokens to run, relative", "stored states, GB"), lines),
    )


def data_counts(data: dict, problem: Problem) -> str:
    """How the source's rows were used: by split and class, and those that were dropped, by reason.

    Args:
        data: metrics/data.json.
    """
    splits = [split for split in ALL_SPLITS if split in data]
    shown = str if problem.numeric else literal  # of a regression, the names of statistics
    lines = [(shown(name), *(count(data[split][name]) for split in splits)) for name in data["train"]]
    dropped = "; ".join(f"{reason.replace('_', ' ')} {found:,}" for reason, found in data["dropped"].items() if found)
    title = f"{problem.noun}s" if problem.numeric else f"rows, by {problem.noun}"
    return paragraphs(
        table((title, *splits), lines),
        f"Of {data['rows']['source']:,} rows, these were left out: {dropped or 'none'}.",
    )


def count(value: float) -> str:
    """A number of rows, or a statistic of the labels of a regression, as text."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
