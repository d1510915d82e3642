"""The report's tables."""

import json

import pandas as pd
import pytest
from conftest import ROOT
from reporting import outputs

from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import MainScore
from stages.reporting import tables

SINGLE, SEVERAL, NUMBER = (PROBLEMS[name] for name in ("single_label", "multi_label", "regression"))
ROWS = {"train": 3000, "test": 1000}


def comparison(name: str) -> list[str]:
    return tables.comparison(
        outputs.baseline(name), outputs.tuned(name), rows=ROWS, problem=PROBLEMS[name], main=outputs.run(name).main
    ).splitlines()


def test_the_table_sorts_the_rivals_and_shows_what_was_gained_over_each():
    lines = comparison("single_label")
    assert "3,000 training rows, 1,000 test rows" in lines[0]
    names = ["majority", "bag_of_words", "zero_shot", "linear_probe", "**tuned**"]
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in names]
    assert lines[5] == "| linear_probe | 84.0% (79.0 to 87.0) | 0.840 | 0.680 | 0.400 | 0.900 | +3.0 | 0.004 |"
    assert lines[6] == "| **tuned** | 87.0% (82.0 to 90.0) | 0.860 | 0.740 | 0.300 | 0.950 |  |  |"
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("single_label", "accuracy (95 % interval) | macro-F1 | MCC | log loss | ROC AUC | tuned gains, points | p |"),
        (
            "multi_label",
            "row F1 (95 % interval) | exact match | micro-F1 | macro-F1 | log loss | ROC AUC | tuned gains, points "
            "| p |",
        ),
        ("regression", "MAE (95 % interval) | RMSE | R² | Pearson | Spearman | tuned gains | p |"),
    ],
)
def test_the_columns_are_those_of_the_metrics_that_there_are(name, titles):
    assert comparison(name)[0] == f"| 3,000 training rows, 1,000 test rows | {titles}"


def test_another_main_score_has_the_first_column_and_gives_the_order():
    baseline, tuned = outputs.baseline("single_label"), outputs.tuned("single_label")
    baseline["bag_of_words"]["mcc"] = 0.7
    lines = tables.comparison(baseline, tuned, rows=ROWS, problem=SINGLE, main=SINGLE.main_scores["mcc"]).splitlines()
    assert " | MCC (95 % interval) | accuracy | macro-F1 | log loss | ROC AUC | tuned gains | p |" in lines[0]
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| linear_probe", "| bag_of_words"]
    assert lines[6] == "| **tuned** | 0.74 (0.69 to 0.77) | 0.870 | 0.860 | 0.300 | 0.950 |  |  |"


def test_texts_that_were_read_whole_take_one_sentence():
    rows = outputs.data("single_label")["rows"]
    read = [tables.what_was_read(outputs.encode(cut=False), rows, windows=windows) for windows in (False, True)]
    assert read == [
        "Every text was read to its end, within `encode.max_length`, 256 tokens.",
        "Every text was read to its end, in windows of at most 256 tokens.",
    ]


def test_where_texts_were_cut_the_share_and_the_cost_of_other_choices_are_shown():
    rows = outputs.data("single_label")["rows"]
    sentence, _, *lines = tables.what_was_read(outputs.encode(cut=True), rows, windows=False).splitlines()
    assert sentence.startswith(
        "30 of 3,008 texts were cut to `encode.max_length`, 256 tokens: 10.0% of all tokens were not read. "
    )
    assert lines == [
        "| `encode.max_length` | tokens read | tokens to run, relative | stored states, GB |",
        "|---|---:|---:|---:|",
        "| 128 | 45.0% | 0.50 | 4.50 |",
        "| **256** | 90.0% | 1.00 | 9.00 |",
        "| 300 | 100.0% | 1.11 | 10.00 |",
        "| windows | 100.0% | 1.50 | 13.50 |",
    ]


def test_numbers_are_compared_in_their_own_scale_the_largest_error_first():
    lines = comparison("regression")
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| median",
        "| linear_probe",
        "| bag_of_words",
        "| **tuned**",
    ]
    assert lines[4] == "| bag_of_words | 3 (2.95 to 3.03) | 5 | 0.7 | 0.8 | 0.85 | +0.03 | 0.004 |"


