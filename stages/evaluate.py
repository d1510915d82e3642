"""evaluate: the tuned model on the test rows, and its gain over each rival.

    python -m stages.evaluate

Reads models/base, models/adapter and models/seeds, the test rows of data/prepared and data/encoded, their slices, and
the predictions of `baseline`. Writes metrics/evaluate.json (the tuned model's scores and their 95 % intervals, and its
gain over each rival in the main score, with interval and p-value; with several seeds also `seeds`: every seed's score,
and the gain over the strongest rival, tested over rows and seeds; with `data.slices` also `slices`: the scores of each
slice, by column and value; and `run`: the sha256 of the adapter's run.json); metrics/headline.json, the few of these
values that `dvc metrics` lists; data/predictions/test.csv (row, text, label, probability, every model's answer;
`words`: for the wrong answers with the highest confidence, the words that speak most for them); and metrics/plots, the
tables that `dvc plots` and the report draw: a file for each chart, without rows where the problem has no use for it.
`tuned` is the model in models/adapter.

With `evaluate.target_accuracy` it also reads the rows of data/encoded/calibration, writes the thresholds that they give
to models/abstention.json, and adds to metrics/evaluate.json what becomes of the promises on the test rows
(`abstention`, with three or more classes also `sets`).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peft import PeftModel
from transformers import PreTrainedModel

from stages.adapters.load import load
from stages.adapters.run import Run
from stages.backbone import base, parallel, prefix, store
from stages.classifier import inference
from stages.common import errors, files, paths, progress, texts
from stages.common.rivals import STRONGEST_RIVAL, TUNED, UNTRAINED, ZERO_SHOT
from stages.compute import engine
from stages.evidence import abstention, intervals, seeds, significance, slices
from stages.evidence.abstention import Abstention
from stages.params import Params
from stages.problems.main_score import MainScore
from stages.scoring import plots
from stages.scoring.kinds import SCORED
from stages.scoring.params import Evaluate
from stages.scoring.scored import ScoredProblem, score
from stages.serving import evaluated, reasons
from stages.serving.answers import Classifier

PROBABILITY_SCORES = ("log_loss", "brier", "calibration_error")
"""The scores that the temperature changes; it changes no answer."""

EXPLAINED = 5
"""Wrong answers whose words are looked for: as many as the report shows."""

CHARACTERS = 4_000
"""Read for the words of one answer, over all passes: it bounds the time, however long the texts are."""

FEWEST_PARTS = 8
"""Into which even a long text is split, each of some neighbouring words."""


def main() -> None:
    params, run = Params.load(), Run.load(paths.ADAPTER)
    base.quiet_transformers()
    about, options = store.About.load(paths.ENCODED), params.evaluate
    problem, names = SCORED[about.problem], about.class_names
    rows = store.load_rows(paths.ENCODED / "test", about)
    labels, given, rivals = rows.text_labels, read_texts(rows), read_rivals(problem, rows)
    progress.say(f"evaluate: the tuned model on {len(labels):,} test texts")
    with parallel.spread_over(engine.workers(params.compute)):
        logits = tuned_logits(paths.ADAPTER, rows, options.batch_size)
        others = other_seeds(problem, rows, options.batch_size)
        sure = thresholds(problem, about, options)
    tuned = problem.decide(problem.outputs(logits), run.thresholds)
    # without temperature scaling: `train` divided the head's weights by the temperature
    before = problem.decide(problem.outputs(logits * run.temperature), run.thresholds)
    predictions = rivals | {TUNED: tuned}
    metrics = measure(problem, run.main, labels, names, predictions=predictions, uncalibrated=before, options=options)
    metrics |= further_metrics(problem, run, rows, tuned=tuned, others=others, rivals=rivals, sure=sure)
    drawn = {"uncalibrated": before, "lengths": rows.text_lengths, "names": names, "most": options.curve_points}

    save_plots(plots.tables(problem, run.main, labels, predictions, **drawn))
    abstention.save(paths.ABSTENTION, sure)
    save_predictions(given, problem, labels, predictions, names)
    files.write_metrics(paths.EVALUATE_METRICS, metrics | {"run": abstention.fingerprint(paths.ADAPTER)})
    found = headline(problem, run.main, labels, predictions, metrics=metrics)
    files.write_metrics(paths.HEADLINE, found)
    progress.say(f"evaluate: {described(found, run.main)}")


def further_metrics(
    problem: ScoredProblem,
    run: Run,
    rows: store.Rows,
    *,
    tuned: Any,
    others: dict[int, Any],
    rivals: dict[str, Any],
    sure: Abstention | None,
) -> dict[str, Any]:
    """The entries of metrics/evaluate.json that not every run has: `seeds`, `slices`, `abstention`, `sets`.

    Args:
        rows: the test rows; tuned, rivals: predictions for them; others: those of the other seeds, by seed.
        sure: the thresholds of `evaluate.target_accuracy`.
    """
    labels, found = rows.text_labels, {}
    if others:
        of_seeds = {run.seed: tuned} | others
        found["seeds"] = seeds.over_seeds(run.main, labels=labels, tuned=of_seeds, rivals=rivals)
    if of_slices := slices.by_slice(problem, run.main, read_slices(rows), labels=labels, tuned=tuned, rivals=rivals):
        found["slices"] = of_slices
    return found | (sure.measured(tuned, labels) if sure else {})


def described(found: dict, main: MainScore) -> str:
    """What was found, in a line; `found`: metrics/headline.json."""
    gain, p_value = found["gain_over_strongest_rival"], found["p_value"]
    return f"{main.name} {found['tuned'][main.key]:.4g}, gain over the strongest rival {gain:+.4g} (p = {p_value:.2g})"


def headline(
    problem: ScoredProblem, main: MainScore, labels: np.ndarray, predictions: dict[str, Any], *, metrics: dict
) -> dict[str, float | dict[str, float]]:
    """The main score before tuning, of the strongest rival and after tuning; the gain, and how sure it is.

    With several seeds the gain is their mean, and its p-value is over rows and seeds; `tuned` is the kept adapter.

    Args:
        labels: of the rows; predictions: every model's, by the model's name; metrics: metrics/evaluate.json.
    """
    rivals = {name: values for name, values in predictions.items() if name != TUNED}
    before = problem.scores(labels, rivals.get(ZERO_SHOT, rivals[UNTRAINED]))
    strongest = significance.strongest(main, labels=labels, rivals=rivals)
    compared = (main.key, next(key for key in problem.compared if key != main.key))
    over = metrics.get("seeds") or {key: metrics[key][STRONGEST_RIVAL] for key in ("gain", "p_value")}
    return {
        "before_tuning": {key: before[key] for key in compared},
        "strongest_rival": {main.key: main.value(labels, strongest)},
        "tuned": {key: metrics[key] for key in dict.fromkeys((*compared, *problem.after_tuning))},
        "tuned_interval": metrics["interval"][main.key],
        "gain_over_strongest_rival": over["gain"],
        "p_value": files.rounded(over["p_value"], digits=2),
        "test_rows": len(labels),
    }


def read_texts(rows: store.Rows) -> pd.DataFrame:
    """The test rows' numbers in the source and their texts; checked to be the rows that were encoded."""
    path = paths.PREPARED / "test.parquet"
    given = files.load(path, pd.read_parquet).filter(["row", *texts.COLUMNS])
    rows.check_same_rows(given["row"], path)
    return given


