"""The models that a server answers with: each tuned one, the untouched one beside it, and what is known of them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from stages.adapters.run import FILE, Run
from stages.common.errors import PipelineError
from stages.evidence.abstention import fingerprint
from stages.reporting.wording import METRICS
from stages.serving import adapters, evaluated
from stages.serving.answers import Classifier

DEFAULT = "default"
"""The name of a model that has been given none."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that answers, as JSON has it."""

    name: str
    tuned: Classifier
    untouched: Classifier | None
    """None: a merged model has none beside it."""
    columns: Mapping[str, str]
    """See `Run.columns`."""
    dialect: Mapping[str, Any] = field(default_factory=dict)
    """See `Run.dialect`."""
    facts: dict[str, Any]
    """See `facts`."""

    @property
    def texts(self) -> int:
        """How many texts an input has: two for a model of pairs."""
        return len(self.columns)

    def beside(self) -> Classifier:
        """The untouched model.

        Raises:
            PipelineError: there is none.
        """
        if self.untouched is None:
            raise PipelineError(f"compare: expected a model with its base beside it, found {self.name!r} alone")
        return self.untouched


def load(wanted: Mapping[str, evaluated.Model], *, tested: bool = False, untouched: bool = True) -> dict[str, Served]:
    """The models by their names.

    Args:
        tested: whether to look into metrics/evaluate.json for the score of the (only) model.
        untouched: whether each has its base beside it, which an exported model has not.

    Raises:
        PipelineError: a model shares too little with those before it, or its base model is not here.
    """
    found = {}
    for name, tuned, before in adapters.loaded(wanted, untouched=untouched):
        run = Run.load(wanted[name].adapter)
        test = test_score(run, wanted[name]) if tested else None
        known = facts(name, wanted[name].adapter, run, tuned) | {"test": test}
        read = {"columns": run.columns, "dialect": run.dialect}
        found[name] = Served(name=name, tuned=tuned, untouched=before, facts=known, **read)
    return found


def facts(name: str, folder: Path, run: Run, tuned: Classifier) -> dict[str, Any]:
    """What is known of a model: where it is from, what it answers, how well, and since when it is in its folder, into
    which it may have come by `dvc pull`."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((folder / FILE).stat().st_mtime))
    return {
        "name": name,
        "run": fingerprint(folder),
        "base": run.base_model["source"],
        "method": run.method,
        "problem": run.problem.name,
        "classes": [] if run.problem.numeric else list(tuned.names),
        "texts": list(run.columns.values()),
        "since": since,
        "parameters": {key: run.metrics[f"{key}_parameters"] for key in ("trainable", "total")},
        "max_length": run.max_length,
    }


def test_score(run: Run, model: evaluated.Model) -> dict[str, Any] | None:
    """The main score on the test rows with its interval, and whether it is shown in percent; None: it is lost, or that
    of another model is there."""
    try:
        scores = evaluated.scores(model)
    except (PipelineError, FileNotFoundError):
        return None
    key, interval = run.main.key, scores.get("interval", {}).get(run.main.key, {})
    found = {"score": run.main.name, "percent": METRICS[key].percent, "value": scores[key]}
    return found | {end: interval.get(end) for end in ("low", "high")}


def as_json(classifier: Classifier, answered: pd.DataFrame) -> list[dict[str, Any]]:
    """What a classifier answered, each as an object.

    Keys: the answer by its name (`label`, `labels`, a list, or the number), `probability`, `probabilities` by class,
    and where there are thresholds `abstain` and `set`, the list of classes.
    """
    names, problem = list(classifier.names), classifier.problem
    several = problem.labels_of(answered[problem.answer], names) if problem.several_answers else None
    found = []
    for index, row in enumerate(answered.to_dict("records")):
        answer = {problem.answer: row[problem.answer]}
        if several is not None:
            answer[problem.answer] = [name for name, given in zip(names, several[index], strict=True) if given]
        if not problem.numeric:
            values = list(row.values())[-len(names) :]
            answer |= {"probability": row["probability"], "probabilities": dict(zip(names, values, strict=True))}
        if sure := classifier.abstention:
            answer["abstain"] = row["abstain"]
            if sure.set_threshold is not None:
                answer["set"] = [name for name, value in answer["probabilities"].items() if value >= sure.set_threshold]
        found.append(answer)
    return found
