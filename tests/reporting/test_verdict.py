"""The verdict, the gate and the warnings."""

import pytest
from conftest import ROOT
from reporting import outputs

from stages.common import paths
from stages.evidence.change import Change
from stages.params import Params
from stages.problems.kinds import PROBLEMS
from stages.reporting import verdict

SINGLE = PROBLEMS["single_label"].main_scores["accuracy"]
NUMBER = PROBLEMS["regression"].main_scores["mae"]
MAE = {"median": {"mae": 9.0}, "bag_of_words": {"mae": 3.0}}
TUNED = {
    "mae": 2.5,
    "gain": {"strongest_rival": 0.5},
    "gain_low": {"strongest_rival": 0.1},
    "gain_high": {"strongest_rival": 0.9},
    "p_value": {"strongest_rival": 0.01},
    "interval": {"mae": {"low": 2.0, "high": 2.9}},
}


def tuned(**changes):
    return outputs.tuned("single_label", **changes)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            "single_label",
            "**Tuning was worth it**: tuned minus the strongest rival (linear_probe) is +3.0 points of accuracy, "
            "95 % interval +1.0 to +5.0, p = 0.004 (exact McNemar test; one seed; highest p of 4 rivals).",
        ),
        (
            "multi_label",
            "**Tuning was worth it**: tuned minus the strongest rival (linear_probe) is +3.0 points of row F1, "
            "95 % interval +1.0 to +5.0, p = 0.004 (paired permutation test; one seed; highest p of 3 rivals).",
        ),
        (
            "regression",
            "**Tuning was worth it**: the strongest rival (bag_of_words) minus tuned is +0.03 of MAE, "
            "95 % interval +0.01 to +0.05, p = 0.004 (paired permutation test; one seed; highest p of 3 rivals).",
        ),
    ],
)
def test_the_verdict_names_the_strongest_rival_the_interval_and_the_p_value(problem, expected):
    found = verdict.verdict(outputs.baseline(problem), outputs.tuned(problem), outputs.run(problem).main)
    assert found == expected


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            "single_label",
            "**Tuning was worth it**: tuned minus the strongest rival (linear_probe) is +2.0 ± 0.5 points of accuracy, "
            "95 % interval +0.5 to +3.5, p = 0.03 (mean of 2 seeds; test over rows and seeds; highest p of 4 rivals).",
        ),
        (
            "regression",
            "**Tuning was worth it**: the strongest rival (bag_of_words) minus tuned is +0.02 ± 0.005 of MAE, "
            "95 % interval +0.005 to +0.035, p = 0.03 (mean of 2 seeds; test over rows and seeds; highest p of 3 "
            "rivals).",
        ),
    ],
)
def test_with_several_seeds_the_verdict_is_about_their_mean(problem, expected):
    found = verdict.verdict(outputs.baseline(problem), outputs.tuned_with_seeds(problem), outputs.run(problem).main)
    assert found == expected


@pytest.mark.parametrize("found", [{"p_value": 0.2}, {"gain": -0.02}])
def test_a_gain_of_the_kept_adapter_that_the_seeds_do_not_share_is_no_evidence_and_fails_the_gate(found):
    tuned = outputs.tuned_with_seeds("single_label", **found)
    assert tuned["p_value"]["strongest_rival"] < 0.05
    said = "Tuning made it worse" if "gain" in found else "No evidence of a gain"
    line = verdict.verdict(outputs.baseline("single_label"), tuned, SINGLE)
    assert line.startswith(f"**{said}**: tuned minus ")
    assert ("rows and seeds; p corrected for 4 rivals)" in line) == ("gain" in found)
    gate = outputs.OPEN.model_copy(update={"min_gain": 0.0, "max_p_value": 0.05})
    missed = verdict.unmet_conditions(gate, tuned, None, SINGLE)
    assert f"expected a p-value of at most 0.05 (gate.max_p_value), found {found.get('p_value', 1)}" in missed
    assert ("(gate.min_gain)" in missed[0]) == ("gain" in found)


def test_the_verdict_on_numbers_speaks_of_errors():
    assert verdict.verdict(MAE, TUNED, NUMBER) == (
        "**Tuning was worth it**: the strongest rival (bag_of_words) minus tuned is +0.5 of MAE, 95 % interval +0.1 to "
        "+0.9, p = 0.01 (paired permutation test; one seed; highest p of 2 rivals)."
    )