def test_the_most_confident_errors_are_shown_with_what_was_corrected_and_broken():
    answers = pd.DataFrame(
        {
            "row": ["12", "7", "110", "3"],
            "text": ["fixed", "broken | here", "long " * 40, "right"],
            "label": ["bad", "bad", "good", "good"],
            "tuned": ["bad", "good", "bad", "good"],
            "probability": ["0.9", "0.8", "0.95", "0.99"],
            "zero_shot": ["good", "bad", "bad", "good"],
            "words": ["", "here, broken", "", ""],
        }
    )
    lines = tables.errors(answers).splitlines()
    assert lines[0] == (
        "Compared with the untouched model (zero_shot), tuning corrected 1 of 4 test rows and broke 1. Most common "
        "errors: `bad` taken for `good`, 1 row; `good` taken for `bad`, 1 row."
    )
    assert lines[2] == "Wrong answers with the highest confidence:"
    title = "| row | text | label | zero_shot | tuned | words that speak for tuned | probability |"
    assert lines[4:6] == [title, "|---|---|---|---|---|---|---:|"]
    assert lines[6].startswith("| 110 | `long long ")
    assert lines[6].endswith("long …` | `good` | `bad` | `bad` |  | 0.950 |")
    assert lines[7] == "| 7 | `broken \\| here` | `bad` | `bad` | `good` | `here, broken` | 0.800 |"
    assert lines[9] == "Corrected, with the highest confidence:"
    assert lines[13:] == ["| 12 | `fixed` | `bad` | `good` | `bad` | 0.900 |"]


def test_without_errors_or_corrections_there_is_no_empty_table():
    answers = outputs.answers("single_label")
    answers["tuned"] = answers["zero_shot"] = answers["label"]
    assert tables.errors(answers) == (
        "Compared with the untouched model (zero_shot), tuning corrected 0 of 4 test rows and broke 0. No answer is "
        "wrong."
    )


def test_common_errors_are_counted_and_without_a_zero_shot_model_the_untrained_one_is_untouched():
    answers = pd.DataFrame(
        {"label": ["a"] * 3, "tuned": ["b", "c", "b"], "untrained": ["a"] * 3, "probability": ["0.5", "0.6", "0.7"]}
    )
    text = tables.errors(answers.assign(row=["1", "2", "3"], text="x", words=""))
    assert "the untouched model (untrained), tuning corrected 0 of 3 test rows and broke 3." in text
    assert "Most common errors: `a` taken for `b`, 2 rows; `a` taken for `c`, 1 row." in text


def test_both_texts_of_a_pair_are_shown():
    answers = outputs.answers("single_label").assign(text="one", text_pair="other")
    assert "| `one other` |" in tables.errors(answers)


def beginning(text: str) -> str:
    """A text as the tables show it."""
    (shown,) = tables.beginnings(pd.DataFrame({"text": [text]}))
    return shown


def test_an_english_text_is_cut_between_two_words():
    text = "Nothing more than an amiable but unfocused bagatelle that plays like a loosely connected string of"
    assert beginning(f"{text} acting exercises.") == f"`{text} …`"
    assert beginning("short  text\nof two lines") == "`short text of two lines`"


@pytest.mark.parametrize(
    "text", ["这部电影温暖、有趣又充满智慧。" * 20, "https://example.org/" + "path/" * 40, "a" * 101]
)
def test_a_text_without_spaces_is_cut_after_a_number_of_characters(text):
    assert beginning(text) == f"`{text[:99]}…`"


def test_what_a_text_says_is_no_markup():
    answers = outputs.answers("single_label").assign(text="![](http://example.org) *so*", label="<b>", zero_shot="<b>")
    text = tables.errors(answers)
    assert "| `![](http://example.org) *so*` | `<b>` | `<b>` |" in text
    assert "`<b>` taken for `NA`, 2 rows" in text


def test_the_largest_errors_are_shown_beside_what_the_probe_did():
    lines = tables.errors(outputs.answers("regression")).splitlines()
    assert lines[0] == (
        "The tuned model is closer to the true number than the linear probe on 2 of 4 test rows, and farther from it "
        "on 1. Largest errors:"
    )
    columns = "| row | text | words that speak for the error | number | answer |"
    assert lines[2:4] == [columns, "|---|---|---|---:|---:|"]
    assert lines[4].startswith("| 110 | `long long ")
    assert lines[4].endswith(" …` | `long, long long` | 30 | 27 |")
    assert lines[5:] == [
        "| 3 | `last` |  | 40 | 41.5 |",
        "| 12 | `first` |  | 10 | 11 |",
        "| 7 | `second \\| here` | `here` | 20 | 20 |",
    ]


