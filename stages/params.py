"""params.yaml, read and checked as a whole before anything is loaded.

One frozen model per section. Every problem is collected and reported at once: unknown key (with the nearest valid
name), missing key, wrong type, value out of range, numbers that are not finite, values that contradict each other.
"""

import difflib
import itertools
import operator
import re
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
Interval = Annotated[list[Bound], Field(min_length=2, max_length=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Source = Annotated[str, Field(pattern=r"^(package|hub|path):.+$")]
Text = Annotated[str, Field(min_length=1)]

LOW_RANK = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "bias": "bias", "use_rslora": "use_rslora"}
"""What LoRA heeds on any layers, those in four bits too."""

HEEDS: dict[str, dict[str, str]] = {
    "lora": LOW_RANK | {"init": "init_lora_weights", "use_dora": "use_dora"},
    "qlora": LOW_RANK,
    "adalora": {"r": "target_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "bias": "bias"},
    "vera": {"r": "r", "dropout": "vera_dropout", "bias": "bias"},
    "loha": {"r": "r", "alpha": "alpha"},
    "lokr": {"r": "r", "alpha": "alpha"},
    "boft": {"dropout": "boft_dropout", "bias": "bias"},
    "oft": {"bias": "bias"},
}
"""Which keys of `lora` a method heeds, and their names in PEFT's configuration; other methods heed none of these."""

TARGETED = ("lora", "qlora", "adalora", "vera", "ia3", "loha", "lokr", "oft", "boft")
"""The methods that adapt projections, which `lora.target_modules` names."""

NEUTRAL = {
    "lora.target_modules": "all-linear",
    "lora.dropout": 0.0,
    "lora.bias": "none",
    "lora.init": "default",
    "lora.use_rslora": False,
    "lora.use_dora": False,
    "train.lora_plus_ratio": None,
    "train.label_smoothing": 0.0,
    "train.balance": None,
    "train.activation_checkpointing": False,
}
"""What some methods have no place for, and the value that asks for nothing; any other would be ignored in silence."""

UNFIT: dict[str, dict[str, Any]] = {
    "single_label": {},
    "multi_label": {"data.classes": None, "train.label_smoothing": 0.0, "train.balance": None},
    "regression": {
        "data.classes": None,
        "encode.label_words": None,
        "train.label_smoothing": 0.0,
        "train.balance": None,
        "train.select_by": "loss",
        "evaluate.gate.min_accuracy": None,
    },
}
"""The same for what has no meaning in a problem."""


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, no infinities, no later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Origin(Section):
    """Where bytes come from: the keys that `model` and `data` share.

    A path says all by itself, and DVC watches it: `revision`, and a `file` that belongs to another source, become None.
    """

    source: Source
    revision: Text | None
    file: Text | None

    @field_validator("revision")
    @classmethod
    def pins_what_is_not_here(cls, revision: str | None, info: ValidationInfo) -> str | None:
        kind = kind_of(info)
        if kind == "package" and revision is None:
            raise problem("expected the sha256 of the package's archive, found null")
        if kind == "hub" and revision is None:
            raise problem("expected the commit of the repository, 40 hex digits, found null")
        return None if kind == "path" else revision

    @field_validator("file")
    @classmethod
    def names_what_is_wanted(cls, file: str | None, info: ValidationInfo) -> str | None:
        if file is None and kind_of(info) == "package":
            raise problem("expected a file or folder within the package, found null")
        return None if kind_of(info) == "path" and isinstance(file, str) else file


class Model(Origin):
    """The pretrained model."""

    layers: Count | None


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


class Data(Origin):
    problem: Literal["single_label", "multi_label", "regression"]
    file: Text | dict[Literal["train", "validation", "test"], Text] | None
    format: Literal["tsv", "csv", "jsonl", "parquet", "folders"] | None
    columns: list[Text] | None
    text: Text
    text_pair: Text | None
    label: Text | Annotated[list[Text], Field(min_length=2)]
    classes: dict[Text, Text | bool | int | Interval] | None
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    max_leak: Annotated[float, Field(ge=0, le=1)]
    split: Split
    limit: Limit
    seed: Seed

    @field_validator("file")
    @classmethod
    def names_files_of_a_dataset(cls, file: str | dict[str, str] | None, info: ValidationInfo) -> Any:
        if file is None and kind_of(info) == "hub":
            raise problem("expected a file or glob of the dataset repository, like data/*.parquet, found null")
        if isinstance(file, dict) and "train" not in file:
            raise problem(f"expected a file for train, found one for {' and '.join(file) or 'nothing'}: add train")
        return file

    @field_validator("columns")
    @classmethod
    def columns_are_distinct(cls, columns: list[str] | None) -> list[str] | None:
        if columns is not None and len(set(columns)) < len(columns):
            raise problem(f"expected distinct names, found {columns}: rename one")
        return columns

    @field_validator("label")
    @classmethod
    def is_another_column(cls, label: str | list[str], info: ValidationInfo) -> str | list[str]:
        columns = [label] if isinstance(label, str) else label
        if {info.data.get("text"), info.data.get("text_pair")} & set(columns):
            raise problem(f"expected another column than data.text and data.text_pair, found {label!r}")
        if len(set(columns)) < len(columns):
            raise problem(f"expected distinct columns, found {label}: take one out")
        if label != columns[0] and info.data.get("problem") not in (None, "multi_label"):
            raise problem(f"expected one column with data.problem: {info.data['problem']}, found {label}")
        return label

    @field_validator("text_pair")
    @classmethod
    def is_another_text(cls, text_pair: str | None, info: ValidationInfo) -> str | None:
        if text_pair is not None and text_pair == info.data.get("text"):
            raise problem(f"expected another column than data.text, found {text_pair!r} for both")
        return text_pair

    @field_validator("classes")
    @classmethod
    def classes_are_apart(cls, classes: dict[str, Any] | None) -> dict[str, Any] | None:
        if classes is None:
            return classes
        if len(classes) < 2:
            raise problem(f"expected two classes or more, found {len(classes)}")
        bins = {name: value for name, value in classes.items() if isinstance(value, list)}
        if bins and len(bins) < len(classes):
            raise problem(f"expected a value for each class or [above, below] for each, found both: {classes}")
        values = [str(value) for value in classes.values()]
        if len(set(values)) < len(values):
            raise problem(f"expected another value for each class, found {', '.join(values)}")
        lows = {name: float("-inf") if low is None else low for name, (low, _) in bins.items()}
        highs = {name: float("inf") if high is None else high for name, (_, high) in bins.items()}
        for name in bins:
            if lows[name] >= highs[name]:
                raise problem(f"expected [above, below] with above < below, found {name}: {bins[name]}")
        by_low = sorted(bins, key=lows.__getitem__)
        for lower, upper in itertools.pairwise(by_low):
            if highs[lower] > lows[upper]:
                raise problem(
                    f"expected intervals that do not overlap, found {lower}: {bins[lower]} and {upper}: {bins[upper]}"
                )
        return classes


class Encode(Section):
    template: str
    truncation: Literal["head", "tail", "windows"]
    stride: Annotated[int, Field(ge=0)]
    label_words: dict[Text, Text] | None
    max_length: Count
    dtype: Literal["float32", "bfloat16"]
    max_gb: Positive
    batch_size: Count

    @property
    def window_stride(self) -> int | None:
        """Tokens that neighbouring windows share; None: there are none."""
        return self.stride if self.truncation == "windows" else None

    @field_validator("template")
    @classmethod
    def holds_the_text_once(cls, template: str) -> str:
        fields = re.findall(r"{(\w*)}", template)
        if fields not in (["text"], ["text", "text_pair"]) or len(re.findall("[{}]", template)) > 2 * len(fields):
            raise problem(
                f"expected {{text}} exactly once, {{text_pair}} at most once after it, and no other braces, "
                f"found {template!r}"
            )
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
    head_init: Literal["probe", "label_words", "random"]

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


class Peft(Section):
    method: Literal[
        "lora",
        "qlora",
        "adalora",
        "vera",
        "ia3",
        "loha",
        "lokr",
        "oft",
        "boft",
        "prompt",
        "prefix",
        "p_tuning",
        "ln_tuning",
        "head",
        "full",
    ]
    options: dict[Text, Any]
    """Checked against PEFT's own configuration by `stages.adapters.methods`, which knows PEFT."""


class Train(Section):
    epochs: Count
    lr: Positive
    lora_plus_ratio: Annotated[float, Field(ge=1)] | None
    batch_size: Count
    gradient_accumulation: Count
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    adam_beta1: Fraction
    adam_beta2: Fraction
    max_grad_norm: Annotated[float, Field(ge=0)]
    label_smoothing: Fraction
    balance: Literal["weights", "sampling"] | None
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
    min_gain: float | None
    max_p_value: Share | None
    max_drop: Annotated[float, Field(ge=0)] | None


class Evaluate(Section):
    batch_size: Count
    curve_points: Annotated[int, Field(ge=2)]
    resamples: Annotated[int, Field(ge=100)]
    gate: Gate


class Params(Section):
    """The whole of params.yaml; the comments there say what each key costs and gives."""

    seed: Seed
    precision: Literal["float32", "bfloat16", "float16"]
    model: Model
    data: Data
    encode: Encode
    baseline: Baseline
    lora: Lora
    peft: Peft
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
            lines += unheeded(params) + beyond_layers(params) + beyond_shares(params)
        except ValidationError as error:
            lines = describe(error.errors()) + lines
        if lines:
            raise ParamsError("\n  ".join([f"{path} has {len(lines)} problem(s):", *lines]))
        return params


def kind_of(info: ValidationInfo) -> str:
    """The kind of the section's source; empty if that is not valid itself."""
    return info.data.get("source", "").partition(":")[0]


def problem(message: str) -> PydanticCustomError:
    """An error of ours among pydantic's, with braces taken literally."""
    return PydanticCustomError("contradiction", "{message}", {"message": message})


def contradictions(values: Any) -> list[str]:
    """What is wrong between two sections; each section checks itself."""
    try:
        data, encode = values["data"], values["encode"]
        classes, words = data["classes"], encode["label_words"]
        pairs, template = data["text_pair"] is not None, str(encode["template"])
        windows = encode["truncation"] == "windows"
    except (KeyError, TypeError):
        return []
    lines = []
    if isinstance(classes, dict) and isinstance(words, dict) and set(classes) != set(words):
        lines.append(f"encode.label_words: expected the classes of data.classes {list(classes)}, found {list(words)}")
    if pairs and "{text_pair}" not in template and template != "{text}":
        lines.append(f"encode.template: expected {{text_pair}} too, or {{text}} alone, for pairs, found {template!r}")
    if not pairs and "{text_pair}" in template:
        lines.append(f"encode.template: expected {{text}} only, data.text_pair being null, found {template!r}")
    if pairs and windows:
        lines.append("encode.truncation: expected head or tail for pairs, found 'windows', which are of one text")
    return lines


def unheeded(params: Params) -> list[str]:
    """What is set, away from its neutral value, but has no meaning with the method or in the problem."""
    method, kind = params.peft.method, params.data.problem
    heeded = {f"lora.{key}" for key in HEEDS.get(method, {})}
    if method in TARGETED:
        heeded.add("lora.target_modules")
    if method in ("lora", "qlora"):
        heeded.add("train.lora_plus_ratio")
    if method != "adalora":  # whose own term of the loss needs the model's loss
        heeded |= {"train.balance", "train.label_smoothing"}
    if method != "prefix":  # whose keys and values cannot be recomputed block by block
        heeded.add("train.activation_checkpointing")
    lacked = {f"peft.method: {method}": {key: value for key, value in NEUTRAL.items() if key not in heeded}}
    return [
        f"{key}: expected {neutral!r} with {lacking}, which has no such setting, found {found!r}"
        for lacking, values in (lacked | {f"data.problem: {kind}": UNFIT[kind]}).items()
        for key, neutral in values.items()
        if (found := operator.attrgetter(key)(params)) != neutral
    ]


def beyond_layers(params: Params) -> list[str]:
    """More layers to train than `model.layers` keeps."""
    kept, trained = params.model.layers, params.lora.top_layers
    if kept is None or trained == "all" or trained <= kept:
        return []
    return [f"lora.top_layers: expected at most model.layers = {kept}, found {trained}"]


def beyond_shares(params: Params) -> list[str]:
    """What the gate asks for that no share can reach; only of numbers are scores anything else."""
    gate = params.evaluate.gate
    return [
        f"evaluate.gate.{key}: expected a share below 1, found {value}"
        for key, value in (("min_gain", gate.min_gain), ("max_drop", gate.max_drop))
        if value is not None and abs(value) >= 1 and params.data.problem != "regression"
    ]


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