@pytest.mark.parametrize(
    ("key", "strongest", "said"),
    [
        ("f1_macro", "linear_probe", "tuned minus the strongest rival (linear_probe) is +3.0 points of macro-F1"),
        ("mcc", "linear_probe", "tuned minus the strongest rival (linear_probe) is +0.03 of MCC"),
        ("log_loss", "zero_shot", "the strongest rival (zero_shot) minus tuned is +0.03 of log loss"),
    ],
)
def test_the_verdict_follows_the_main_score(key, strongest, said):
    baseline = outputs.baseline("single_label")
    baseline[strongest]["log_loss"] = 0.1
    sentence = verdict.verdict(baseline, tuned(), PROBLEMS["single_label"].main_scores[key])
    assert said in sentence
    assert sentence.endswith("p = 0.004 (paired permutation test; one seed; highest p of 4 rivals).")


def test_the_main_score_is_named_with_the_reason_for_the_choice():
    counts, scores = {"a": 4000, "b": 100}, PROBLEMS["single_label"].main_scores
    line = verdict.main_score_line(PROBLEMS["single_label"], scores["f1_macro"], "auto", counts)
    assert line == (
        "Main score: macro-F1 (`evaluate.main: auto`). The most frequent class has 4,000 training rows, the rarest "
        "100; from 3 times as many on it is macro-F1, as accuracy hardly depends on rare classes."
    )
    line = verdict.main_score_line(PROBLEMS["single_label"], scores["mcc"], "mcc", counts)
    assert line == "Main score: MCC (`evaluate.main: mcc`)."
    line = verdict.main_score_line(PROBLEMS["regression"], NUMBER, "auto", {"mean": 3.0})
    assert line == "Main score: MAE (`evaluate.main: auto`)."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"p_value": 0.2}, "No evidence of a gain"),
        ({"gain": -0.03, "p_value": 0.2}, "No evidence of a gain"),
        ({"gain": 0.0, "p_value": 0.004}, "No evidence of a gain"),
        ({"gain": -0.433, "p_value": 3.04e-8}, "Tuning made it worse"),
    ],
)
def test_without_significance_there_is_no_evidence_and_a_proven_loss_is_called_one(found, said):
    sentence = verdict.verdict(outputs.baseline("single_label"), tuned(**found), SINGLE)
    assert sentence.startswith(f"**{said}**: tuned minus the strongest rival (linear_probe) is ")


def change(before: float, after: float, *, sign: int = 1, p_value: float | None = 0.004, **fields) -> Change:
    """A change whose interval is 0.02 wide; p_value: None for an unpaired one, with intervals of 0.04 around both."""
    gain = sign * (after - before)
    paired = {"gain": gain, "gain_low": gain - 0.01, "gain_high": gain + 0.02, "p_value": p_value}
    intervals = tuple({"low": score - 0.02, "high": score + 0.02} for score in (before, after))
    options = {"rows": 60, "same_rows": True, "paired": paired if p_value is not None else None} | fields
    return Change(before=before, after=after, intervals=intervals, **options)


@pytest.mark.parametrize(
    ("found", "main", "said"),
    [
        (
            change(0.5167, 0.95, p_value=3.04e-8),
            SINGLE,
            "**accuracy 51.7 → 95.0 % (+43.3 points, p = 3e-08) against main**: better, by the exact McNemar test on "
            "the same 60 test rows (95 % interval +42.3 to +45.3). Another seed may differ.",
        ),
        (
            change(0.95, 0.5167, p_value=3.04e-8),
            SINGLE,
            "**accuracy 95.0 → 51.7 % (-43.3 points, p = 3e-08) against main**: worse, by the exact McNemar test on "
            "the same 60 test rows (95 % interval -44.3 to -41.3). Another seed may differ.",
        ),
        (
            change(0.95, 0.9499, p_value=1.0),
            SINGLE,
            "**accuracy 95.0 → 95.0 % (+0.0 points, p = 1) against main**: no evidence of a difference, by the exact "
            "McNemar test on the same 60 test rows (95 % interval -1.0 to +2.0). Another seed may differ.",
        ),
        (
            change(2.5, 2.25, sign=-1),
            NUMBER,
            "**MAE 2.5 → 2.25 (-0.25, p = 0.004) against main**: better, by the paired permutation test on the "
            "same 60 test rows (95 % interval -0.27 to -0.24). Another seed may differ.",
        ),
        (
            change(0.8, 0.9, p_value=None),
            SINGLE,
            "**accuracy 80.0 → 90.0 % (+10.0 points) against main**: better, as the 95 % intervals do not overlap "
            "(78.0 to 82.0, now 88.0 to 92.0). Unpaired: the answers of main are neither in DVC's cache nor in a "
            "remote; a paired test on the same rows would find smaller differences.",
        ),
        (
            change(0.9, 0.91, p_value=None),
            PROBLEMS["single_label"].main_scores["roc_auc"],
            "**ROC AUC 0.9 → 0.91 (+0.01) against main**: no evidence of a difference, as the 95 % intervals overlap "
            "(0.88 to 0.92, now 0.89 to 0.93). Unpaired: ROC AUC needs the probabilities of all answers, which "
            "data/predictions/test.csv does not have; a paired test on the same rows would find smaller differences.",
        ),
        (
            change(0.9, 0.8, same_rows=False, p_value=None),
            SINGLE,
            "**accuracy 90.0 → 80.0 % against main, not comparable: data changed.** The test rows, or their labels, "
            "are not those of main, so `gate.max_drop` is not checked.",
        ),
        (None, SINGLE, "**Nothing to compare with**: main has no accuracy."),
    ],
)
def test_the_change_is_said_with_its_test_or_why_there_is_none(found, main, said):
    assert verdict.change_line(found, "main", main) == said