@pytest.mark.parametrize(("problem", "noun"), [(SINGLE, "class"), (SEVERAL, "label")])
def test_every_class_has_its_precision_recall_and_f1(problem, noun):
    scores = {"precision": 0.5, "recall": 1.0, "f1": 2 / 3}
    assert tables.by_class({"a": scores, "*b": scores}, {"a": 1200, "*b": 3}, problem).splitlines() == [
        f"| tuned, by {noun} | test rows | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|",
        "| `a` | 1,200 | 0.500 | 1.000 | 0.667 |",
        "| `*b` | 3 | 0.500 | 1.000 | 0.667 |",
    ]


@pytest.mark.parametrize(
    ("main", "title", "score"),
    [
        (SINGLE.main_scores["accuracy"], "accuracy", "75.0%"),
        (SINGLE.main_scores["mcc"], "MCC", "0.75"),
        (NUMBER.main_scores["mae"], "MAE", "0.75"),
    ],
)
def test_the_main_score_is_shown_by_length_of_the_models_that_there_are(main: MainScore, title, score):
    scores = pd.DataFrame({"tokens": [20, 75], "rows": [1204, 5], "tuned": [0.75, 0.5], "linear_probe": 0.25})
    lengths = scores.assign(bag_of_words=0.5).melt(["tokens", "rows"], var_name="model", value_name="score")
    lines = tables.by_length(lengths, main).splitlines()
    assert lines[0] == f"| {title}, by length | test rows | linear_probe | tuned |"
    assert lines[2].startswith("| up to 20 tokens | 1,204 |")
    assert lines[2].endswith(f" {score} |")
    assert len(lines) == 4


def test_every_row_of_the_source_is_accounted_for_in_words():
    data = json.loads((ROOT / "metrics/data.json").read_text())
    text = tables.data_counts(data, SINGLE)
    assert "| rows, by class | train | validation | test |" in text
    assert "| `negative` | 1,512 | 252 | 1,065 |" in text
    assert "Of 10,605 rows, these were left out: in no class 37; duplicate 2;" in text
    assert "conflicting labels" not in text


def test_the_statistics_of_numbers_are_shown():
    text = tables.data_counts(outputs.data("regression"), NUMBER)
    assert "| numbers | train | validation | test |" in text
    assert "| standard_deviation | 11.18 | 11.18 | 11.18 |" in text


def test_every_seeds_score_and_gain_are_shown_and_the_kept_adapter_is_named():
    seeds = outputs.tuned_with_seeds("single_label")["seeds"]
    table, words = tables.by_seed(seeds, kept=42, main=SINGLE.main_scores["accuracy"]).split("\n\n")
    assert table.splitlines() == [
        "| seed | accuracy | gain over the strongest rival, points |",
        "|---|---:|---:|",
        "| 42 (kept) | 87.0% | +3.0 |",
        "| 1 | 85.0% | +1.0 |",
        "| mean ± standard deviation | 87.0% ± 1.0 | +2.0 ± 0.5 |",
    ]
    assert words == "Everywhere else `tuned` is the kept adapter alone, the one that is best on the validation rows."
    numbers = tables.by_seed(outputs.tuned_with_seeds("regression")["seeds"], kept=1, main=NUMBER.main_scores["mae"])
    assert "| 1 (kept) | 2.48 | +0.01 |\n| mean ± standard deviation | 2.5 ± 0.01 | +0.02 ± 0.005 |" in numbers


def test_with_several_seeds_the_comparison_says_that_it_is_about_the_kept_adapter():
    tuned = outputs.tuned_with_seeds("single_label")
    main, baseline = SINGLE.main_scores["accuracy"], outputs.baseline("single_label")
    lines = tables.comparison(baseline, tuned, rows=ROWS, problem=SINGLE, main=main).splitlines()
    assert lines[0].endswith("| tuned gains, points | p, rows alone |")
    assert lines[-1].startswith("| **tuned** (kept) | 87.0% ")


