"""The tuned model's gain over several seeds of the training, tested over rows and seeds.

Another sample of rows and another seed would both give another gain. That is the situation of a reader study, where
several readers judge the same cases: here the seeds are the readers and the rows are the cases.
"""

from typing import Any

import numpy as np
from scipy import stats

from stages.evidence import permutation
from stages.evidence.significance import BOUNDS, agreeing, of_strongest
from stages.problems.main_score import MainScore, RowMean


def over_seeds(
    main: MainScore, *, labels: np.ndarray, tuned: dict[int, Any], rivals: dict[str, Any]
) -> dict[str, float | dict]:
    """The main score of every seed's model, and its gain over the strongest rival.

    Args:
        labels: of the rows; tuned: the predictions of each seed's model; rivals: those of each rival, by its name.

    Returns:
        `mean` and `std` (standard deviation over the seeds) of the main score; those of the gain, `gain` and
        `gain_std`; its interval and p-value, see `gain_over_seeds` and `of_strongest`; and `by_seed`, score and gain of
        each seed. Of a score that is no mean over rows, the p-value is at least the median of those that the seeds have
        in the permutation test over rows: a few rows may decide it, and then its variance says little.
    """
    values = np.array([main.value(labels, predictions) for predictions in tuned.values()])
    of_rows = np.stack([main.of_each(labels, predictions) for predictions in tuned.values()])
    tested = {}
    for name, rival in rivals.items():
        found = main.sign * (values.mean() - main.value(labels, rival))
        tested[name] = gain_over_seeds(main.sign * (of_rows - main.of_each(labels, rival)), found)
        if not isinstance(main, RowMean):
            alone = [permutation.p_value(main, labels=labels, one=answers, other=rival) for answers in tuned.values()]
            tested[name]["p_value"] = max(tested[name]["p_value"], float(np.median(alone)))
        tested[name] = agreeing(main, tested[name])
    over_strongest = of_strongest(main, tested)
    gains = main.sign * (values - values.mean()) + over_strongest["gain"]
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)),
        "gain_std": float(gains.std(ddof=1)),
        **over_strongest,
        "by_seed": {
            str(seed): {main.key: float(value), "gain": float(gain)}
            for seed, value, gain in zip(tuned, values, gains, strict=True)
        },
    }


def gain_over_seeds(differences: np.ndarray, gain: float) -> dict[str, float]:
    """The mean gain, its 95 % interval, and the two-sided p-value of the hypothesis that it is 0.

    Seeds and rows are both random: an analysis of variance of two random factors without replication (Dorfman, Berbaum
    and Metz 1992), with the degrees of freedom of Hillis (2007). The variance of the mean of k x n differences is
    estimated by (MS_seeds + max(MS_rows - MS_rest, 0)) / (k n), with the mean squares of the table of differences: of
    its seeds, its rows, and what is left. Two bounds make the test cautious where there are few seeds or rows: MS_seeds
    counts as at least MS_rest, as the variance between seeds cannot be negative; and the degrees of freedom are at
    most n - 1, those of a paired t-test over the rows.

    Args:
        differences: (seeds, rows), at least two of each: how much better each seed's model is than the rival on each
            row; for a score that is not a mean over rows, the difference of `MainScore.of_each`.
        gain: the mean gain; of a score that is a mean over rows, the mean of `differences`.

    Returns:
        `gain`, `gain_low`, `gain_high`, `p_value`. If all differences are equal there is no variance to estimate;
        the p-value is then that of the exact sign test over the rows.
    """
    seeds, rows = differences.shape
    gain = float(gain)
    if np.ptp(differences) == 0:
        return {"gain": gain, "gain_low": gain, "gain_high": gain, "p_value": 2.0 ** (1 - rows) if gain else 1.0}
    of_seed, of_row = differences.mean(axis=1, keepdims=True), differences.mean(axis=0, keepdims=True)
    rest = np.square(differences - of_seed - of_row + differences.mean()).sum() / ((seeds - 1) * (rows - 1))
    between_seeds = max(rows * of_seed.var(ddof=1), rest)
    total = between_seeds + max(seeds * of_row.var(ddof=1) - rest, 0)
    freedom = min((seeds - 1) * (total / between_seeds) ** 2 if between_seeds else np.inf, rows - 1)
    error = np.sqrt(total / (seeds * rows))
    low, high = gain + error * stats.t.ppf(BOUNDS, freedom)
    p_value = 2 * stats.t.sf(abs(gain) / error, freedom)
    return {"gain": gain, "gain_low": float(low), "gain_high": float(high), "p_value": float(p_value)}