@pytest.mark.parametrize(
    ("found", "main", "missed"),
    [
        (
            change(0.9, 0.87, p_value=0.3),
            SINGLE,
            "expected a drop in accuracy of at most 0.02 (gate.max_drop), found 0.03",
        ),
        (change(0.9, 0.89), SINGLE, "expected no significant drop in accuracy (gate.max_drop), found 0.01"),
        (change(0.9, 0.89, p_value=0.3), SINGLE, None),
        (change(0.9, 0.95), SINGLE, None),
        (change(0.9, 0.5, same_rows=False, p_value=None), SINGLE, None),
        (
            change(2.0, 2.5, sign=-1, p_value=0.3),
            NUMBER,
            "expected a rise in MAE, as a share of it, of at most 0.02 (gate.max_drop), found 0.25",
        ),
        (change(200.0, 203.0, sign=-1, p_value=0.3), NUMBER, None),
        (change(200.0, 200.01, sign=-1, p_value=1e-9), NUMBER, None),
        (None, SINGLE, None),
    ],
)
def test_the_gate_as_committed_fails_where_the_change_made_the_model_worse_and_nowhere_else(found, main, missed):
    gate = Params.load(ROOT / paths.PARAMS).gate
    values = TUNED if main is NUMBER else tuned(gain=-0.01, p_value=0.3)  # a rival is as good
    assert verdict.unmet_conditions(gate, values, found, main) == ([missed] if missed else [])
    open_gate = gate.model_copy(update={"max_drop": None})
    assert verdict.unmet_conditions(open_gate, values, found, main) == []


def test_a_promise_that_the_test_rows_break_fails_the_gate():
    kept = {"target": 0.95, "rows": 100, "threshold": 0.9, "answered": 0.8, "accuracy": 0.9, "low": 0.88, "high": 0.96}
    assert verdict.unmet_conditions(outputs.OPEN, tuned() | {"abstention": kept}, None, SINGLE) == []
    (missed,) = verdict.unmet_conditions(outputs.OPEN, tuned() | {"abstention": kept | {"high": 0.94}}, None, SINGLE)
    assert missed == "expected the accuracy that `evaluate.target_accuracy` promises, found significantly less"


@pytest.mark.parametrize(
    ("bound", "found", "missed"),
    [
        ({"min_accuracy": 0.9}, {}, "expected an accuracy of at least 0.9 (gate.min_accuracy), found 0.87"),
        (
            {"min_gain": 0.05},
            {},
            "expected a gain over the strongest rival of at least 0.05 (gate.min_gain), found 0.03",
        ),
        ({"max_p_value": 0.05}, {"p_value": 0.3}, "expected a p-value of at most 0.05 (gate.max_p_value), found 0.3"),
        ({"max_p_value": 0.05}, {"gain": -0.1}, "expected a p-value of at most 0.05 (gate.max_p_value), found 1"),
    ],
)
def test_each_bound_of_the_gate_is_checked_alone(bound, found, missed):
    gate = outputs.OPEN.model_copy(update=bound)
    assert verdict.unmet_conditions(outputs.OPEN, tuned(**found), None, SINGLE) == []
    assert verdict.unmet_conditions(gate, tuned(**found), None, SINGLE) == [missed]
    assert verdict.unmet_conditions(gate, tuned(gain=0.06, accuracy=0.95), None, SINGLE) == []


def test_a_bound_of_the_gate_is_in_the_units_of_the_numbers():
    gate = outputs.OPEN.model_copy(update={"min_gain": 1.0})
    missed = "expected a gain over the strongest rival of at least 1 (gate.min_gain), found 0.5"
    assert verdict.unmet_conditions(gate, TUNED, None, NUMBER) == [missed]


