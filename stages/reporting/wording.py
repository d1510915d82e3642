"""How each metric is named and shown; keys are those of the metrics files."""

from dataclasses import dataclass

from stages.problems.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric in words."""

    name: str
    column: str = ""
    """Its title as a further column, if not `name`."""
    digits: str = ".3f"
    """How its value is formatted in a table's further columns."""
    percent: bool = False
    """Whether, as the main score, it is shown in percent and its differences in points."""
    test: str = "paired permutation test"
    """The test that gives the p-value of a gain."""

    @property
    def mark(self) -> str:
        """The unit sign after a value, if any."""
        return "%" if self.percent else ""

    @property
    def unit(self) -> str:
        """The unit of differences, if any."""
        return "points" if self.percent else ""

    def scaled(self, value: float) -> float:
        """A value as it is shown: a share in percent."""
        return 100 * value if self.percent else value

    def number(self, value: float) -> str:
        """A value of the main score, without its mark."""
        return f"{self.scaled(value):{'.1f' if self.percent else '.4g'}}"

    def score(self, value: float) -> str:
        """A value of the main score, with its mark."""
        return self.number(value) + self.mark

    def signed(self, value: float) -> str:
        """A difference, with its sign; `z`: never -0."""
        return f"{self.scaled(value):{'+z.1f' if self.percent else '+z.4g'}}"

    def mean(self, value: float, deviation: float) -> str:
        """A mean of the main score, with its mark, and the standard deviation."""
        return f"{self.score(value)} ± {self.number(deviation)}"

    def signed_mean(self, difference: float, deviation: float) -> str:
        """A mean difference, with its sign, and the standard deviation."""
        return f"{self.signed(difference)} ± {self.number(deviation)}"

    def with_unit(self, difference: str) -> str:
        """A difference that is already text, with its unit."""
        return f"{difference} {self.unit}".rstrip()

    def column_title(self, title: str) -> str:
        """The title of a column of differences, with their unit."""
        return f"{title}, {self.unit}" if self.unit else title


METRICS = {
    "accuracy": Metric(name="accuracy", percent=True, test="exact McNemar test"),
    "f1_samples": Metric(name="row F1", percent=True),
    "mae": Metric(name="MAE", digits=".4g"),
    "f1_macro": Metric(name="macro-F1", percent=True),
    "mcc": Metric(name="MCC"),
    "roc_auc": Metric(name="ROC AUC"),
    "log_loss": Metric(name="log loss"),
    "f1_micro": Metric(name="micro-F1"),
    "hamming_loss": Metric(name="Hamming loss"),
    "calibration_error": Metric(name="expected calibration error"),
    "rmse": Metric(name="RMSE", digits=".4g"),
    "r2": Metric(name="R²", digits=".4g"),
    "pearson": Metric(name="Pearson correlation", column="Pearson", digits=".4g"),
    "spearman": Metric(name="Spearman correlation", column="Spearman", digits=".4g"),
}
"""Every metric, by its key. Those that can be a main score come first."""

COMPARED = (
    "accuracy",
    "f1_micro",
    "f1_macro",
    "mcc",
    "log_loss",
    "roc_auc",
    "rmse",
    "r2",
    "pearson",
    "spearman",
)
"""The further columns of the comparison, in this order, as far as the metrics files have them."""

ON_CARD = (
    "accuracy",
    "f1_micro",
    "f1_macro",
    "mcc",
    "hamming_loss",
    "log_loss",
    "calibration_error",
    "rmse",
    "r2",
    "pearson",
    "spearman",
)
"""What the model card reports besides the main score."""


def column_title(key: str, problem: Problem) -> str:
    """The title of a further column: of a metric that is not the main score."""
    if key == "accuracy" and problem.several_answers:
        return "exact match"
    return METRICS[key].column or METRICS[key].name


def further_metrics(keys: tuple[str, ...], scores: dict, main: str) -> list[str]:
    """The keys that `scores` has, except that of the main score."""
    return [key for key in keys if key in scores and key != main]
