"""Whether an exported model answers as the adapter does, on the test rows.

The test rows choose nothing here: the model is what it was, and is written or refused.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.adapters.run import Run
from stages.common import files, paths
from stages.common.errors import PipelineError
from stages.common.texts import as_inputs
from stages.evidence import significance
from stages.evidence.intervals import interval
from stages.problems.main_score import MainScore
from stages.reporting.markdown import paragraphs, table
from stages.serving import evaluated
from stages.serving.answers import Classifier, Inputs

FILE = "check.json"

TOLERANCE = {"float32": 1e-4, "int8": 0.005}
"""By precision; see `Check.why_refused`."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found; the fields are the keys of check.json."""

    rows: int
    precision: str
    """`float32` or `int8`."""
    tolerance: float
    largest_difference: float
    """Of probabilities; of numbers, in standard deviations of the adapter's."""
    same_answers: float
    """The share of rows with the same answer; numbers are the same within the tolerance for float32."""
    main: str
    """The key of the main score."""
    score: float
    low: float
    high: float
    """The exported model's main score, and its 95 % interval."""
    adapter: float
    """The adapter's."""
    gain: float
    gain_low: float
    gain_high: float
    p_value: float
    """The exported model's gain over the adapter, see `stages.evidence.significance.gain`."""

    @classmethod
    def of(cls, run: Run, rows: pd.DataFrame, *, adapter: Classifier, exported: Classifier, about: dict) -> "Check":
        """Compare the models on rows with texts and labels.

        Args:
            about: the fields `precision` and `tolerance`.
        """
        problem, inputs = run.problem, as_inputs(rows)
        outputs = [problem.outputs(model.logits(inputs)) for model in (adapter, exported)]
        before, after = (problem.decide(values, run.thresholds) for values in outputs)
        labels = problem.array(rows["label"].tolist(), adapter.names)
        unit = outputs[0].std() if problem.numeric else 1.0
        differences = np.abs(outputs[0] - outputs[1]).reshape(len(rows), -1).max(axis=1) / unit
        answers = (problem.answers(predictions, adapter.names) for predictions in (before, after))
        same = differences <= TOLERANCE["float32"] if problem.numeric else np.equal(*answers)
        return cls(
            rows=len(rows),
            **about,
            largest_difference=float(differences.max()),
            same_answers=float(same.mean()),
            main=run.main.key,
            score=run.main.value(labels, after),
            **interval(run.main, labels=labels, predictions=after),
            adapter=run.main.value(labels, before),
            **significance.gain(run.main, labels=labels, tuned=after, rival=before),
        )

    def save(self, folder: Path) -> None:
        files.write_json(folder / FILE, vars(self))

    def refuse(self, main: MainScore) -> None:
        """Refuse a model that is not close enough to the adapter.

        Raises:
            PipelineError: the model is in float32, and an output differs by more than the tolerance; or it is in int8,
                and its main score is worse by more than the tolerance (of a score that is no share, this part of it),
                or, if it is no error and no more than `TOLERANCE` was allowed, significantly worse.
        """
        if reason := self.why_refused(main):
            raise PipelineError(
                f"--onnx: expected the adapter's answers to the {self.rows:,} test rows, found {reason} "
                f"({self.told(main)}); nothing is written: " + REMEDIES[self.precision]
            )

    def why_refused(self, main: MainScore) -> str:
        """What is not close enough; empty: nothing."""
        if self.precision == "float32":
            found = f"one to differ by {self.largest_difference:.2g}, more than {self.tolerance:.2g}"
            return "" if self.largest_difference <= self.tolerance else found  # one that is no number is refused, too
        most = self.tolerance * (1 if main.share else abs(self.adapter))
        if -self.gain > most:
            return f"its {main.name} worse by {-self.gain:.2g}, more than {most:.2g}"
        worse = self.gain < 0 and self.p_value < 0.05 and self.tolerance <= TOLERANCE["int8"]
        # of an error, like MAE, a trifle is significant if it is in every row
        return f"its {main.name} worse, p = {self.p_value:.2g}" if worse and main.sign > 0 else ""

    def told(self, main: MainScore) -> str:
        """What was found, in a line."""
        return (
            f"largest difference {self.largest_difference:.2g}, same answers {self.same_answers:.2%}, {main.name} "
            f"{self.score:.4f} ({self.low:.4f} to {self.high:.4f}), adapter {self.adapter:.4f}, p = {self.p_value:.2g}"
        )

    def section(self, main: MainScore) -> str:
        """What was found, as a part of the model card."""
        values = [
            (f"{main.name} (95 % interval)", f"{self.score:.4f} ({self.low:.4f} to {self.high:.4f})"),
            (f"{main.name} of the adapter", f"{self.adapter:.4f}"),
            ("gain (95 % interval)", f"{self.gain:+.4f} ({self.gain_low:+.4f} to {self.gain_high:+.4f})"),
            ("p-value of the gain", f"{self.p_value:.2g}"),
            ("same answers", f"{self.same_answers:.2%}"),
            ("largest difference of an output", f"{self.largest_difference:.2g}"),
        ]
        head = f"`model.onnx`, in {self.precision}, was compared with the adapter on the same {self.rows:,} test rows:"
        return paragraphs("## In ONNX", head, table(("", self.precision), values))


REMEDIES = {
    "float32": "--tolerance allows more",
    "int8": "export it without --int8, or allow more with --tolerance",
}


def rows(split: str, model: evaluated.Model | None = None) -> pd.DataFrame:
    """The texts and labels of a split of data/prepared; with a model, those on which that was evaluated."""
    path = paths.PREPARED / f"{split}.parquet"
    return files.load(evaluated.belonging(path, model) if model else path, pd.read_parquet)


def calibration(count: int = 64) -> Inputs:
    """Texts of training rows, by which activations are scaled for int8."""
    return as_inputs(rows("train").head(count))
