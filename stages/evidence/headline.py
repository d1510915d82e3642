"""The headline: what changed, in at most twelve values that need no explanation."""

from typing import Any

import numpy as np

from stages.common import files
from stages.common.rivals import STRONGEST_RIVAL, TUNED, UNTRAINED, ZERO_SHOT
from stages.evidence import significance
from stages.problems.main_score import MainScore
from stages.scoring.scored import ScoredProblem

P_VALUE_DIGITS = 2


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
        "p_value": files.rounded(over["p_value"], P_VALUE_DIGITS),
        "test_rows": len(labels),
    }