def test_the_gates_line_lists_every_miss():
    assert verdict.gate_line([]) == "Gate: passed."
    assert verdict.gate_line(["expected a, found b", "expected c, found d"]) == (
        "Gate: failed: expected a, found b; expected c, found d."
    )


@pytest.mark.parametrize(
    ("validated", "rows", "warned"),
    [
        (0.99, {"validation": 500, "test": 500}, True),
        (0.98, {"validation": 500, "test": 500}, False),
        (0.99, {"validation": 50, "test": 500}, False),  # few rows may be right by chance
        (0.50, {"validation": 500, "test": 500}, False),  # better on the test rows
    ],
)
def test_a_score_far_below_that_of_the_validation_rows_is_a_warning(validated, rows, warned):
    found = tuned() | {"interval": {"accuracy": {"low": 0.83, "high": 0.91}}}  # a standard error of 2 points
    warning = verdict.shift_warning({"accuracy": validated}, found, PROBLEMS["single_label"], SINGLE, rows=rows)
    assert bool(warning) == warned
    told = "Warning: accuracy is 99.0% on the 500 validation rows but 87.0% on the 500 test rows, which chance does not"
    assert warning.startswith(told) or not warned


@pytest.mark.parametrize(("validated", "warned"), [(1.2, True), (1.3, False), (9.0, False)])
def test_an_error_far_above_that_of_the_validation_rows_is_one_too(validated, warned):
    rows = {"validation": 500, "test": 500}
    warning = verdict.shift_warning({"mae": validated}, TUNED, PROBLEMS["regression"], NUMBER, rows=rows)
    assert bool(warning) == warned


@pytest.mark.parametrize(("log_loss", "warned"), [(0.1, True), (0.25, False)])
def test_of_macro_f1_which_few_rows_may_decide_the_log_loss_takes_the_place(log_loss, warned):
    problem, rows = PROBLEMS["multi_label"], {"validation": 500, "test": 500}
    found = outputs.tuned("multi_label") | {"interval": {"log_loss": {"low": 0.17, "high": 0.23}}}
    validated = {"f1_macro": 0.99, "log_loss": log_loss}
    warning = verdict.shift_warning(validated, found, problem, problem.main_scores["f1_macro"], rows=rows)
    assert bool(warning) == warned
    assert warning.startswith("Warning: log loss is 0.1 on the 500 validation rows but 0.2 on the 500") or not warned


def test_a_bag_of_words_that_all_seeds_together_beat_is_no_warning():
    baseline, found = outputs.baseline("single_label"), outputs.tuned_with_seeds("single_label", p_value=0.2)
    baseline["bag_of_words"]["interval"]["accuracy"] = {"low": 0.6, "high": 0.8}
    found["p_value"] = dict.fromkeys(found["p_value"], 0.2)
    assert verdict.leak_warning(baseline, found, SINGLE)
    found["seeds"]["p_value"] = 0.01
    assert not verdict.leak_warning(baseline, found, SINGLE)


@pytest.mark.parametrize(
    ("low", "gain", "p_value", "warned"),
    [
        (0.6, 0.01, 0.2, True),
        (0.6, -0.01, 0.01, True),
        (0.6, 0.01, 0.01, False),  # the tuned model is better
        (0.5, 0.01, 0.2, False),  # nothing that words tell
    ],
)
def test_a_bag_of_words_that_keeps_up_is_a_warning_where_it_tells_the_classes_apart(low, gain, p_value, warned):
    baseline, found = outputs.baseline("single_label"), tuned()
    baseline["bag_of_words"]["interval"]["accuracy"] = {"low": low, "high": 0.8}
    for rival in ("bag_of_words", "strongest_rival"):
        found["gain"][rival], found["p_value"][rival] = gain, p_value
    warning = verdict.leak_warning(baseline, found, SINGLE)
    assert bool(warning) == warned
    assert warning.startswith("Warning: bag_of_words, which only counts words, scores 70.0%, and the") or not warned


