"""What the test rows prove: verdict, change since a revision, gate, calibration, abstention, warnings."""

from collections.abc import Iterator

import numpy as np

from stages.common.paths import TEST_PREDICTIONS
from stages.common.rivals import BAG_OF_WORDS, STRONGEST_RIVAL, TUNED, bag, constant
from stages.common.texts import literal
from stages.evidence.change import Change
from stages.problems.main_score import AUTO, SIGNIFICANT, MainScore, RowMean
from stages.problems.problem import Problem
from stages.reporting.params import Gate
from stages.reporting.wording import METRICS

VERDICTS = {1: "Tuning was worth it", 0: "No evidence of a gain", -1: "Tuning made it worse"}
"""By what is `proven` of the gain over the strongest rival."""

CHANGES = {1: "better", 0: "no evidence of a difference", -1: "worse"}
"""By what is proven of the gain over the model of another revision."""

FAR_APART = 4
"""Standard errors between validation and test score beyond what chance, and choices by the validation rows, give."""

ONE_SEED = (
    "One seed: with another the gain may differ. `dvc exp run -S 'train.seeds=[42,1,2]'` trains with three seeds and "
    "tests the gain over rows and seeds."
)
"""What the report says instead of the gain of each seed."""


def verdict(baseline: dict, tuned: dict, main: MainScore) -> str:
    """One sentence: the gain over the strongest rival, its interval and p-value, and what they prove.

    With several seeds it is about the mean of all of them; with one, it says so.

    Args:
        baseline: metrics/baseline.json; tuned: metrics/evaluate.json.
    """
    metric = METRICS[main.key]
    over = tuned.get("seeds")
    gain, low, high, p_value = evidence(tuned)
    pair = [TUNED, f"the strongest rival ({strongest_rival(baseline, main)})"][:: main.sign]
    found = VERDICTS[proven(gain, p_value)]
    shown = metric.signed_mean(gain, over["gain_std"]) if over else metric.signed(gain)
    test = f"mean of {len(over['by_seed'])} seeds; test over rows and seeds" if over else f"{metric.test}; one seed"
    of_rivals = f"{'p corrected for' if gain < 0 else 'highest p of'} {len(baseline)} rivals"
    return (
        f"**{found}**: {' minus '.join(pair)} is {metric.with_unit(shown)} of {metric.name}, 95 % "
        f"interval {metric.signed(low)} to {metric.signed(high)}, p = {p_value:.2g} ({test}; {of_rivals})."
    )


def proven(gain: float, p_value: float) -> int:
    """1: a gain is significant; -1: a loss is; 0: neither."""
    return 0 if p_value >= SIGNIFICANT else (gain > 0) - (gain < 0)


def change_line(change: Change | None, rev: str, main: MainScore) -> str:
    """The main score at another revision and now, and what the difference proves.

    Args:
        change: None if the revision has no such score; rev: what the revision is called.
    """
    metric = METRICS[main.key]
    if change is None:
        return f"**Nothing to compare with**: {rev} has no {metric.name}."
    scores = f"{metric.name} {metric.number(change.before)} → {metric.number(change.after)} {metric.mark}".rstrip()
    if not change.same_rows:
        return (
            f"**{scores} against {rev}, not comparable: data changed.** The test rows, or their labels, are not those "
            f"of {rev}, so `gate.max_drop` is not checked."
        )
    step = metric.with_unit(metric.signed(change.after - change.before))
    p_value = f", p = {change.paired['p_value']:.2g}" if change.paired else ""
    found = CHANGES[change_proven(change, main)]
    reason = paired_test(change, main) if change.paired else two_intervals(change, rev, main)
    return f"**{scores} ({step}{p_value}) against {rev}**: {found}{reason}"


