"""How metrics are named and shown."""

import pytest

from stages.problems.kinds import PROBLEMS
from stages.reporting.wording import COMPARED, METRICS, ON_CARD, column_title, further_metrics


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_every_main_score_has_one_name_and_the_test_that_is_made(problem):
    for key, main in problem.main_scores.items():
        metric = METRICS[key]
        assert (main.key, main.name) == (key, metric.name)
        assert metric.test == ("exact McNemar test" if key == "accuracy" else "paired permutation test")
        assert metric.percent <= main.share


def test_the_accuracy_of_several_labels_is_the_share_of_exact_matches():
    assert column_title("accuracy", PROBLEMS["multi_label"]) == "exact match"
    assert column_title("accuracy", PROBLEMS["single_label"]) == "accuracy"
    assert column_title("pearson", PROBLEMS["regression"]) == "Pearson"


def test_every_listed_metric_has_a_name():
    assert set(COMPARED) | set(ON_CARD) <= set(METRICS)


def test_a_share_is_shown_in_percent_and_its_differences_in_points():
    accuracy = METRICS["accuracy"]
    assert (accuracy.number(0.877), accuracy.score(0.877)) == ("87.7", "87.7%")
    assert (accuracy.signed(0.02), accuracy.signed(-0.02)) == ("+2.0", "-2.0")
    assert accuracy.with_unit("+2.0") == "+2.0 points"
    assert accuracy.column_title("gain") == "gain, points"


def test_an_error_is_shown_in_the_numbers_own_scale():
    mae = METRICS["mae"]
    assert (mae.number(12.3456), mae.score(0.5)) == ("12.35", "0.5")
    assert (mae.signed(0.5), mae.with_unit("+0.5"), mae.column_title("gain")) == ("+0.5", "+0.5", "gain")


def test_further_columns_keep_their_order_and_leave_the_main_score_out():
    found = {"roc_auc": 0.9, "f1_macro": 0.8, "accuracy": 0.7, "unnamed": 1.0}
    assert further_metrics(COMPARED, found, "accuracy") == ["f1_macro", "roc_auc"]
    assert further_metrics(COMPARED, found, "f1_samples") == ["accuracy", "f1_macro", "roc_auc"]