@pytest.mark.parametrize(
    ("area", "of_probe", "warned"),
    [
        (0.52, 0.7, True),
        (0.49, 0.7, False),  # more macro-F1 than a constant answer, as random answers have it, and no knowledge
        (0.52, 0.85, False),  # another rival is better
        (None, 0.7, True),  # all test rows are of one class
    ],
)
def test_a_bag_of_words_is_a_warning_only_if_it_knows_something_and_no_rival_knows_more(area, of_probe, warned):
    baseline, found = outputs.baseline("single_label"), tuned()
    baseline["bag_of_words"]["interval"]["accuracy"] = {"low": 0.6, "high": 0.8}
    baseline["linear_probe"]["interval"]["accuracy"] = {"low": of_probe, "high": 0.9}
    if area is not None:
        baseline["bag_of_words"]["interval"]["roc_auc"] = {"low": area, "high": 0.9}
    for rival in ("bag_of_words", "strongest_rival"):
        found["gain"][rival], found["p_value"][rival] = 0.01, 0.2
    assert bool(verdict.leak_warning(baseline, found, SINGLE)) == warned


@pytest.mark.parametrize(("high", "warned"), [(8.9, True), (9.0, False)])
def test_a_bag_of_words_with_a_lower_error_than_the_median_is_one_too(high, warned):
    baseline, found = outputs.baseline("regression"), outputs.tuned("regression")
    baseline["bag_of_words"]["interval"]["mae"] = {"low": 2.0, "high": high}
    for rival in ("bag_of_words", "strongest_rival"):
        found["gain"][rival], found["p_value"][rival] = 0.1, 0.3
    assert bool(verdict.leak_warning(baseline, found, NUMBER)) == warned


def test_the_calibration_error_is_shown_where_there_is_one():
    before = {"uncalibrated": {"calibration_error": 0.04}, "calibration_error": 0.02}
    assert verdict.calibration_line(before) == (
        "Expected calibration error of the tuned model: 0.040 as trained, 0.020 with the temperature fitted on the "
        "validation rows."
    )
    assert verdict.calibration_line({"uncalibrated": {"log_loss": 0.4}}) == verdict.calibration_line({}) == ""


@pytest.mark.parametrize(
    ("problem", "main", "said"),
    [
        ("single_label", SINGLE, "a drop in accuracy from all test rows to the slice `lang = de*` of at most 0.2"),
        ("regression", NUMBER, "a rise in MAE from all test rows to the slice `lang = de*` of at most 0.2"),
    ],
)
def test_the_gate_names_the_slice_that_falls_behind(problem, main, said):
    gate, wide = (outputs.OPEN.model_copy(update={"max_slice_drop": bound}) for bound in (0.2, 0.3))
    values = outputs.tuned_with_slices(problem)
    missed = f"expected {said} (gate.max_slice_drop), found 0.25"
    assert verdict.unmet_conditions(gate, values, None, main) == [missed]
    assert verdict.unmet_conditions(wide, values, None, main) == []
    assert verdict.unmet_conditions(outputs.OPEN, values, None, main) == []
    none = ["expected a slice with enough test rows in and outside it (gate.max_slice_drop), found none"]
    assert verdict.unmet_conditions(gate, outputs.tuned(problem), None, main) == none
    assert verdict.unmet_conditions(outputs.OPEN, outputs.tuned(problem), None, main) == []


def test_what_became_of_the_promised_accuracy_is_said_in_a_line():
    promise = {"target": 0.95, "rows": 1012, "threshold": 0.91342, "answered": 0.823}
    kept = promise | {"accuracy": 0.962, "low": 0.946, "high": 0.973}
    line = verdict.abstention_line({"abstention": kept, "sets": {"coverage": 0.954, "mean_size": 1.416}})
    assert line == (
        "**Answer only when sure**: at least 95 % of the answers with a probability above 0.91342 are right, with 95 % "
        "confidence, by the 1,012 rows kept for this alone. Of the test rows 82.3 % are answered so. Of these answers "
        "96.2 % are right (95 % interval 94.6 to 97.3). Sets of classes, made to contain the true class for 95 % of "
        "the texts, contain it for 95.4 % of the test rows, with 1.42 classes on average."
    )
    assert verdict.abstention_line({}) == ""


def test_a_broken_promise_and_one_that_cannot_be_made_are_said_plainly():
    broken = {"target": 0.95, "rows": 1012, "threshold": 0.9, "answered": 0.8, "accuracy": 0.9, "low": 0.88}
    assert "That is less than promised" in verdict.abstention_line({"abstention": broken | {"high": 0.92}})
    assert "less than promised" not in verdict.abstention_line({"abstention": broken | {"high": 0.95}})
    none = {"target": 0.999, "rows": 100, "threshold": 1.0, "answered": 0.0}
    assert verdict.abstention_line({"abstention": none}) == (
        "**Answer only when sure**: no threshold is proven, by the 100 rows kept for this alone, to make 99.9 % of the "
        "answers right, so nothing is answered; lower `evaluate.target_accuracy`, or raise `data.split.calibration`."
    )