def read_rivals(problem: ScoredProblem, rows: store.Rows) -> dict[str, Any]:
    """Every rival's predictions for the test rows."""
    table = files.load(paths.BASELINE_PREDICTIONS, pd.read_parquet)
    rows.check_same_rows(table.pop("row"), paths.BASELINE_PREDICTIONS)
    return {name: problem.predictions(column) for name, column in table.items()}


def read_slices(rows: store.Rows) -> slices.Slices:
    """Which test rows belong to each slice, by its column and value."""
    members = {}
    for column, of_rows in files.load(paths.SLICES, pd.read_parquet).groupby("column", sort=False):
        rows.check_same_rows(of_rows["row"], paths.SLICES)
        members |= {(column, value): (of_rows["value"] == value).to_numpy() for value in sorted(set(of_rows["value"]))}
    return members


def tuned_logits(adapter: Path, rows: store.Rows, batch_size: int) -> np.ndarray:
    """The logits of the model in a folder, (texts, outputs), from the stored states unless it changes all layers or
    they have 16 bits: then from the tokens, as `predict` computes them."""
    run = Run.load(adapter)
    depth = run.depth if run.states_are_exact else 0
    model = parallel.loaded(partial(tuned_model, adapter, depth))
    if not depth:
        rows = replace(rows, states=None)
    return rows.pooled(inference.logits(model, rows, batch_size=batch_size, progress="evaluate"))


def tuned_model(adapter: Path, depth: int) -> PreTrainedModel | PeftModel:
    """The model in a folder, spliced at the depth of the stored states."""
    model = load(adapter)
    prefix.splice(model, depth)
    return model


def other_seeds(problem: ScoredProblem, rows: store.Rows, batch_size: int) -> dict[int, Any]:
    """The predictions of the models in models/seeds, by seed; each is loaded after the one before is done."""
    folders = {int(folder.name): folder for folder in paths.SEEDS.iterdir() if folder.is_dir()}
    return {
        seed: problem.decide(problem.outputs(tuned_logits(folder, rows, batch_size)), Run.load(folder).thresholds)
        for seed, folder in sorted(folders.items())
    }


