"""report: was the tuning worth it? Markdown, from the metrics files and the test rows' answers.

    python -m stages.report                 verdict, comparison, where it fails; also to metrics/report.md
    python -m stages.report --rev main      and what changed since that revision; writes nothing
    python -m stages.report --gate          exit status 1 where the gate of params.yaml is not passed

Reads metrics/{data,baseline,evaluate}.json, metrics/plots/length.csv, data/predictions/test.csv and models/adapter.
Writes metrics/report.md, and metrics/card.md: the adapter's model card with its test results, for `stages.export`.
"""

import argparse
import json
import subprocess
import sys
import textwrap

import pandas as pd

from stages.adapters import card
from stages.common import errors, files, paths, texts
from stages.params import Gate, Params
from stages.reporting.markdown import paragraphs, table
from stages.scoring import single_label
from stages.scoring.problem import Problem
from stages.scoring.problems import of_run

SHOWN = 5
"""Errors, and kinds of errors, that the report shows."""

SIGNIFICANT = 0.05
"""The p-value below which a gain counts as one."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description="Was the tuning worth it?")
    parser.add_argument("--rev", help="a Git revision to compare with")
    parser.add_argument("--gate", action="store_true", help="fail where evaluate.gate of params.yaml is not passed")
    options = parser.parse_args()

    gate = Params.load().evaluate.gate
    data, baseline, tuned, made = (
        json.loads(path.read_text())
        for path in (paths.DATA_METRICS, paths.BASELINE_METRICS, paths.EVALUATE_METRICS, paths.ADAPTER / "run.json")
    )
    problem = of_run(made["params"])
    missed = misses(gate, tuned, metrics_at(options.rev) if options.rev else None, problem)
    told = sections(data, baseline, tuned, missed, problem)
    if options.rev:
        print(paragraphs(told, changes(options.rev)))
    else:
        print(told)
        figure = f"![{problem.FIGURE}]({paths.SUMMARY.name})"
        files.write_text(paths.REPORT, paragraphs("# Was the tuning worth it?", told, figure) + "\n")
        files.write_text(paths.CARD, card.tested(made, tuned, verdict(baseline, tuned, problem)))
    if options.gate and missed:
        sys.exit(1)


def sections(data: dict, baseline: dict, tuned: dict, missed: list[str], problem: Problem) -> str:
    """The report, but for its title and what is told about a revision."""
    answers = pd.read_csv(paths.TEST_PREDICTIONS, dtype=str, keep_default_na=False)  # classes may look like numbers
    return paragraphs(
        verdict(baseline, tuned, problem),
        comparison(baseline, tuned, rows=data["rows"], problem=problem),
        gate_line(missed),
        calibration_line(tuned),
        leak_warning(baseline, tuned, problem),
        failures(answers) if "probability" in answers else largest_errors(answers),
        by_class(tuned["classes"], data["test"], problem) if "classes" in tuned else "",
        by_length(pd.read_csv(paths.EVALUATE_PLOTS / "length.csv"), problem),
        data_counts(data, problem),
    )


def verdict(baseline: dict, tuned: dict, problem: Problem = single_label) -> str:
    """One sentence: the gain over the strongest rival, its interval and p-value, and what they prove."""
    main = problem.MAIN
    gain, low, high, p_value = (tuned[key]["strongest_rival"] for key in ("gain", "gain_low", "gain_high", "p_value"))
    strongest = max(baseline, key=lambda name: main.sign * baseline[name][main.key])
    pair = ["tuned", f"the strongest rival ({strongest})"][:: main.sign]
    evidence = "Tuning was worth it" if gain > 0 and p_value < SIGNIFICANT else "No evidence of a gain"
    gained = f"{main.difference(gain)} {main.unit}".rstrip()
    return (
        f"**{evidence}**: {' minus '.join(pair)} is {gained} of {main.name}, 95 % interval {main.difference(low)} to "
        f"{main.difference(high)}, p = {p_value:.2g} ({main.test})."
    )


def comparison(baseline: dict, tuned: dict, *, rows: dict[str, int], problem: Problem = single_label) -> str:
    """All models on the test rows, the weakest first; beside each rival what tuning gained over it."""
    main = problem.MAIN
    models = dict(sorted(baseline.items(), key=lambda item: main.sign * item[1][main.key])) | {"**tuned**": tuned}
    lines = []
    for name, scores in models.items():
        low, high = (main.bare(scores["interval"][main.key][end]) for end in ("low", "high"))
        gain = (main.difference(tuned["gain"][name]), f"{tuned['p_value'][name]:.2g}") if name in baseline else ("", "")
        details = (f"{scores[key]:{problem.DETAIL}}" for key in problem.COLUMNS)
        lines.append([name, f"{main.amount(scores[main.key])} ({low} to {high})", *details, *gain])
    first = f"{rows['train']:,} training rows, {rows['test']:,} test rows"
    scored = (f"{main.name} (95 % interval)", *problem.COLUMNS.values())
    return table([first, *scored, main.titled("tuned gains"), "p"], lines)


def misses(gate: Gate, tuned: dict, before: dict | None, problem: Problem = single_label) -> list[str]:
    """What of the gate is not passed, in words. The p-value of a loss says nothing for a gain, and counts as 1.

    Args:
        before: metrics/evaluate.json of the revision compared with, if any.
    """
    main = problem.MAIN
    accuracy, gain = tuned.get("accuracy"), tuned["gain"]["strongest_rival"]
    p_value = tuned["p_value"]["strongest_rival"] if gain > 0 else 1
    checks = [
        (gate.min_accuracy, accuracy, "an accuracy of at least", lambda bound: accuracy >= bound),
        (gate.min_gain, gain, "a gain over the strongest rival of at least", lambda bound: gain >= bound),
        (gate.max_p_value, p_value, "a p-value of at most", lambda bound: p_value <= bound),
    ]
    if before and main.key in before:
        drop = main.sign * (before[main.key] - tuned[main.key])
        change = f"a {'drop' if main.sign > 0 else 'rise'} in {main.name} of at most"
        checks.append((gate.max_drop, drop, change, lambda bound: drop <= bound))
    return [
        f"expected {name} {bound:g}, found {value:.4g}"
        for bound, value, name, passes in checks
        if bound is not None and not passes(bound)
    ]


def gate_line(missed: list[str]) -> str:
    """Whether the gate of params.yaml is passed."""
    return "Gate: " + (f"failed: {'; '.join(missed)}." if missed else "passed.")


def calibration_line(tuned: dict) -> str:
    """What the temperature did to the tuned model's probabilities; nothing where it has none."""
    if "calibration_error" not in tuned.get("uncalibrated", {}):
        return ""
    before, after = (scores["calibration_error"] for scores in (tuned["uncalibrated"], tuned))
    return (
        f"Expected calibration error of the tuned model: {before:.3f} as trained, {after:.3f} with the temperature "
        "fitted on the validation rows."
    )


