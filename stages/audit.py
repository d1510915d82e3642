"""audit: which labels are probably wrong, so that people can look at those rows first.

    python -m stages.audit

Reads data/prepared, data/features and metrics/baseline.json. Writes data/predictions/suspects.csv, the most suspect
label first: the row's number in its source (`row`), its `split` and text, its `label`, the `likely` label, the
`quality` of the label (0: certainly wrong, 1: right), and the probability of both labels, unless they are numbers.

A label is judged by linear probes on the untuned model's features that were not trained on its row: for training and
validation rows 5-fold, for test rows those five together. No model learns from a test row's label, so that dropping
suspect training rows tells training nothing about the test split. The probes count every row alike, and have the
regularization that is then best for the rival `linear_probe`. Nothing later uses the list but the report: whether a
label is wrong is for people to decide.
"""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from datasets import Features

from stages.common import errors, files, paths, progress, rivals, texts
from stages.evidence import suspects
from stages.params import Params
from stages.scoring.kinds import SCORED
from stages.scoring.scored import ScoredProblem


def main() -> None:
    params = Params.load()
    problem = SCORED[params.data.problem]
    names = label_names(problem)
    splits = {name: read(name) for name in paths.SPLITS}
    known, others = pd.concat([splits["train"], splits["validation"]], ignore_index=True), splits["test"]
    progress.say(f"audit: {len(known) + len(others):,} labels, by linear probes trained on other rows")
    judged = suspects.judge(
        problem,
        names,
        known=labelled(problem, names, known),
        others=labelled(problem, names, others),
        strength=files.read_json(paths.BASELINE_METRICS)[rivals.LINEAR_PROBE]["regularization"],
        seed=params.seed,
    )
    lines = pd.concat([described(rows).join(table) for rows, table in zip((known, others), judged, strict=True)])
    suspect = lines[lines["suspect"]].sort_values("quality", kind="stable").drop(columns=["judged", "suspect"])
    files.write_text(paths.SUSPECTS, suspect.to_csv(index=False))
    progress.say(f"audit: {len(suspect):,} of {len(lines):,} labels are suspect: {paths.SUSPECTS}")
    if few := (~lines["judged"]).sum():
        progress.say(
            f"audit: {few:,} labels are not judged, as fewer than {suspects.FOLDS} rows to learn from have their class"
        )


def label_names(problem: ScoredProblem) -> list[str]:
    """The names of the classes or labels."""
    schema = files.load(paths.PREPARED / "train.parquet", pq.read_schema)
    return problem.output_names(Features.from_arrow_schema(schema)["label"])


def read(split: str) -> pd.DataFrame:
    """The rows of a split, with their `features`.

    Raises:
        PipelineError: the features are those of other rows.
    """
    path = paths.FEATURES / f"{split}.parquet"
    rows, features = (files.load(one, pd.read_parquet) for one in (paths.PREPARED / path.name, path))
    if not rows["row"].equals(features["row"]):
        raise errors.PipelineError(
            f"{path}: expected the rows of {paths.PREPARED}, found others; run both stages again: dvc repro"
        )
    return rows.assign(split=split, features=features["features"])


def labelled(problem: ScoredProblem, names: list[str], rows: pd.DataFrame) -> suspects.Labelled:
    """The features and labels of rows, as arrays."""
    features = np.stack(rows["features"].tolist()).astype(np.float64)  # float32 is too inexact for scikit-learn's sums
    return suspects.Labelled(features=features, labels=problem.array(rows["label"].tolist(), names))


def described(rows: pd.DataFrame) -> pd.DataFrame:
    """What tells people which rows these are."""
    return rows.filter(["row", "split", *texts.COLUMNS])


if __name__ == "__main__":
    errors.run_script(main, __doc__)
