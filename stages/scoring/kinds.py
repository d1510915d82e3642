"""The kinds of problem, with their scores."""

from stages.scoring.multi_label import ScoredMultiLabel
from stages.scoring.regression import ScoredRegression
from stages.scoring.scored import ScoredProblem
from stages.scoring.single_label import ScoredSingleLabel

SCORED: dict[str, ScoredProblem] = {
    kind.name: kind() for kind in (ScoredSingleLabel, ScoredMultiLabel, ScoredRegression)
}
"""By the value of `data.problem`."""