def paired_test(change: Change, main: MainScore) -> str:
    """Which test was made, and the interval of the change."""
    metric = METRICS[main.key]
    low, high = (main.sign * change.paired[end] for end in ("gain_low", "gain_high")[:: main.sign])
    return (
        f", by the {metric.test} on the same {change.rows:,} test rows (95 % interval {metric.signed(low)} to "
        f"{metric.signed(high)}). Another seed may differ."
    )


def two_intervals(change: Change, rev: str, main: MainScore) -> str:
    """What the intervals of both scores show, and why there is no paired test."""
    metric = METRICS[main.key]
    before, after = (f"{metric.number(ends['low'])} to {metric.number(ends['high'])}" for ends in change.intervals)
    overlap = "do not overlap" if change_proven(change, main) else "overlap"
    why = (
        f"the answers of {rev} are neither in DVC's cache nor in a remote"
        if main.from_answers
        else f"{metric.name} needs the probabilities of all answers, which {TEST_PREDICTIONS} does not have"
    )
    return (
        f", as the 95 % intervals {overlap} ({before}, now {after}). Unpaired: {why}; a paired test on the same rows "
        "would find smaller differences."
    )


def change_proven(change: Change, main: MainScore) -> int:
    """1: the model is significantly better than that of the other revision; -1: worse; 0: neither.

    Without a paired test, it is so if the two intervals do not overlap.
    """
    if not change.same_rows:
        return 0
    if change.paired:
        return proven(change.paired["gain"], change.paired["p_value"])
    before, after = change.intervals
    return main.sign * ((after["low"] > before["high"]) - (after["high"] < before["low"]))


def strongest_rival(baseline: dict, main: MainScore) -> str:
    """The name of the rival with the best main score.

    Args:
        baseline: metrics/baseline.json.
    """
    return max(baseline, key=lambda name: main.sign * baseline[name][main.key])


def evidence(tuned: dict) -> tuple[float, float, float, float]:
    """The gain over the strongest rival, its interval and its p-value: over rows and seeds, if there are several seeds.

    Args:
        tuned: metrics/evaluate.json.
    """
    keys = ("gain", "gain_low", "gain_high", "p_value")
    return tuple(tuned["seeds"][key] if "seeds" in tuned else tuned[key][STRONGEST_RIVAL] for key in keys)


def main_score_line(problem: Problem, main: MainScore, choice: str, counts: dict[str, float]) -> str:
    """Which score the models are compared by, and why.

    Args:
        choice: `evaluate.main`; counts: of the training rows, from metrics/data.json.
    """
    why = problem.why_main(counts) if choice == AUTO else ""
    return f"Main score: {METRICS[main.key].name} (`evaluate.main: {choice}`). {why}".rstrip()


def unmet_conditions(gate: Gate, tuned: dict, change: Change | None, main: MainScore) -> list[str]:
    """The conditions of the gate that are not met, in words; and a promised accuracy that is proven to be broken.

    Where there is no gain, the p-value counts as 1: it would be evidence of a loss. With several seeds, gain and
    p-value are those over all seeds; accuracy and change are those of the kept adapter.

    Args:
        tuned: metrics/evaluate.json; change: since the revision compared with, if any.
    """
    accuracy, (gain, _, _, p_value) = tuned.get("accuracy"), evidence(tuned)
    p_value = p_value if gain > 0 else 1
    checks = [
        ("min_accuracy", accuracy, "an accuracy of at least", lambda bound: accuracy >= bound),
        ("min_gain", gain, "a gain over the strongest rival of at least", lambda bound: gain >= bound),
        ("max_p_value", p_value, "a p-value of at most", lambda bound: p_value <= bound),
    ]
    a_drop = f"a {'drop' if main.sign > 0 else 'rise'} in {METRICS[main.key].name}"
    if "slices" in tuned:
        name, scores = worst_slice(tuned["slices"], main)
        below = main.sign * (tuned[main.key] - scores[main.key])
        step = f"{a_drop} from all test rows to the slice {name} of at most"
        checks.append(("max_slice_drop", below, step, lambda bound: below <= bound))
    if change and change.same_rows:
        drop = drop_of(change, main)
        of_what = "" if main.sign > 0 else ", as a share of it,"
        checks.append(("max_drop", drop, f"{a_drop}{of_what} of at most", lambda bound: drop <= bound))
    missed = [
        f"expected {expected} {bound:g} (gate.{key}), found {value:.4g}"
        for key, value, expected, passes in checks
        if (bound := getattr(gate, key)) is not None and not passes(bound)
    ]
    # an error's rise can be significant at any size, if it is in every row: only `max_drop` bounds it
    significant = main.sign > 0 and change and change_proven(change, main) < 0
    if significant and gate.max_drop is not None and drop <= gate.max_drop:
        missed.append(f"expected no significant {a_drop.removeprefix('a ')} (gate.max_drop), found {drop:.4g}")
    if gate.max_slice_drop is not None and "slices" not in tuned:
        missed.append("expected a slice with enough test rows in and outside it (gate.max_slice_drop), found none")
    if promise_is_broken(tuned.get("abstention", {})):
        missed.append("expected the accuracy that `evaluate.target_accuracy` promises, found significantly less")
    return missed