def test_the_most_suspect_labels_are_shown_and_how_often_the_tuned_model_agrees_on_test_rows():
    rows = {"train": 3000, "validation": 40, "test": 4}
    text = tables.suspect_labels(
        outputs.suspects("single_label"), outputs.answers("single_label"), rows=rows, problem=SINGLE
    )
    assert text.splitlines()[:5] == [
        "Suspect labels, which linear probes trained on other rows contradict: train 1 of 3,000; validation 1 of 40; "
        "test 2 of 4 (data/predictions/suspects.csv). The tuned model agrees with the probes on 0 of the 2 in test. "
        "The most suspect:",
        "",
        "| row | split | text | label | likely | label quality |",
        "|---|---|---|---|---|---:|",
        "| 910 | train | `a \\| b` | `1` | `NA` | 0.0012 |",
    ]
    agreeing = outputs.answers("single_label").assign(tuned=["1", "1", "NA", "1"])
    text = tables.suspect_labels(outputs.suspects("single_label"), agreeing, rows=rows, problem=SINGLE)
    assert "The tuned model agrees with the probes on 2 of the 2 in test." in text


def test_of_many_suspect_labels_the_first_ten_are_shown_and_of_none_a_line():
    rows = {"train": 3000, "validation": 40, "test": 4}
    suspects, answers = outputs.suspects("multi_label"), outputs.answers("multi_label")
    text = tables.suspect_labels(pd.concat([suspects] * 5), answers, rows=rows, problem=SEVERAL)
    assert len(text.splitlines()) == 4 + 10
    assert "| `$praise` |" in text
    assert tables.suspect_labels(suspects[:0], answers, rows=rows, problem=SEVERAL) == (
        "Suspect labels: train 0 of 3,000; validation 0 of 40; test 0 of 4."
    )


def test_the_tuned_model_agrees_that_a_number_is_suspect_where_its_own_is_closer_to_the_likely_one():
    rows = {"train": 3000, "validation": 40, "test": 4}
    text = tables.suspect_labels(
        outputs.suspects("regression"), outputs.answers("regression"), rows=rows, problem=NUMBER
    )
    assert "on 1 of the 2 in test" in text
    agreeing = outputs.answers("regression").assign(tuned=["11", "40", "27", "41.5"])
    both = tables.suspect_labels(outputs.suspects("regression"), agreeing, rows=rows, problem=NUMBER)
    assert "on 2 of the 2 in test" in both
    assert "| 910 | train | `a \\| b` | 12.5 | 55.12 | 0.0012 |" in text


@pytest.mark.parametrize(
    ("name", "worst", "title"),
    [
        ("single_label", "| 62.0% (57.0 to 65.0) | 50.0% | +12.0 | 0.01 |", "accuracy"),
        ("regression", "| 2.75 (2.7 to 2.78) | 0.5 | -2.25 | 0.01 |", "MAE"),
    ],
)
def test_the_slices_are_shown_the_worst_first_beside_the_strongest_rival(name, worst, title):
    lines = tables.by_slice(outputs.tuned_with_slices(name), outputs.run(name).main, "linear_probe").splitlines()
    assert lines[0].startswith(
        f"| {title}, by slice | test rows | tuned (95 % interval, all slices together) | linear_pr"
    )
    assert lines[2] == f"| `lang = de*` | 300 {worst}"
    assert lines[3].startswith("| `lang = en_GB` | 1,700 |")
    assert tables.by_slice(outputs.tuned(name), outputs.run(name).main, "linear_probe") == ""


def test_the_worst_slice_is_named_and_proven_only_after_the_correction():
    main = outputs.run("single_label").main
    found = tables.slices_line(outputs.tuned_with_slices("single_label"), main)
    assert found == (
        "Worst slice: `lang = de*`, accuracy 62.0% on 300 test rows, 92.0% on the others, p = 0.01. Proven to be worse "
        "than the other rows: `lang = de*` (p-values corrected for 2 slices by Holm's method)."
    )
    found = tables.slices_line(outputs.tuned_with_slices("single_label", p_value=0.3), main)
    assert "62.0% on 300 test rows" in found
    assert "p = 0.3. No slice is proven to be worse than the other rows (p" in found
    assert tables.slices_line(outputs.tuned("single_label"), main) == ""


def test_the_worst_slice_of_errors_is_that_with_the_largest():
    found = tables.slices_line(outputs.tuned_with_slices("regression"), outputs.run("regression").main)
    assert found.startswith(
        "Worst slice: `lang = de*`, MAE 2.75 on 300 test rows, 2.45 on the others, p = 0.01. Proven"
    )
