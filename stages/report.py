"""report: was the tuning worth it? Words and a figure, from the metrics files and the test rows' answers.

    python -m stages.report                 verdict, comparison, errors; also written to metrics/report.md
                                            (`dvc repro` prints the verdict alone)
    python -m stages.report --rev main      what changed since that revision, then the same; writes nothing
    python -m stages.report --gate          exit status 1 if the gate of params.yaml is not passed

Reads metrics/{data,encode,baseline,evaluate}.json, metrics/plots, data/predictions/{test,suspects}.csv and
models/adapter/run.json. Writes metrics/report.md and its figure, metrics/summary.png; and metrics/card.md: the
adapter's model card with its test results, which `stages.export` writes too. Loads no model, so it takes seconds, and
computes nothing; with --rev, a paired test of this run's answers to the test rows and those of the revision, which come
from DVC's cache or its remote.
"""

import argparse
import os
import re
import sys

import pandas as pd

from stages.adapters.run import Run
from stages.common import errors, files, paths, progress
from stages.common.texts import literal
from stages.evidence.change import Change
from stages.params import Params
from stages.problems.main_score import MainScore
from stages.reporting import figure, history, tables
from stages.reporting.markdown import details, fitting, paragraphs
from stages.reporting.tested_card import tested_card
from stages.reporting.verdict import (
    ONE_SEED,
    abstention_line,
    calibration_line,
    change_line,
    gate_line,
    leak_warning,
    main_score_line,
    shift_warning,
    strongest_rival,
    unmet_conditions,
    verdict,
)

MARKER = "<!-- stages.report: what a pull request changes -->"
"""The first line of a comment, by which .github/workflows/comment.yml finds it again."""

MOST_CHARACTERS = 65_000
"""In a comment; GitHub refuses more than 65,536, and comment.yml adds a character to each @."""


def main() -> None:
    options, params = arguments(), Params.load()
    data, encode, baseline, tuned = (
        files.read_json(path)
        for path in (paths.DATA_METRICS, paths.ENCODE_METRICS, paths.BASELINE_METRICS, paths.EVALUATE_METRICS)
    )
    run, answers = Run.load(paths.ADAPTER), files.load(paths.TEST_PREDICTIONS, history.read_answers)
    change = None
    if options.rev:
        change = history.change_since(options.rev, run, tuned=tuned, answers=answers)
    missed = unmet_conditions(params.gate, tuned, change, run.main)
    findings = sections(run, answers, data=data, encode=encode, baseline=baseline, tuned=tuned)
    if options.rev:
        print(comment(findings, change, options.rev, main=run.main, missed=missed))
    else:
        first, *others = findings.values()
        text = paragraphs(first, gate_line(missed), *others)
        save(run, text, baseline=baseline, tuned=tuned)
        show(text)
    if options.gate and missed:
        sys.exit(1)


def show(findings: str) -> None:
    """Print the report; where DVC runs the stage, only its first line, as a run's log needs no tables."""
    if "DVC_STAGE" in os.environ:
        progress.say(f"report: {findings.splitlines()[0]} Tables and examples: {paths.REPORT}")
    else:
        print(findings)


def arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m stages.report", description="Was the tuning worth it?")
    parser.add_argument("--rev", help="a Git revision to compare with")
    parser.add_argument(
        "--gate", action="store_true", help="exit with status 1 if the gate of params.yaml is not passed"
    )
    return parser.parse_args()


def sections(
    run: Run, answers: pd.DataFrame, *, data: dict, encode: dict, baseline: dict, tuned: dict
) -> dict[str, str]:
    """The parts of the report, by their titles, without the gate, the figure and what changed; the verdict is first.

    Args:
        answers: data/predictions/test.csv.
        data, encode, baseline, tuned: metrics/{data,encode,baseline,evaluate}.json.
    """
    problem, main, choice = run.problem, run.main, run.params["evaluate"]["main"]
    suspects = files.load(paths.SUSPECTS, history.read_answers)
    lengths = files.load(paths.EVALUATE_PLOTS / "length.csv", pd.read_csv)
    parts = {
        "Verdict": (
            verdict(baseline, tuned, main),
            tables.comparison(baseline, tuned, rows=data["rows"], problem=problem, main=main),
            main_score_line(problem, main, choice, data["train"]),
            tables.by_seed(tuned["seeds"], kept=run.seed, main=main) if "seeds" in tuned else ONE_SEED,
            calibration_line(tuned),
            abstention_line(tuned),
            shift_warning(run.metrics["validation"], tuned, problem, main, rows=data["rows"]),
            leak_warning(baseline, tuned, main),
        ),
        "Errors": (tables.errors(answers),),
        f"By {problem.noun}, slice and length": (
            tables.by_class(tuned["classes"], data["test"], problem) if "classes" in tuned else "",
            tables.slices_line(tuned, main),
            tables.by_slice(tuned, main, strongest_rival(baseline, main)),
            tables.by_length(lengths, main),
        ),
        "Suspect labels": (tables.suspect_labels(suspects, answers, rows=data["rows"], problem=problem),),
        "Data": (
            tables.what_was_read(encode, data["rows"], windows=run.window_stride is not None),
            tables.data_counts(data, problem),
        ),
    }
    return {title: paragraphs(*texts) for title, texts in parts.items()}


def comment(findings: dict[str, str], change: Change | None, rev: str, *, main: MainScore, missed: list[str]) -> str:
    """What changed since a revision, then the report, as a comment on a pull request, which has limited room.

    Args:
        findings: the parts of the report; missed: the conditions of the gate that are not met.
    """
    name = called(rev)
    first, *others = findings
    long = {"Metrics that changed": history.changed_metrics(rev, name)} | {title: findings[title] for title in others}
    parts = {
        "Change": paragraphs(MARKER, change_line(change, name, main), gate_line(missed)),
        "Parameters that changed": history.changed_params(rev, name),
        first: findings[first],
        "How to reproduce": history.to_reproduce(),
        **{title: details(title, text) for title, text in long.items()},
    }
    elsewhere = f"All is in {paths.REPORT}, and in {literal(f'dvc metrics diff {rev}')}."
    return fitting(parts, most=MOST_CHARACTERS, elsewhere=elsewhere)


def called(rev: str) -> str:
    """A revision's name in Markdown; of a commit, its first digits."""
    return rev[:7] if re.fullmatch("[0-9a-f]{40}", rev) else literal(rev)


def save(run: Run, findings: str, *, baseline: dict, tuned: dict) -> None:
    """Write the report, its figure and the model card."""
    picture, caption = figure.summary(run.problem, run.main, baseline=baseline, tuned=tuned, plots=paths.EVALUATE_PLOTS)
    image = f"![{caption}]({paths.SUMMARY.name})"
    files.write_bytes(paths.SUMMARY, picture)
    files.write_text(paths.REPORT, paragraphs("# Was the tuning worth it?", findings, image) + "\n")
    files.write_text(paths.CARD, tested_card(run, tuned, verdict(baseline, tuned, run.main)))


if __name__ == "__main__":
    errors.run(main)
