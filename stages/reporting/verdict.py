"""What the test rows prove: the verdict in a sentence, the gate, calibration, abstention, and a warning of leaks."""

from collections.abc import Iterator

from stages.common.rivals import BAG_OF_WORDS, STRONGEST_RIVAL, TUNED
from stages.problems.main_score import AUTO, MainScore
from stages.problems.problem import Problem
from stages.reporting.markdown import literal
from stages.reporting.params import Gate
from stages.reporting.wording import METRICS

SIGNIFICANT = 0.05
"""The p-value below which a gain counts as significant."""

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
    proven = "Tuning was worth it" if gain > 0 and p_value < SIGNIFICANT else "No evidence of a gain"
    shown = metric.signed_mean(gain, over["gain_std"]) if over else metric.signed(gain)
    test = f"mean of {len(over['by_seed'])} seeds; test over rows and seeds" if over else f"{metric.test}; one seed"
    return (
        f"**{proven}**: {' minus '.join(pair)} is {metric.with_unit(shown)} of {metric.name}, 95 % "
        f"interval {metric.signed(low)} to {metric.signed(high)}, p = {p_value:.2g} ({test})."
    )


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


def unmet_conditions(gate: Gate, tuned: dict, before: dict | None, main: MainScore) -> list[str]:
    """The conditions of the gate that are not met, in words.

    Where there is no gain, the p-value counts as 1: it would be evidence of a loss. With several seeds, gain and
    p-value are those over all seeds; accuracy and drop are those of the kept adapter.

    Args:
        tuned: metrics/evaluate.json; before: the same at the revision compared with, if any.
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
        change = f"{a_drop} from all test rows to the slice {name} of at most"
        checks.append(("max_slice_drop", below, change, lambda bound: below <= bound))
    if before and main.key in before:
        drop = main.sign * (before[main.key] - tuned[main.key])
        checks.append(("max_drop", drop, f"{a_drop} of at most", lambda bound: drop <= bound))
    return [
        f"expected {expected} {bound:g} (gate.{key}), found {value:.4g}"
        for key, value, expected, passes in checks
        if (bound := getattr(gate, key)) is not None and not passes(bound)
    ]


def worst_slice(slices: dict[str, dict[str, dict]], main: MainScore) -> tuple[str, dict]:
    """The slice with the worst main score, as `column = value`, and its scores.

    Args:
        slices: `slices` of metrics/evaluate.json.
    """
    return min(named_slices(slices).items(), key=lambda item: main.sign * item[1][main.key])


def named_slices(slices: dict[str, dict[str, dict]]) -> dict[str, dict]:
    """The scores of each slice, by `column = value`."""
    return {
        literal(f"{column} = {value}"): scores
        for column, by_value in slices.items()
        for value, scores in by_value.items()
    }


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
    others = (
        f"Proven to be worse than the other rows: {'; '.join(proven)}"
        if proven
        else ("No slice is proven to be worse than the other rows")
    )
    return (
        f"Worst slice: {name}, {metric.name} {metric.score(worst[main.key])} on {worst['rows']:,} test rows, "
        f"{metric.score(worst['rest'])} on the others, p = {worst['p_value']:.2g}. {others} (p-values corrected for "
        f"{len(slices)} slices by Holm's method)."
    )


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
            f"at least {target} of the answers with a probability above {found['threshold']:.4f} are right, with 95 % "
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
        if found["high"] < found["target"]:
            yield "That is less than promised: the rows kept for the threshold differ from the test rows."


def leak_warning(baseline: dict, tuned: dict, main: MainScore) -> str:
    """A warning where a rival blind to word order scores within the tuned model's interval or better; else nothing."""
    metric, score, interval = METRICS[main.key], baseline[BAG_OF_WORDS][main.key], tuned["interval"][main.key]
    worst, best = (interval[end] for end in ("low", "high")[:: main.sign])
    if main.sign * score < main.sign * worst:
        return ""
    better = "above" if main.sign > 0 else "below"
    place = "within" if main.sign * score <= main.sign * best else better
    return (
        f"Warning: {BAG_OF_WORDS}, which ignores word order, scores {metric.score(score)}, {place} the tuned model's "
        f"interval ({metric.number(interval['low'])} to {metric.number(interval['high'])}): single words decide this "
        "task, or they reveal the label."
    )