def drop_of(change: Change, main: MainScore) -> float:
    """How much worse the main score became; of a loss, which has no upper bound, as a share of what it was."""
    drop = main.sign * (change.before - change.after)
    return drop if main.sign > 0 else drop / max(change.before, np.finfo(float).tiny)


def worst_slice(slices: dict[str, dict[str, dict]], main: MainScore) -> tuple[str, dict]:
    """The slice with the worst main score, as `column = value`, and its scores.

    Args:
        slices: `slices` of metrics/evaluate.json.
    """
    return min(named_slices(slices).items(), key=lambda item: main.sign * item[1][main.key])


def named_slices(slices: dict[str, dict[str, dict]]) -> dict[str, dict]:
    """The scores of each slice, by `column = value` as Markdown."""
    return {
        literal(f"{column} = {value}"): scores
        for column, by_value in slices.items()
        for value, scores in by_value.items()
    }


def gate_line(missed: list[str]) -> str:
    """Whether the gate of params.yaml is passed."""
    return "Gate: " + (f"failed: {'; '.join(missed)}." if missed else "passed.")


def calibration_line(tuned: dict) -> str:
    """What the temperature did to the tuned model's probabilities; nothing where none was fitted."""
    if "calibration_error" not in tuned.get("uncalibrated", {}):
        return ""
    before, after = (scores["calibration_error"] for scores in (tuned["uncalibrated"], tuned))
    return (
        f"Expected calibration error of the tuned model: {before:.3f} as trained, {after:.3f} with the temperature "
        "fitted on the validation rows."
    )


def abstention_line(tuned: dict) -> str:
    """Above which probability answers are right as often as `evaluate.target_accuracy` promises, and what became of the
    promise on the test rows; nothing where nothing is promised.

    Args:
        tuned: metrics/evaluate.json.
    """
    if "abstention" not in tuned:
        return ""
    found = tuned["abstention"]
    target, rows = f"{100 * found['target']:.4g} %", f"{found['rows']:,} rows kept for this alone"
    if found["threshold"] >= 1:
        sentences = [
            f"no threshold is proven, by the {rows}, to make {target} of the answers right, so nothing is answered; "
            "lower `evaluate.target_accuracy`, or raise `data.split.calibration`."
        ]
    else:
        sentences = [
            f"at least {target} of the answers with a probability above {found['threshold']:.5g} are right, with 95 % "
            f"confidence, by the {rows}.",
            f"Of the test rows {100 * found['answered']:.1f} % are answered so.",
            *outcome(found),
        ]
    if "sets" in tuned:
        sentences.append(
            f"Sets of classes, made to contain the true class for {target} of the texts, contain it for "
            f"{100 * tuned['sets']['coverage']:.1f} % of the test rows, with {tuned['sets']['mean_size']:.2f} classes "
            "on average."
        )
    return f"**Answer only when sure**: {' '.join(sentences)}"