def leak_warning(baseline: dict, tuned: dict, problem: Problem = single_label) -> str:
    """What to look into where a rival that sees no word order keeps up with the tuned model; else nothing."""
    main = problem.MAIN
    words, worst = baseline["bag_of_words"][main.key], tuned["interval"][main.key]["low" if main.sign > 0 else "high"]
    if main.sign * words < main.sign * worst:
        return ""
    return (
        f"Warning: bag_of_words, which sees no word order, has {main.amount(words)}, no worse than the end of "
        f"the tuned model's interval, {main.amount(worst)}: single words decide this task, or give the label away."
    )


def failures(answers: pd.DataFrame) -> str:
    """How many rows tuning fixed and broke, its commonest confusions, and of wrong and fixed answers the surest."""
    before = "zero_shot" if "zero_shot" in answers else "untrained"
    answers = answers.astype({"probability": float})
    was_right, is_right = (answers[model] == answers["label"] for model in (before, "tuned"))
    fixed, broken, wrong = answers[is_right & ~was_right], answers[was_right & ~is_right], answers[~is_right]
    confused = wrong.value_counts(["label", "tuned"]).head(SHOWN)
    return paragraphs(
        f"Against the untouched model ({before}), tuning fixed {len(fixed)} of {len(answers):,} test rows and broke "
        f"{len(broken)}. Its commonest errors: "
        + "; ".join(f"{label} taken for {answer}, {count} rows" for (label, answer), count in confused.items())
        + ". Its surest:",
        surest(wrong, before),
        "The surest of those that it fixed:" if len(fixed) else "",
        surest(fixed, before) if len(fixed) else "",
    )


