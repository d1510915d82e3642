"""report: was the tuning worth it? Markdown, from the metrics files, and from the test rows' answers where they are.

python -m stages.report                 verdict, comparison, gate
python -m stages.report --rev main      and what changed since that revision
python -m stages.report --gate          exit status 1 where the gate of params.yaml is not passed
"""

import argparse
import json
import subprocess
import sys
import textwrap

import pandas as pd

from stages.common import errors, paths
from stages.common.params import Gate, Params

SHOWN = 5
"""Errors that the report shows."""

COLUMNS = {"f1_macro": "macro-F1", "mcc": "MCC", "log_loss": "log loss", "roc_auc": "ROC AUC"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description="Was the tuning worth it?")
    parser.add_argument("--rev", help="a Git revision to compare with")
    parser.add_argument("--gate", action="store_true", help="fail where evaluate.gate of params.yaml is not passed")
    options = parser.parse_args()

    data, baseline, tuned = (
        json.loads(path.read_text()) for path in (paths.DATA_METRICS, paths.BASELINE_METRICS, paths.EVALUATE_METRICS)
    )
    before = metrics_at(options.rev) if options.rev else None
    missed = misses(Params.load().evaluate.gate, tuned, before)
    print(verdict(baseline, tuned), table(baseline, tuned, rows=data["rows"]), gate_line(missed), sep="\n\n")
    if warning := leak_warning(baseline, tuned):
        print("", warning, sep="\n")
    if paths.TEST_PREDICTIONS.exists():
        print("", failures(pd.read_csv(paths.TEST_PREDICTIONS)), sep="\n")
    if options.rev:
        print(changes(options.rev))
    if options.gate and missed:
        sys.exit(1)


def verdict(baseline: dict, tuned: dict) -> str:
    """One sentence: the gain over the strongest rival, its interval and p-value, and what they prove."""
    gain, low, high, p_value = (tuned[key]["strongest_rival"] for key in ("gain", "gain_low", "gain_high", "p_value"))
    strongest = max(baseline, key=lambda name: baseline[name]["accuracy"])
    evidence = "Tuning was worth it" if gain > 0 and p_value < 0.05 else "No evidence of a gain"
    return (
        f"**{evidence}**: tuned minus the strongest rival ({strongest}) is {100 * gain:+.1f} points of accuracy, "
        f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, p = {p_value:.2g} (exact McNemar test)."
    )


def table(baseline: dict, tuned: dict, *, rows: dict[str, int]) -> str:
    """All models on the test rows, the weakest first; beside each rival what tuning gained over it."""
    models = dict(sorted(baseline.items(), key=lambda item: item[1]["accuracy"])) | {"**tuned (LoRA)**": tuned}
    first = f"{rows['train']:,} training rows, {rows['test']:,} test rows"
    lines = [
        f"| {first} | accuracy (95 % interval) | {' | '.join(COLUMNS.values())} | tuned gains, points | p |",
        "|---|" + "---:|" * (len(COLUMNS) + 3),
    ]
    for name, scores in models.items():
        low, high = (100 * scores["interval"]["accuracy"][end] for end in ("low", "high"))
        gain = f"{100 * tuned['gain'][name]:+.1f} | {tuned['p_value'][name]:.2g}" if name in baseline else " | "
        cells = [f"{scores['accuracy']:.1%} ({low:.1f} to {high:.1f})", *(f"{scores[key]:.3f}" for key in COLUMNS)]
        lines.append(f"| {name} | {' | '.join(cells)} | {gain} |")
    return "\n".join(lines)


def misses(gate: Gate, tuned: dict, before: dict | None) -> list[str]:
    """What of the gate is not passed, in words.

    Args:
        before: metrics/evaluate.json of the revision compared with, if any.
    """
    accuracy, gain, p_value = tuned["accuracy"], tuned["gain"]["strongest_rival"], tuned["p_value"]["strongest_rival"]
    checks = [
        (gate.min_accuracy, accuracy, "an accuracy of at least", lambda bound: accuracy >= bound),
        (gate.min_gain, gain, "a gain over the strongest rival of at least", lambda bound: gain >= bound),
        (gate.max_p_value, p_value, "a p-value of at most", lambda bound: p_value <= bound),
    ]
    if before:
        drop = before["accuracy"] - accuracy
        checks.append((gate.max_drop, drop, "a drop in accuracy of at most", lambda bound: drop <= bound))
    return [
        f"expected {name} {bound:g}, found {value:.4g}"
        for bound, value, name, passes in checks
        if bound is not None and not passes(bound)
    ]


def gate_line(missed: list[str]) -> str:
    """Whether the gate of params.yaml is passed."""
    return "Gate: " + (f"failed: {'; '.join(missed)}." if missed else "passed.")


def leak_warning(baseline: dict, tuned: dict) -> str:
    """What to look into where a rival that sees no word order keeps up with the tuned model; else nothing."""
    words, low = baseline["bag_of_words"]["accuracy"], tuned["interval"]["accuracy"]["low"]
    if words < low:
        return ""
    return (
        f"Warning: bag_of_words, which sees no word order, has {words:.1%}, within the tuned model's interval (from "
        f"{low:.1%}): single words decide this task, or give the label away."
    )


def failures(answers: pd.DataFrame) -> str:
    """Which rows tuning fixed and broke, and the wrong answers that the tuned model is surest of."""
    before = "zero_shot" if "zero_shot" in answers else "untrained"
    was_right, is_right = (answers[model] == answers["label"] for model in (before, "tuned"))
    lines = [
        f"Against the untouched model ({before}), tuning fixed {(is_right & ~was_right).sum()} of {len(answers):,} "
        f"test rows and broke {(was_right & ~is_right).sum()}. Its surest errors:",
        "",
        "| text | label | answer | probability |",
        "|---|---|---|---:|",
    ]
    for row in answers[~is_right].nlargest(SHOWN, "probability").itertuples():
        text = textwrap.shorten(row.text.replace("|", "\\|"), 100, placeholder=" …")
        lines.append(f"| {text} | {row.label} | {row.tuned} | {row.probability:.3f} |")
    return "\n".join(lines)


def changes(rev: str) -> str:
    """What changed in parameters and metrics since a revision, as DVC tells it, and how to make it again."""
    sections = ["", f"Reproduce: `git checkout {run('git', 'rev-parse', 'HEAD').strip()}`, then `make`."]
    for title, topic in (("Parameters", "params"), ("Metrics", "metrics")):
        difference = run(sys.executable, "-m", "dvc", topic, "diff", "--md", rev)
        sections += ["", f"### {title} changed since {rev}", "", difference.strip() or "none"]
    return "\n".join(sections)


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