def outcome(found: dict) -> Iterator[str]:
    """How many of the answered test rows are right, and whether the promise is broken.

    Args:
        found: `abstention` of metrics/evaluate.json.
    """
    if "accuracy" in found:
        accuracy, low, high = (f"{100 * found[key]:.1f}" for key in ("accuracy", "low", "high"))
        yield f"Of these answers {accuracy} % are right (95 % interval {low} to {high})."
        if promise_is_broken(found):
            yield "That is less than promised: the rows kept for the threshold differ from the test rows."


def promise_is_broken(found: dict) -> bool:
    """Whether the test rows prove that answers are right less often than promised.

    Args:
        found: `abstention` of metrics/evaluate.json, or nothing.
    """
    return "accuracy" in found and found["high"] < found["target"]


def shift_warning(validated: dict, tuned: dict, problem: Problem, main: MainScore, *, rows: dict[str, int]) -> str:
    """A warning where the test rows seem to be of another kind than the validation rows, as the main score is far worse
    on them; else nothing. A main score that few rows may decide, as it is no mean over them, gives way to the log loss.

    Args:
        validated: the scores on the validation rows; tuned: metrics/evaluate.json; rows: of each split.
    """
    main = main if isinstance(main, RowMean) else problem.main_scores["log_loss"]
    before, after, ends = (scores[main.key] for scores in (validated, tuned, tuned["interval"]))
    # a 95 % interval is about four standard errors wide; that of the validation rows would be wider, as they are fewer
    error = (ends["high"] - ends["low"]) / 4 * np.sqrt(1 + rows["test"] / rows["validation"])
    if main.sign * (before - after) <= FAR_APART * error:
        return ""
    name, score = METRICS[main.key].name, METRICS[main.key].score
    return (
        f"Warning: {name} is {score(before)} on the {rows['validation']:,} validation rows but {score(after)} on the "
        f"{rows['test']:,} test rows, which chance does not explain: the test rows are of another kind than those "
        "learned from, such as another source, time or way of labelling."
    )


def leak_warning(baseline: dict, tuned: dict, main: MainScore) -> str:
    """A warning where a rival that only counts words tells the labels apart, and the tuned model is not proven to do it
    better; else nothing.

    Args:
        baseline: metrics/baseline.json; tuned: metrics/evaluate.json.
    """
    rival = bag(baseline)
    gain, _, _, p_value = evidence(tuned)  # over all seeds, and then over every rival
    beaten = proven(tuned["gain"][rival], tuned["p_value"][rival]) > 0 or proven(gain, p_value) > 0
    if beaten or not tells_most(baseline, rival, main):
        return ""
    counted = "words" if rival == BAG_OF_WORDS else "strings of characters"
    score = METRICS[main.key].score(baseline[rival][main.key])
    return (
        f"Warning: {rival}, which only counts {counted}, scores {score}, and the tuned model is not proven to be "
        f"better: single {counted} decide this task, or they reveal the label."
    )


def tells_most(baseline: dict, rival: str, main: MainScore) -> bool:
    """Whether a rival is proven to tell the labels apart, and no other one to do it better.

    Args:
        baseline: metrics/baseline.json; rival: its name.
    """
    worst, best = ("low", "high")[:: main.sign]
    intervals = {name: scores["interval"][main.key] for name, scores in baseline.items()}
    better_than_constant = main.sign * intervals[rival][worst] > main.sign * baseline[constant(baseline)][main.key]
    # answers by chance may have more macro-F1 than the same answer to every text
    area = baseline[rival]["interval"].get("roc_auc", {"low": 1.0})
    surpassed = any(main.sign * ends[worst] > main.sign * intervals[rival][best] for ends in intervals.values())
    return better_than_constant and area["low"] > 0.5 and not surpassed
