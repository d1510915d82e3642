"""report: was the tuning worth it? Words and a figure, from the metrics files and the test rows' answers.

    python -m stages.report                 verdict, comparison, errors; also written to metrics/report.md
                                            (`dvc repro` prints the verdict alone)
    python -m stages.report --rev main      the same and what changed since that revision; writes nothing
    python -m stages.report --gate          exit status 1 if the gate of params.yaml is not passed

Reads metrics/{data,encode,baseline,evaluate}.json, metrics/plots, data/predictions/{test,suspects}.csv and
models/adapter/run.json. Writes metrics/report.md and its figure, metrics/summary.png; and metrics/card.md: the
adapter's model card with its test results, which `stages.export` writes too. Computes nothing and loads no model, so it
takes seconds.
"""

import argparse
import json
import os
import sys

import pandas as pd

from stages.adapters.run import Run
from stages.common import errors, files, paths, progress
from stages.params import Params
from stages.reporting import figure, history, tables
from stages.reporting.markdown import paragraphs
from stages.reporting.tested_card import tested_card
from stages.reporting.verdict import (
    ONE_SEED,
    abstention_line,
    calibration_line,
    gate_line,
    leak_warning,
    main_score_line,
    slices_line,
    strongest_rival,
    unmet_conditions,
    verdict,
)


def main() -> None:
    options = arguments()
    gate = Params.load().gate
    data, encode, baseline, tuned = (
        json.loads(path.read_text())
        for path in (paths.DATA_METRICS, paths.ENCODE_METRICS, paths.BASELINE_METRICS, paths.EVALUATE_METRICS)
    )
    run = Run.load(paths.ADAPTER)
    before = history.metrics_at(options.rev) if options.rev else None
    missed = unmet_conditions(gate, tuned, before, run.main)
    findings = sections(run, data=data, encode=encode, baseline=baseline, tuned=tuned, missed=missed)
    if options.rev:
        print(paragraphs(findings, history.changes(options.rev)))
    else:
        save(run, findings, baseline=baseline, tuned=tuned)
        show(findings)
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


def sections(run: Run, *, data: dict, encode: dict, baseline: dict, tuned: dict, missed: list[str]) -> str:
    """The report without title and figure.

    Args:
        data, encode, baseline, tuned: metrics/{data,encode,baseline,evaluate}.json.
        missed: the conditions of the gate that are not met.
    """
    answers, suspects = (
        pd.read_csv(path, dtype=str, keep_default_na=False)  # classes may look like numbers
        for path in (paths.TEST_PREDICTIONS, paths.SUSPECTS)
    )
    problem, main, choice = run.problem, run.main, run.params["evaluate"]["main"]
    return paragraphs(
        verdict(baseline, tuned, main),
        tables.comparison(baseline, tuned, rows=data["rows"], problem=problem, main=main),
        main_score_line(problem, main, choice, data["train"]),
        tables.by_seed(tuned["seeds"], kept=run.seed, main=main) if "seeds" in tuned else ONE_SEED,
        gate_line(missed),
        calibration_line(tuned),
        abstention_line(tuned),
        leak_warning(baseline, tuned, main),
        tables.errors(answers),
        tables.by_class(tuned["classes"], data["test"], problem) if "classes" in tuned else "",
        slices_line(tuned, main),
        tables.by_slice(tuned, main, strongest_rival(baseline, main)),
        tables.by_length(pd.read_csv(paths.EVALUATE_PLOTS / "length.csv"), main),
        tables.suspect_labels(suspects, answers, rows=data["rows"], problem=problem),
        tables.what_was_read(encode, data["rows"], windows=run.window_stride is not None),
        tables.data_counts(data, problem),
    )


def save(run: Run, findings: str, *, baseline: dict, tuned: dict) -> None:
    """Write the report, its figure and the model card."""
    picture, caption = figure.summary(run.problem, run.main, baseline=baseline, tuned=tuned, plots=paths.EVALUATE_PLOTS)
    image = f"![{caption}]({paths.SUMMARY.name})"
    files.write_bytes(paths.SUMMARY, picture)
    files.write_text(paths.REPORT, paragraphs("# Was the tuning worth it?", findings, image) + "\n")
    files.write_text(paths.CARD, tested_card(run, tuned, verdict(baseline, tuned, run.main)))


if __name__ == "__main__":
    errors.run(main)
