"""What a kind of problem is: how its labels are read and stored, what a model's outputs mean, how answers are chosen.

There is one object for each kind, by the value of `data.problem` (see kinds.py); no other code checks which kind it is.
`stages.scoring` extends these classes with scores.

In a table, a label is the name of a class; or, if a row may have several, the JSON list of their sorted names; or a
number. So equal labels are equal values. Libraries that take seconds to import are imported in the functions that use
them: the report needs none of them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field

from stages.common.texts import clean
from stages.problems.main_score import AUTO, MainScore

if TYPE_CHECKING:
    from datasets import ClassLabel, List, Value

WHOLE = re.compile(r"-?(0|[1-9]\d*)\.0+")
"""A whole number as a spreadsheet writes it; 01.0 is none, as 01 is a code and no number."""


class Problem(ABC):
    """One kind of problem.

    `labels` are what `stages.backbone.store` holds: the class of each row, (rows,) int64; which labels it has, (rows,
    labels) float32; or its number, (rows,) float32. `outputs` are a model's probabilities, (rows, classes or labels),
    or numbers, (rows,), in float64. `predictions` are outputs together with the answers chosen from them.
    """

    name: ClassVar[str]
    """The value of `data.problem`."""
    noun: ClassVar[str]
    """What messages and reports call one class, label or number."""
    answer: ClassVar[str]
    """The name of the column of answers in a table."""
    main_scores: ClassVar[dict[str, MainScore]]
    """The scores by which models can be compared, by key: the values of `evaluate.main`."""
    transformers_type: ClassVar[str | None] = None
    """The `problem_type` in a model's transformers configuration; None: transformers infers it."""
    needed_in: ClassVar[tuple[str, ...]] = ()
    """The splits in which every class or label must have rows."""
    several_answers: ClassVar[bool] = False
    """Whether a text can have several labels, each decided independently."""
    settling: ClassVar[str] = "keep the one that more than half of their rows have"
    """What becomes of texts whose rows have different labels, see `settled`."""
    numeric: ClassVar[bool] = False
    """Whether answers are numbers; then scores are not shares, and the head starts from a ridge regression."""
    without: ClassVar[dict[str, Any]] = {}
    """Settings without meaning for this problem, each with the only value that it may then have."""

    @abstractmethod
    def read(self, value: Any, column: str | list[str]) -> str | float | None:
        """A value from a file as a label; None: the label is missing.

        Raises:
            ValueError: the value is no valid label; the message says what was expected and found.
        """

    def settled(self, labels: pd.Series, same_text: pd.Series) -> pd.Series:
        """Each row's label once the rows of a text, which several people may have labelled, agree: that of more than
        half of them, and missing in the others.

        Args:
            same_text: what rows of the same text have in common, (rows,).
        """
        votes = labels.groupby([same_text, labels]).transform("size")
        return labels.where(2 * votes > labels.groupby(same_text).transform("size"))

    @abstractmethod
    def names(self, labels: pd.Series) -> list[str]:
        """The names of the classes or labels that occur, sorted."""

    def names_in(self, label: Any) -> list[str]:
        """The names of the classes or labels that one row's label stands for."""
        return [label]

    @abstractmethod
    def check_enough_rows(self, labels: pd.Series, splits: int, remedy: str) -> None:
        """Check that there are enough rows and names for `splits` splits.

        Raises:
            PipelineError: there are too few.
        """

    @abstractmethod
    def strata(self, labels: pd.Series) -> pd.Series:
        """The stratum of each row, by which the splits are stratified."""

    @abstractmethod
    def feature(self, names: list[str]) -> "ClassLabel | List | Value":
        """The type of the label column in `datasets`."""

    @abstractmethod
    def output_names(self, feature: "ClassLabel | List | Value") -> list[str]:
        """The names of a model's outputs: the class names that such a column carries."""

    @abstractmethod
    def stored(self, labels: pd.Series, names: list[str]) -> list:
        """The labels as values of the type that `feature` returns."""

    @abstractmethod
    def array(self, stored: list, names: list[str]) -> np.ndarray:
        """The stored labels as the array that `stages.backbone.store` holds."""

    @abstractmethod
    def counts(self, labels: pd.Series, names: list[str]) -> dict[str, float]:
        """Statistics of a split's labels: rows by name, or mean and standard deviation."""

    def main_score(self, choice: str, labels: np.ndarray) -> MainScore:
        """The score by which models are compared, as `evaluate.main` chooses.

        Args:
            labels: of the training rows.
        """
        return self.main_scores[self.default_main(labels) if choice == AUTO else choice]

    def default_main(self, labels: np.ndarray) -> str:
        """The key of the score that `evaluate.main: auto` chooses for these training rows."""
        return next(iter(self.main_scores))

    def weighs_rare_classes(self, main: MainScore) -> bool:
        """Whether a class counts in the main score however few rows it has; these may then weigh more in losses."""
        return False

    def why_main(self, counts: dict[str, float]) -> str:
        """Why `evaluate.main: auto` chooses that score, in a sentence; empty where it has no choice.

        Args:
            counts: of the training rows, see `counts`.
        """
        return ""

    def unit(self, labels: np.ndarray) -> float:
        """The unit of a model's outputs in training, so that numbers of any scale train equally well."""
        return 1.0

    @abstractmethod
    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """From logits, (rows, outputs), to probabilities or numbers."""

    @abstractmethod
    def validate(
        self, logits: np.ndarray, labels: np.ndarray, *, unit: float, main: MainScore
    ) -> dict[str, float | list[float]]:
        """A trained model's main score on the validation rows, by its key, and what is fitted to its logits there.

        Args:
            logits, labels: both in units of `unit`.
        """

    def thresholds(self, labels: np.ndarray, outputs: np.ndarray, main: MainScore) -> list[float]:
        """The thresholds with the best main score, if answers are chosen by any, from rows that were not trained on."""
        return []

    def decide(self, outputs: np.ndarray, thresholds: Sequence[float]) -> Any:
        """The predictions from outputs and thresholds."""
        return outputs

    def column(self, predictions: Any) -> list:
        """The predictions as a table's column, one value per row."""
        return list(predictions)

    def predictions(self, column: Sequence) -> Any:
        """The predictions from a table's column; the inverse of `column`."""
        return np.stack(list(column))

    @abstractmethod
    def truth(self, labels: np.ndarray, names: list[str]) -> np.ndarray:
        """The labels in readable form, (rows,)."""

    @abstractmethod
    def answers(self, predictions: Any, names: list[str]) -> np.ndarray:
        """The predicted answers in readable form, as in `truth`, (rows,)."""

    @abstractmethod
    def labels_of(self, answers: Sequence[str], names: list[str]) -> np.ndarray:
        """The labels whose readable forms, as text, these are: the inverse of `truth`."""

    @abstractmethod
    def certain(self, labels: np.ndarray, names: list[str]) -> Any:
        """The predictions that give exactly these labels, with certainty."""

    @abstractmethod
    def confidence(self, predictions: Any) -> dict[str, np.ndarray]:
        """The probability of each row's answer, by the name of its column; empty if answers have none."""

    @abstractmethod
    def detail(self, predictions: Any, names: list[str]) -> dict[str, np.ndarray]:
        """The probabilities from which each row's answer was chosen, by class or label."""


def label_text(label: str | float | bool | None) -> str:
    """A label as text, the same for every spelling of one value: 1, 1.0, "1" and "1.0"; 0 and -0.0; true and "True";
    "a" and " a ".

    A missing one, None or the number NaN, is an empty string; words like "nan", "null" and "NA" are labels.
    """
    text = clean(label)
    if WHOLE.fullmatch(text):
        text = text.partition(".")[0]
    if text == "-0":
        return "0"
    return text.lower() if text.lower() in ("true", "false") else text


ClassName = Annotated[str, BeforeValidator(label_text), Field(min_length=1)]
"""A class as a key of params.yaml, where YAML takes 1 for a number and true for a boolean."""
