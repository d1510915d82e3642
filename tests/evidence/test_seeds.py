"""The gain over seeds: by its formulas, by simulation, and with a known table."""

import numpy as np
import pytest
from scipy import stats

from stages.evidence import seeds
from stages.scoring.kinds import SCORED

SINGLE = SCORED["single_label"]
ACCURACY, MAE = SINGLE.main_scores["accuracy"], SCORED["regression"].main_scores["mae"]


def gained(table: np.ndarray) -> dict[str, float]:
    """The gain in a table of a score that is a mean over rows."""
    return seeds.gain_over_seeds(table, table.mean())


def test_without_a_true_gain_few_tests_claim_one_and_tests_that_ignore_the_seeds_claim_many():
    generator = np.random.default_rng(0)
    for count, rows in ((2, 100), (3, 200), (5, 200)):
        of_seed, of_row, rest = (
            generator.normal(size=(1000, *size)) for size in ((count, 1), (1, rows), (count, rows))
        )
        tables = 0.2 * of_seed + 0.5 * of_row + rest
        found = np.array([gained(table)["p_value"] for table in tables])
        assert (found < 0.05).mean() <= 0.07
        for over_rows in (tables.mean(axis=1), tables[:, 0]):
            assert (stats.ttest_1samp(over_rows, 0, axis=1).pvalue < 0.05).mean() > 0.2


def test_right_and_wrong_answers_keep_the_promise_too_and_a_true_gain_is_found():
    generator = np.random.default_rng(1)

    def claims(gain: float) -> float:
        return np.mean([gained(of_answers(generator, gain))["p_value"] < 0.05 for _ in range(500)])

    assert claims(0.0) <= 0.07
    assert claims(0.06) > 0.9


def of_answers(generator: np.random.Generator, gain: float) -> np.ndarray:
    """Differences of right answers, (seeds, rows); the seeds' true gains have `gain` as their mean."""
    rows, difficulty = 1000, generator.uniform(0.65, 0.9, size=1000)
    shift = gain + generator.uniform(-0.02, 0.02, size=(3, 1))
    luck, own = generator.uniform(size=rows), generator.uniform(size=(3, rows))
    shared = generator.uniform(size=(3, rows)) < 0.8  # most rows are answered as the rival answers them
    return (np.where(shared, luck, own) < difficulty + shift).astype(float) - (luck < difficulty)


def test_the_interval_excludes_0_exactly_where_the_p_value_is_below_5_percent():
    generator = np.random.default_rng(2)
    for _ in range(20):
        values = gained(generator.normal(size=(3, 30)) + generator.normal(size=(1, 30)) + 0.3)
        excluded = values["gain_low"] > 0 or values["gain_high"] < 0
        assert excluded == (values["p_value"] < 0.05)
        assert values["gain"] == pytest.approx((values["gain_low"] + values["gain_high"]) / 2)


def test_a_small_table_gives_what_its_mean_squares_say():
    table = np.array([[3.0, 1.0, 0.0], [9.0, 4.0, 5.0]])
    # the row means 6, 2.5, 2.5 and the seeds' means 4/3, 6 give MS_rows = 49/6, MS_seeds = 98/3, MS_rest = 7/6
    total = 98 / 3 + 49 / 6 - 7 / 6
    error, freedom = np.sqrt(total / 6), (total / (98 / 3)) ** 2
    values = gained(table)
    assert values["gain"] == pytest.approx(11 / 3)
    assert values["p_value"] == pytest.approx(2 * stats.t.sf(11 / 3 / error, freedom))
    assert values["gain_high"] == pytest.approx(11 / 3 + stats.t.ppf(0.975, freedom) * error)


def test_equal_seeds_add_nothing_and_the_test_is_the_paired_t_test_over_rows():
    differences = np.random.default_rng(3).normal(size=40) + 0.2
    values, paired = gained(np.tile(differences, (3, 1))), stats.ttest_1samp(differences, 0)
    assert values["p_value"] == pytest.approx(paired.pvalue)
    assert (values["gain_low"], values["gain_high"]) == pytest.approx(tuple(paired.confidence_interval()))


def test_the_interval_of_a_gain_that_few_rows_of_a_rare_class_decide_has_0():
    labels = (np.arange(200) < 4).astype(int)
    answers = [np.eye(2)[labels] for _ in range(3)]
    for number, one in enumerate(answers):
        one[10 + number] = [0, 1]
    rivals = {"majority": np.tile([0.9, 0.1], (200, 1))}
    tuned = dict(zip((42, 1, 2), answers, strict=True))
    found = seeds.over_seeds(SINGLE.main_scores["f1_macro"], labels=labels, tuned=tuned, rivals=rivals)
    assert found["p_value"] > 0.05
    assert found["gain_low"] <= 0 < found["gain"] < found["gain_high"] <= 1