def thresholds(problem: ScoredProblem, about: store.About, options: Evaluate) -> Abstention | None:
    """The thresholds that keep the promise of `evaluate.target_accuracy`, from the rows kept for them.

    None: there is no promise.
    """
    if options.target_accuracy is None:
        return None
    rows = store.load_rows(paths.ENCODED / "calibration", about)
    probabilities = problem.outputs(tuned_logits(paths.ADAPTER, rows, options.batch_size))
    return Abstention.calibrated(probabilities, rows.text_labels, target=options.target_accuracy, adapter=paths.ADAPTER)


def measure(
    problem: ScoredProblem,
    main: MainScore,
    labels: np.ndarray,
    class_names: list[str],
    *,
    predictions: dict[str, Any],
    uncalibrated: Any,
    options: Evaluate,
) -> dict[str, float | dict]:
    """The tuned model's scores, with intervals and by class, and its gain over each rival and over the strongest.

    Args:
        labels: the labels of the rows.
        predictions: every model's predictions, by the model's name.
        uncalibrated: the tuned model's predictions without temperature scaling.
    """
    tuned = predictions[TUNED]
    gains = {
        name: significance.gain(main, labels=labels, tuned=tuned, rival=rival)
        for name, rival in predictions.items()
        if name != TUNED
    }
    gains[STRONGEST_RIVAL] = significance.of_strongest(main, gains)
    parts = {
        "classes": problem.class_scores(labels, tuned, class_names),
        "interval": intervals.intervals(problem, labels=labels, predictions=tuned, resamples=options.resamples),
        "uncalibrated": {
            name: value for name, value in score(problem, labels, uncalibrated).items() if name in PROBABILITY_SCORES
        },
    }
    return {
        **score(problem, labels, tuned),
        **{name: part for name, part in parts.items() if part},
        **{
            key: {name: values[key] for name, values in gains.items()}
            for key in ("gain", "gain_low", "gain_high", "p_value")
        },
    }


def named_answers(
    problem: ScoredProblem, labels: np.ndarray, predictions: dict[str, Any], class_names: list[str]
) -> pd.DataFrame:
    """The true answers and every model's in readable form, one column each; of the models, the tuned one first."""
    answers = {name: problem.answers(values, class_names) for name, values in predictions.items()}
    return pd.DataFrame({"label": problem.truth(labels, class_names), TUNED: answers[TUNED]} | answers)


def words_of_errors(problem: ScoredProblem, labels: np.ndarray, tuned: Any, given: pd.DataFrame) -> np.ndarray:
    """For the wrong answers with the highest confidence, or the numbers with the largest errors, the words that speak
    most for them, (rows,) str; nothing for the other rows.

    Args:
        given: the texts of the rows.
    """
    errors = problem.row_errors(labels, tuned)
    confidence = problem.confidence(tuned).get("probability", errors)
    worst = [index for index in np.argsort(-confidence, kind="stable") if errors[index] > 0][:EXPLAINED]
    directions = np.sign(tuned - labels) if problem.numeric else np.ones(len(labels))
    most = np.maximum(CHARACTERS // texts.joined(given).str.len(), FEWEST_PARTS)
    found, inputs = np.full(len(labels), "", dtype=object), texts.as_inputs(given)
    classifier = Classifier.tuned(evaluated.Model()) if worst else None
    for index in worst:
        why = reasons.reasons_for_one(classifier, inputs[index], most=most[index])
        found[index] = ", ".join(texts.shortened(word, 40) for word in why.speaking(directions[index]))
    return found


def save_plots(tables: dict[str, pd.DataFrame]) -> None:
    """Write metrics/plots."""
    with files.replacing(paths.EVALUATE_PLOTS) as folder:
        for name, table in tables.items():
            files.write_table(folder / f"{name}.csv", table)


def save_predictions(
    given: pd.DataFrame, problem: ScoredProblem, labels: np.ndarray, predictions: dict[str, Any], names: list[str]
) -> None:
    """Write data/predictions/test.csv.

    Args:
        given: the rows' numbers and texts; labels: of the rows; predictions: every model's, by the model's name.
        names: of the classes.
    """
    table, tuned = named_answers(problem, labels, predictions, names), predictions[TUNED]
    for column, values in problem.confidence(tuned).items():
        table.insert(2, column, values)
    table["words"] = words_of_errors(problem, labels, tuned, given)
    files.write_text(paths.TEST_PREDICTIONS, given.join(table).to_csv(index=False))


if __name__ == "__main__":
    errors.run_script(main, __doc__)