def surest(answers: pd.DataFrame, before: str) -> str:
    """The rows whose answers have the highest probability."""
    rows = answers.assign(shown=texts.joined(answers)).nlargest(SHOWN, "probability").to_dict("records")
    lines = [
        (shortened(row["shown"]), row["label"], row[before], row["tuned"], f"{row['probability']:.3f}") for row in rows
    ]
    return table(("text", "label", before, "tuned", "probability"), lines, names=4)


def shortened(text: str) -> str:
    """The beginning of a text, in one line."""
    return textwrap.shorten(text, 100, placeholder=" …")


def largest_errors(answers: pd.DataFrame) -> str:
    """On how many rows tuning came nearer to the number, and where it is the farthest from it."""
    answers = answers.astype(dict.fromkeys(("label", "linear_probe", "tuned"), float))
    before, after = ((answers[model] - answers["label"]).abs() for model in ("linear_probe", "tuned"))
    farthest = [
        (shortened(row.text), *(f"{value:.4g}" for value in (row.label, row.tuned)))
        for row in answers.loc[after.nlargest(SHOWN).index].itertuples()
    ]
    return paragraphs(
        f"Tuning came nearer than the linear probe on {(after < before).sum()} of {len(answers):,} test rows, and less "
        f"near on {(after > before).sum()}. Its largest errors:",
        table(("text", "number", "answer"), farthest),
    )


def by_class(classes: dict[str, dict[str, float]], rows: dict[str, int], problem: Problem = single_label) -> str:
    """Precision, recall and F1 of the tuned model, by class or label."""
    lines = [
        (name, f"{rows[name]:,}", *(f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")))
        for name, scores in classes.items()
    ]
    return table((f"tuned, by {problem.NOUN}", "test rows", "precision", "recall", "F1"), lines)


def by_length(lengths: pd.DataFrame, problem: Problem = single_label) -> str:
    """The main score on fifths of the test rows by length."""
    models = [name for name in ("zero_shot", "linear_probe", "tuned") if name in lengths]
    lines = [
        (f"up to {row.tokens} tokens", f"{row.rows:,}", *(problem.MAIN.amount(getattr(row, model)) for model in models))
        for row in lengths.itertuples()
    ]
    return table((f"{problem.MAIN.name}, by length", "test rows", *models), lines)


def data_counts(data: dict, problem: Problem = single_label) -> str:
    """How the source's rows were used: by split and class, and those that were dropped, by reason."""
    splits = ("train", "validation", "test")
    lines = [(name, *(count(data[split][name]) for split in splits)) for name in data["train"]]
    dropped = "; ".join(f"{reason.replace('_', ' ')} {found:,}" for reason, found in data["dropped"].items() if found)
    return paragraphs(
        table((problem.COUNTED, *splits), lines),
        f"Of {data['rows']['source']:,} rows, these were left out: {dropped or 'none'}.",
    )


def count(value: float) -> str:
    """A number of rows, or what they have on average."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def changes(rev: str) -> str:
    """What changed in parameters and metrics since a revision, as DVC tells it, and how to make it again."""
    differences = {
        topic: run(sys.executable, "-m", "dvc", topic, "diff", "--md", rev).strip() for topic in ("params", "metrics")
    }
    commit = run("git", "rev-parse", "HEAD").strip()
    changed = run("git", "status", "--porcelain", "--", "params.yaml", "dvc.yaml", "stages")
    return paragraphs(
        f"Reproduce: commit what differs from {commit} first."
        if changed
        else f"Reproduce: `git checkout {commit}`, then `make`.",
        *(f"### {topic.title()} changed since {rev}\n\n{told or 'none'}" for topic, told in differences.items()),
    )


def metrics_at(rev: str) -> dict | None:
    """metrics/evaluate.json as it was at a revision; None: it was not there yet."""
    run("git", "rev-parse", "--verify", f"{rev}^{{commit}}")
    if not run("git", "ls-tree", rev, str(paths.EVALUATE_METRICS)):
        return None
    return json.loads(run("git", "show", f"{rev}:{paths.EVALUATE_METRICS}"))


def run(*command: str) -> str:
    """What a command prints.

    Raises:
        PipelineError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise errors.PipelineError(f"{' '.join(map(str, command[:4]))}: {reason[0]}")
    return done.stdout


if __name__ == "__main__":
    errors.run(main)