def test_seeds_that_score_the_same_by_chance_prove_nothing():
    differences = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    assert gained(differences)["p_value"] > 0.05  # MS_seeds = MS_rows = 0, but the rows disagree


@pytest.mark.parametrize(("gain", "p_value"), [(0.0, 1.0), (0.1, 2.0**-7), (-0.1, 2.0**-7)])
def test_equal_differences_have_no_variance(gain, p_value):
    values = gained(np.full((3, 8), gain))
    assert values == pytest.approx({"gain": gain, "gain_low": gain, "gain_high": gain, "p_value": p_value})


def test_every_seed_is_held_against_the_strongest_rival():
    labels, wrong, right = np.zeros(10, dtype=int), [0.0, 1.0], [1.0, 0.0]
    models = {count: np.array([right] * count + [wrong] * (10 - count)) for count in range(11)}
    tuned, rivals = {42: models[9], 1: models[7]}, {"majority": models[5], "linear_probe": models[6]}
    found = seeds.over_seeds(ACCURACY, labels=labels, tuned=tuned, rivals=rivals)
    assert found["by_seed"] == {
        "42": pytest.approx({"accuracy": 0.9, "gain": 0.3}),
        "1": pytest.approx({"accuracy": 0.7, "gain": 0.1}),
    }
    scores = {key: found[key] for key in ("mean", "std", "gain", "gain_std")}
    assert scores == pytest.approx({"mean": 0.8, "std": np.sqrt(0.02), "gain": 0.2, "gain_std": np.sqrt(0.02)})
    assert found["gain_low"] < 0.2 < found["gain_high"]


def test_a_loss_against_the_best_of_several_rivals_is_corrected_for_their_number():
    generator = np.random.default_rng(4)
    labels = np.zeros(400, dtype=int)

    def model(right: float) -> np.ndarray:
        return np.eye(2)[(generator.random(400) > right).astype(int)]

    tuned, rivals = {1: model(0.7), 2: model(0.72)}, {"probe": model(0.8), "majority": model(0.5), "bag": model(0.6)}
    alone = seeds.over_seeds(ACCURACY, labels=labels, tuned=tuned, rivals={"probe": rivals["probe"]})
    among = seeds.over_seeds(ACCURACY, labels=labels, tuned=tuned, rivals=rivals)
    assert alone["gain"] == among["gain"] < 0
    assert among["p_value"] == pytest.approx(3 * alone["p_value"])


def test_an_error_is_reported_as_it_is_and_a_lower_one_is_a_gain():
    labels = np.array([1.0, 2.0, 3.0])
    found = seeds.over_seeds(
        MAE, labels=labels, tuned={1: labels + 0.5, 2: labels - [0, 0, 1.5]}, rivals={"median": labels + 2}
    )
    assert found["mean"] == pytest.approx(0.5)
    assert found["gain"] == pytest.approx(1.5)


def test_the_interval_lies_around_the_gain_where_the_score_is_no_mean_over_rows():
    generator, macro_f1 = np.random.default_rng(5), SINGLE.main_scores["f1_macro"]
    labels = np.array([0] * 40 + [1] * 30 + [2] * 2 + [3])
    models = [np.eye(4)[np.where(generator.random(73) < 0.7, labels, generator.integers(4, size=73))] for _ in range(4)]
    found = seeds.over_seeds(macro_f1, labels=labels, tuned=dict(enumerate(models[:3])), rivals={"probe": models[3]})
    assert found["gain_low"] + found["gain_high"] == pytest.approx(2 * found["gain"])
    values = [macro_f1.value(labels, one) for one in models]
    assert found["gain"] == pytest.approx(np.mean(values[:3]) - values[3])


def test_two_rows_that_decide_macro_f1_prove_no_gain_however_alike_the_seeds_are():
    labels = np.array([0] * 198 + [1] * 2)

    def answers(*, right: bool, wrong: int) -> np.ndarray:
        found = np.where(labels, int(right), 0)
        found[:wrong] = 1
        return np.eye(2)[found]

    tuned = {seed: answers(right=True, wrong=wrong) for seed, wrong in ((42, 1), (1, 1), (2, 0))}
    rivals = {"probe": answers(right=False, wrong=1)}
    found = seeds.over_seeds(SINGLE.main_scores["f1_macro"], labels=labels, tuned=tuned, rivals=rivals)
    assert found["gain"] > 0.2
    assert found["p_value"] > 0.2
