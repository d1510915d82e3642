"""The section `data`."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.common.section import Count, Fraction, Section, Seed, Share, Text, contradiction
from stages.problems.kinds import PROBLEMS
from stages.problems.problem import ClassName, label_text
from stages.sources.params import Origin, kind_of

Bound = float | None
Interval = Annotated[list[Bound], Field(min_length=2, max_length=2)]


class Split(Section):
    """Shares of the rows of train that become a split for which `file` names no file."""

    validation: Share
    test: Share
    calibration: Fraction

    @field_validator("test", "calibration")
    @classmethod
    def leaves_rows_to_train_on(cls, share: float, info: ValidationInfo) -> float:
        shares = info.data | {info.field_name: share}
        if sum(shares.values()) >= 1:
            found = " + ".join(map(str, shares.values()))
            raise contradiction(f"expected {' + '.join(shares)} below 1, found {found}: lower one of them")
        return share


class Limit(Section):
    """The maximum number of rows of each split."""

    train: Count | None
    validation: Count | None
    test: Count | None


class Data(Origin):
    """The labelled rows, and how they are split."""

    problem: Literal[*PROBLEMS]
    source: Text
    """A source, or the name of a preset (stages/sources/presets.py)."""
    file: Text | dict[Literal["train", "validation", "test"], Text] | None
    format: Literal["tsv", "quoted_tsv", "csv", "jsonl", "parquet", "folders"] | None
    columns: list[Text] | None
    text: Text | None
    text_pair: Text | None
    label: Text | Annotated[list[Text], Field(min_length=2)] | None
    classes: dict[ClassName, Text | bool | int | float | Interval] | None
    slices: list[Text]
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    max_leak: Annotated[float, Field(ge=0, le=1)]
    split: Split
    limit: Limit
    seed: Seed

    @property
    def files(self) -> dict[str, str | None]:
        """The file of each ready split; without splits, `file` is that of train, from which the others are cut."""
        if isinstance(self.file, dict):
            return dict(self.file)
        return {"train": None if self.kind == "path" else self.file}

    @field_validator("source")
    @classmethod
    def is_of_a_kind_or_a_preset(cls, source: str) -> str:
        kind, separator, name = source.partition(":")
        if separator and (kind not in ("package", "hub", "path") or not name):
            raise contradiction(
                f"expected package:NAME==VERSION, hub:ORG/NAME, path:data/raw/NAME or a preset, found {source!r}"
            )
        return source

    @field_validator("file")
    @classmethod
    def names_files_of_a_dataset(cls, file: str | dict[str, str] | None, info: ValidationInfo) -> Any:
        if file is None and kind_of(info) == "hub":
            raise contradiction("expected a file or glob of the dataset repository, like data/*.parquet, found null")
        if isinstance(file, dict) and "train" not in file:
            raise contradiction(
                f"expected a file for train, found one for {' and '.join(file) or 'nothing'}: add train"
            )
        return file

    @field_validator("columns")
    @classmethod
    def columns_are_distinct(cls, columns: list[str] | None) -> list[str] | None:
        if columns is not None and len(set(columns)) < len(columns):
            raise contradiction(f"expected distinct names, found {columns}: rename one")
        return columns

    @field_validator("label")
    @classmethod
    def is_another_column(cls, label: str | list[str] | None, info: ValidationInfo) -> str | list[str] | None:
        if label is None:
            return label
        columns = [label] if isinstance(label, str) else label
        if {info.data.get("text"), info.data.get("text_pair")} & set(columns):
            raise contradiction(f"expected a different column from data.text and data.text_pair, found {label!r}")
        if len(set(columns)) < len(columns):
            raise contradiction(f"expected distinct columns, found {label}: take one out")
        kind = info.data.get("problem")
        if label != columns[0] and kind and not PROBLEMS[kind].several_answers:
            raise contradiction(f"expected one column with data.problem: {kind}, found {label}")
        return label

    @field_validator("text_pair")
    @classmethod
    def is_another_text(cls, text_pair: str | None, info: ValidationInfo) -> str | None:
        if text_pair is not None and text_pair == info.data.get("text"):
            raise contradiction(f"expected a different column from data.text, found {text_pair!r} for both")
        return text_pair

    @field_validator("slices")
    @classmethod
    def slices_are_columns_with_values(cls, slices: list[str], info: ValidationInfo) -> list[str]:
        if len(set(slices)) < len(slices):
            raise contradiction(f"expected distinct columns, found {slices}: take one out")
        if texts := {info.data.get("text"), info.data.get("text_pair")}.intersection(slices):
            raise contradiction(f"expected other columns than data.text and data.text_pair, found {min(texts)!r}")
        return slices

    @field_validator("classes")
    @classmethod
    def classes_are_apart(cls, classes: dict[str, Any] | None) -> dict[str, Any] | None:
        if classes is None:
            return classes
        if len(classes) < 2:
            raise contradiction(f"expected two classes or more, found {len(classes)}")
        bins = {name: value for name, value in classes.items() if isinstance(value, list)}
        if bins and len(bins) < len(classes):
            raise contradiction(f"expected a value for each class or [above, below] for each, found both: {classes}")
        values = [str(value) if isinstance(value, list) else label_text(value) for value in classes.values()]
        if len(set(values)) < len(values):
            raise contradiction(f"expected a different value for each class, found {', '.join(values)}")
        lows = {name: float("-inf") if low is None else low for name, (low, _) in bins.items()}
        highs = {name: float("inf") if high is None else high for name, (_, high) in bins.items()}
        for name in bins:
            if lows[name] >= highs[name]:
                raise contradiction(f"expected [above, below] with above < below, found {name}: {bins[name]}")
        by_low = sorted(bins, key=lows.__getitem__)
        for lower, upper in itertools.pairwise(by_low):
            if highs[lower] > lows[upper]:
                raise contradiction(
                    f"expected intervals that do not overlap, found {lower}: {bins[lower]} and {upper}: {bins[upper]}"
                )
        return classes
