"""run.json: what made an adapter. It is written last, so a folder that has it is complete."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from stages.common import files
from stages.common.errors import PipelineError
from stages.common.texts import COLUMNS
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import MainScore
from stages.problems.problem import Problem

FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training; the fields are the keys of run.json, in the file's order."""

    depth: int
    """How many of the lowest blocks were left unchanged: their output comes from the stored states."""
    max_length: int
    """The most tokens of a text that are read, or of one of its windows."""
    params: dict[str, Any]
    """The sections of params.yaml that the adapter depends on."""
    base_model: dict[str, Any]
    """Source, revision and license of the base model, as in its source.json."""
    packages: dict[str, str]
    """The versions of the libraries."""
    metrics: dict[str, Any]
    """metrics/train.json."""

    def save(self, folder: Path) -> None:
        """Write run.json into `folder`.

        Raises:
            ValueError: a number is not finite.
        """
        files.write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read run.json of `folder`.

        Raises:
            FileNotFoundError: there is none.
            PipelineError: its keys are not the fields above, or a number is not finite.
        """
        path, names = folder / FILE, [field.name for field in fields(cls)]
        values = files.read_json(path)
        if set(values) != set(names):
            raise PipelineError(
                f"{path}: expected the keys {', '.join(names)}, found {', '.join(values)}; another version of this "
                "repository wrote it, make it again with: dvc repro"
            )
        return cls(**values)

    @property
    def problem(self) -> Problem:
        """The kind of problem."""
        return PROBLEMS[self.params["data"]["problem"]]

    @property
    def main(self) -> MainScore:
        """The score by which models are compared."""
        return self.problem.main_scores[self.metrics["main"]]

    @property
    def method(self) -> str:
        """The PEFT method, or `full`."""
        return self.params["peft"]["method"]

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.metrics["seed"]

    @property
    def columns(self) -> dict[str, str]:
        """For `text`, and for pairs `text_pair` too, the column of the source's table that holds it."""
        return {name: column for name in COLUMNS if (column := self.params["data"][name])}

    @property
    def dialect(self) -> dict[str, Any]:
        """How delimited files were read: `names`, those of their columns where they had no header, else None; `quoted`,
        whether quotes joined what was between them in tab-separated ones, too."""
        data = self.params["data"]
        return {"names": data["columns"], "quoted": data["format"] == "quoted_tsv"}

    @property
    def label_words(self) -> dict[str, str] | None:
        """Each class's word; None: the class's own name."""
        return self.params["encode"]["label_words"]

    @property
    def window_stride(self) -> int | None:
        """How many tokens neighbouring windows of a long text share; None: a long text is cut instead."""
        encode = self.params["encode"]
        return encode["stride"] if encode["truncation"] == "windows" else None

    @property
    def states_are_exact(self) -> bool:
        """Whether the stored states are in float32 throughout, as those are that an answer to a new text comes from."""
        return self.params["precision"] == self.params["encode"]["dtype"] == "float32"

    @property
    def thresholds(self) -> list[float]:
        """The probability above which a label is given, in the order of the labels; empty where there are none."""
        return list(self.metrics.get("thresholds", {}).values())

    @property
    def temperature(self) -> float:
        """The number by which the head's weights were divided after the training."""
        return self.metrics.get("temperature", 1.0)
