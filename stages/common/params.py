"""params.yaml, read and checked as a whole before anything is loaded.

One frozen model per section. Every problem is collected and reported at once: unknown key (with the nearest valid
name), missing key, wrong type, value out of range, numbers that are not finite, values that contradict each other.
"""

import difflib
import itertools
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import ParamsError
from stages.common.paths import PARAMS

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Bound = float | None
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Source = Annotated[str, Field(pattern=r"^[a-z]+:.+$")]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, no infinities, no later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    source: Source
    revision: Text
    file: Text


class Split(Section):
    validation: Share
    test: Share

    @field_validator("test")
    @classmethod
    def leaves_rows_to_train_on(cls, test: float, info: ValidationInfo) -> float:
        validation = info.data.get("validation", 0)
        if validation + test >= 1:
            raise problem(f"expected validation + test below 1, found {validation} + {test}: lower one of them")
        return test


class Limit(Section):
    train: Count | None
    validation: Count | None
    test: Count | None


class Data(Section):
    source: Source
    revision: Text
    file: Text
    format: Literal["tsv", "csv", "jsonl"]
    columns: list[Text] | None
    text: Text
    label: Text
    bins: dict[Text, Annotated[list[Bound], Field(min_length=2, max_length=2)]] | None
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    split: Split
    limit: Limit
    seed: Seed

    @field_validator("columns")
    @classmethod
    def columns_fit_the_format(cls, columns: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if columns is not None and info.data.get("format") == "jsonl":
            raise problem("expected null with data.format: jsonl, whose rows name their columns: set it to null")
        if columns is not None and len(set(columns)) < len(columns):
            raise problem(f"expected distinct names, found {columns}: rename one")
        return columns

    @field_validator("text", "label")
    @classmethod
    def is_a_column(cls, name: str, info: ValidationInfo) -> str:
        columns = info.data.get("columns")
        if columns is not None and name not in columns:
            raise problem(f"expected one of data.columns {columns}, found {name!r}")
        if info.field_name == "label" and name == info.data.get("text"):
            raise problem(f"expected another column than data.text, found {name!r} for both")
        return name

    @field_validator("bins")
    @classmethod
    def bins_are_apart(cls, bins: dict[str, list[Bound]] | None) -> dict[str, list[Bound]] | None:
        if bins is None:
            return bins
        if len(bins) < 2:
            raise problem(f"expected two classes or more, found {len(bins)}")
        lows = {name: float("-inf") if low is None else low for name, (low, _) in bins.items()}
        highs = {name: float("inf") if high is None else high for name, (_, high) in bins.items()}
        for name in bins:
            if lows[name] >= highs[name]:
                raise problem(f"expected [above, below] with above < below, found {name}: {bins[name]}")
        by_low = sorted(bins, key=lows.__getitem__)
        for lower, upper in itertools.pairwise(by_low):
            if highs[lower] > lows[upper]:
                raise problem(
                    f"expected bins that do not overlap, found {lower}: {bins[lower]} and {upper}: {bins[upper]}"
                )
        return bins


class Encode(Section):
    template: str
    label_words: dict[Text, Text] | None
    max_length: Count
    dtype: Literal["float32", "bfloat16"]
    max_gb: Positive
    batch_size: Count

    @field_validator("template")
    @classmethod
    def holds_the_text_once(cls, template: str) -> str:
        if template.count("{text}") != 1:
            raise problem(f"expected {{text}} exactly once, found {template!r}")
        return template


class Baseline(Section):
    batch_size: Count
    regularization: Annotated[list[Positive], Field(min_length=1)]
    ngrams: Annotated[list[Count], Field(min_length=1)]


class Lora(Section):
    top_layers: Count | Literal["all"]
    target_modules: Annotated[list[Text], Field(min_length=1)] | Literal["all-linear"]
    r: Count
    alpha: Positive
    dropout: Fraction
    bias: Literal["none", "all", "lora_only"]
    use_rslora: bool
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"]
    use_dora: bool
    head_init: Literal["label_words", "random"]

    @field_validator("init")
    @classmethod
    def orthogonal_rank_is_even(cls, init: str, info: ValidationInfo) -> str:
        if init == "orthogonal" and info.data.get("r", 0) % 2:
            raise problem(f"expected an even lora.r with lora.init: orthogonal, found {info.data['r']}")
        return init

    @field_validator("use_dora")
    @classmethod
    def dora_starts_from_the_base(cls, use_dora: bool, info: ValidationInfo) -> bool:
        if use_dora and info.data.get("init") in ("pissa", "olora"):
            raise problem(f"expected lora.init: default with lora.use_dora, found {info.data['init']!r}")
        return use_dora


class Train(Section):
    epochs: Count
    lr: Positive
    batch_size: Count
    gradient_accumulation: Count
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    adam_beta1: Fraction
    adam_beta2: Fraction
    max_grad_norm: Annotated[float, Field(ge=0)]
    label_smoothing: Fraction
    precision: Literal["float32", "bfloat16", "float16"]
    activation_checkpointing: bool
    early_stopping: Count | None
    select_by: Literal["loss", "accuracy"]
    logging_steps: Count

    @field_validator("warmup")
    @classmethod
    def constant_has_no_warmup(cls, warmup: float, info: ValidationInfo) -> float:
        if warmup and info.data.get("scheduler") == "constant":
            raise problem("expected 0 with train.scheduler: constant; constant_with_warmup has one")
        return warmup


class Gate(Section):
    min_accuracy: Share | None
    min_gain: Annotated[float, Field(gt=-1, lt=1)] | None
    max_p_value: Share | None
    max_drop: Fraction | None


class Evaluate(Section):
    batch_size: Count
    curve_points: Annotated[int, Field(ge=2)]
    resamples: Annotated[int, Field(ge=100)]
    gate: Gate


class Params(Section):
    """The whole of params.yaml; the comments there say what each key costs and gives."""

    seed: Seed
    model: Model
    data: Data
    encode: Encode
    baseline: Baseline
    lora: Lora
    train: Train
    evaluate: Evaluate

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """Read and check `path`.

        Raises:
            ParamsError: the file is missing, is not YAML, or has problems; all of them are listed.
        """
        try:
            values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ParamsError(f"{path} is missing here; run from the root of the repository") from None
        except UnicodeDecodeError as error:
            raise ParamsError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from None
        except YAMLError as error:
            raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
        lines = contradictions(values)
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            lines = describe(error.errors()) + lines
        if lines:
            raise ParamsError("\n  ".join([f"{path} has {len(lines)} problem(s):", *lines]))
        return params


def problem(message: str) -> PydanticCustomError:
    """An error of ours among pydantic's, with braces taken literally."""
    return PydanticCustomError("contradiction", "{message}", {"message": message})


def contradictions(values: Any) -> list[str]:
    """What is wrong between two sections; each section checks itself."""
    try:
        classes, words = set(values["data"]["bins"]), set(values["encode"]["label_words"])
    except (KeyError, TypeError):
        return []
    if classes == words:
        return []
    return [f"encode.label_words: expected the classes of data.bins {sorted(classes)}, found {sorted(words)}"]


def describe(problems: list[ErrorDetails]) -> list[str]:
    """One line for each key with a problem: what was expected, what was found."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for details in problems:
        unknown = details["type"] == "extra_forbidden"
        keys = map(str, details["loc"]) if unknown else named(details["loc"])
        by_key.setdefault(".".join(keys), []).append(details)
    return [f"{key}: {describe_one(key, details)}" for key, details in by_key.items()]


def describe_one(key: str, details: list[ErrorDetails]) -> str:
    """What is wrong with one key; several problems are those of a union's members."""
    match details[0]["type"]:
        case "extra_forbidden":
            *section, name = key.split(".")
            near = difflib.get_close_matches(name, valid_keys(section), n=1)
            return "unknown key; " + (
                f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(valid_keys(section))}"
            )
        case "missing":
            return "missing; add it"
        case "contradiction":
            return details[0]["msg"]
    expected = [one["msg"].removeprefix("Input should be ").removeprefix("a valid ") for one in details]
    return f"expected {' or '.join(expected)}, found {details[0]['input']!r}"


def named(location: tuple[int | str, ...]) -> list[str]:
    """The keys that lead to a value, without list indices and the names that pydantic gives a union's members."""
    keys: list[str] = []
    for key in map(str, location):
        if not keys or key in valid_keys(keys):
            keys.append(key)
    return keys


def valid_keys(section: list[str]) -> list[str]:
    """The keys that params.yaml may hold at `section`; none where it holds a value."""
    model: Any = Params
    for key in section:
        model = model.model_fields[key].annotation
        if not hasattr(model, "model_fields"):
            return []
    return list(model.model_fields)
