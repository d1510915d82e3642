"""params.yaml, read and checked as a whole before anything is loaded.

Each package defines its sections in its own params.py; this module composes them and checks them against each other.
Every problem is collected and reported at once: unknown key (with the nearest valid name), missing key, wrong type,
value out of range, numbers that are not finite, values that contradict each other.
"""

import operator
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stages.adapters.params import ON_WHOLE_WEIGHTS, Lora, Peft, without
from stages.common import texts
from stages.common.errors import ParamsError, PipelineError
from stages.common.paths import PARAMS
from stages.common.section import Section, Seed, fill, read_yaml
from stages.compute.params import Compute
from stages.encoding.params import TEXT_ALONE, Encode
from stages.problems.kinds import PROBLEMS
from stages.problems.main_score import AUTO
from stages.problems.problem import label_text
from stages.reporting.params import Gate
from stages.resuming.params import Checkpoints
from stages.rows.params import Data
from stages.scoring.params import Baseline, Evaluate
from stages.sources import presets
from stages.sources.params import Model
from stages.training.params import Train

MOVED = {
    "evaluate.gate": "it is now the section gate",
    "train.precision": "it is now precision, outside all sections",
    "train.class_weights": "it is now train.balance: weights",
    "train.average": "taken out, as the best weights are kept",
    "train.gradient_checkpointing": "it is now train.activation_checkpointing",
    "data.bins": "it is now data.classes",
}
"""Keys of earlier versions, and where they went."""

WRAPPING = r"^(Input|List|String) should (be|have|match) |a valid | or instance of \w+$| after validation.*"
"""What pydantic's messages say besides what was expected."""


class Params(Section):
    """All of params.yaml; the comments there give the trade-off of each key."""

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
    gate: Gate
    checkpoints: Checkpoints
    compute: Compute

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """Read and check `path`, with the preset that it names.

        What is returned is what the file says: keys that it leaves to the dataset are null, see `filled`.

        Raises:
            ParamsError: the file is missing, is not YAML, or has problems; all of them are listed.
        """
        try:
            values = read_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ParamsError(f"{path} not found; run from the root of the repository") from None
        except UnicodeDecodeError as error:
            raise ParamsError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from None
        except ValueError as error:
            raise ParamsError(f"{path} is not valid YAML: {error}") from None
        dataset, lines = preset(values)
        filled = fill(values, dataset)
        lines += contradictions(filled)
        try:
            params = cls.model_validate(filled)
            lines += unused_settings(params) or target_without_rows(params)
            lines += unknown_main_score(params) or unreachable_gates(params)
            lines += gate_without_slices(params)
            lines += not_to_be_sharded(params)
        except ValidationError as error:
            lines = describe(error.errors()) + lines
        if lines:
            raise ParamsError("\n  ".join([f"{path} has {len(lines)} problem(s):", *lines]))
        return cls.model_validate(values)

    def filled(self, dataset: presets.Values | None = None) -> Self:
        """These settings with those of the dataset for the keys that are null.

        Args:
            dataset: what `prepare` found, data/prepared/dataset.json; None: the preset that `data.source` names.
        """
        values = self.model_dump()
        return self.model_validate(fill(values, preset(values)[0] if dataset is None else dataset))


def preset(values: Any) -> tuple[presets.Values, list[str]]:
    """The values of the preset that `data.source` names, without those that `data.problem` has no use for; and what is
    wrong with it."""
    try:
        source, problem = values["data"]["source"], PROBLEMS[values["data"]["problem"]]
        found = presets.load(source) if isinstance(source, str) else {}
    except (KeyError, TypeError):
        return {}, []
    except PipelineError as error:
        return {}, [str(error)]
    return {
        section: {key: value for key, value in known.items() if f"{section}.{key}" not in problem.without}
        for section, known in found.items()
    }, []


def contradictions(values: Any) -> list[str]:
    """Contradictions between two sections; each section itself checks for those within it."""
    try:
        data, encode = values["data"], values["encode"]
        classes, words = data["classes"], encode["label_words"]
        pairs, template = data["text_pair"] is not None, str(encode["template"] or TEXT_ALONE)
        windows = encode["truncation"] == "windows"
    except (KeyError, TypeError):
        return []
    lines = []
    named = {"data.classes": classes, "encode.label_words": words}
    named = {key: list(map(label_text, values)) for key, values in named.items() if isinstance(values, dict)}
    lines += [
        f"{key}: expected different classes, found {names}"
        for key, names in named.items()
        if len({*names}) < len(names)
    ]
    if len(named) == 2 and {*named["data.classes"]} != {*named["encode.label_words"]}:
        lines.append(f"encode.label_words: expected the classes of data.classes {list(classes)}, found {list(words)}")
    if pairs and "{text_pair}" not in template and template != TEXT_ALONE:
        lines.append(f"encode.template: expected {{text_pair}} too, or {{text}} alone, for pairs, found {template!r}")
    if not pairs and "{text_pair}" in template:
        lines.append(f"encode.template: expected {{text}} only, as data.text_pair is null, found {template!r}")
    if pairs and windows:
        lines.append(
            "encode.truncation: expected head or tail for pairs, found 'windows', which works for single texts only"
        )
    return lines


def unused_settings(params: Params) -> list[str]:
    """Settings that are changed although the method or the problem does not use them."""
    method, problem = params.peft.method, params.data.problem
    unused = {f"peft.method: {method}": without(method), f"data.problem: {problem}": PROBLEMS[problem].without}
    return [
        f"{key}: expected {nothing!r} with {setting}, which has no such setting, found {found!r}"
        for setting, values in unused.items()
        for key, nothing in values.items()
        if (found := operator.attrgetter(key)(params)) not in (nothing, "auto")
    ]


def target_without_rows(params: Params) -> list[str]:
    """A problem if no rows are kept for the threshold of `evaluate.target_accuracy`."""
    target = params.evaluate.target_accuracy
    if target is None or params.data.split.calibration:
        return []
    return [f"evaluate.target_accuracy: expected data.split.calibration above 0, like 0.1, with {target}, found 0.0"]


def unknown_main_score(params: Params) -> list[str]:
    """A problem if the kind of problem has no such main score."""
    kind, main = params.data.problem, params.evaluate.main
    scores = (AUTO, *PROBLEMS[kind].main_scores)
    if main in scores:
        return []
    return [f"evaluate.main: expected {' or '.join(scores)} with data.problem: {kind}, found {main!r}"]


def unreachable_gates(params: Params) -> list[str]:
    """Gate values of 1 or more, where the main score is a share: no difference of shares can reach them."""
    scores = PROBLEMS[params.data.problem].main_scores
    chosen = scores.values() if params.evaluate.main == AUTO else [scores[params.evaluate.main]]
    if not next(iter(chosen)).share:
        return []
    return [
        f"gate.{key}: expected a share below 1, found {value}"
        for key in ("min_gain", "max_drop", "max_slice_drop")
        if (value := getattr(params.gate, key)) is not None and abs(value) >= 1
    ]


def gate_without_slices(params: Params) -> list[str]:
    """A problem if the gate is about slices and there are none."""
    drop = params.gate.max_slice_drop
    if drop is None or params.data.slices:
        return []
    return [f"gate.max_slice_drop: expected null with data.slices: [], found {drop}; name a column in data.slices"]


def not_to_be_sharded(params: Params) -> list[str]:
    """Problems of `compute.strategy: fsdp` with the method and the precision."""
    if params.compute.strategy != "fsdp":
        return []
    lines, method = [], params.peft.method
    if method in ON_WHOLE_WEIGHTS:
        lines.append(f"compute.strategy: expected ddp with peft.method: {method}, found 'fsdp'; use ddp, or lora")
    if params.precision == "float16":
        lines.append("precision: expected float32 or bfloat16 with compute.strategy: fsdp, found 'float16'")
    return lines


def check_parameter(name: str) -> None:
    """Check that a dotted name is that of a parameter, or of a key within one, like `data.classes.good`.

    Raises:
        PipelineError: it is that of a section, or of nothing; the nearest one is named.
    """
    known = parameters([])
    if any(name == one or name.startswith(f"{one}.") for one in known):
        return
    if within := [one for one in known if one.startswith(f"{name}.")]:
        raise PipelineError(
            f"expected a parameter of params.yaml, found the section {name}; it has {', '.join(within)}"
        )
    same_key = [one for one in known if one.endswith(f".{name}")]
    near = next(iter(same_key), None) or texts.nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"its sections: {', '.join(valid_keys([]))}"
    raise PipelineError(f"expected a parameter of params.yaml, found {name or 'nothing'}; {hint}")


def parameters(section: list[str]) -> list[str]:
    """The dotted names of all parameters at `section`; of a parameter, itself."""
    inside = [name for key in valid_keys(section) for name in parameters([*section, key])]
    return inside or [".".join(section)]


def unfit(name: str, value: Any, params: Params) -> str | None:
    """Why a parameter cannot have a value, whatever the others are; None: it can."""
    values = at = params.model_dump()
    *sections, last = name.split(".")
    for section in sections:
        at = at[section]
    at[last] = value
    try:
        Params.model_validate(values)
    except ValidationError as error:
        of_type = [one for one in error.errors() if one["type"] != "contradiction"]
        return next((line for line in describe(of_type) if line.startswith(f"{name}: ")), None)
    return None


def describe(problems: list[ErrorDetails]) -> list[str]:
    """One line for each key with a problem: what was expected, what was found."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for details in problems:
        unknown = details["type"] == "extra_forbidden"
        keys = map(str, details["loc"]) if unknown else keys_of(details["loc"])
        by_key.setdefault(".".join(keys), []).append(details)
    return [f"{key or 'the file'}: {describe_one(key, details)}" for key, details in by_key.items()]


def describe_one(key: str, details: list[ErrorDetails]) -> str:
    """What is wrong with one key; for a union type, pydantic reports a problem for each member."""
    match details[0]["type"]:
        case "extra_forbidden" if key in MOVED:
            return f"unknown key; {MOVED[key]}"
        case "extra_forbidden":
            *section, name = key.split(".")
            near = texts.nearest(name, valid_keys(section))
            return "unknown key; " + (f"did you mean {near!r}?" if near else f"valid: {', '.join(valid_keys(section))}")
        case "missing":
            return "missing; add it"
        case "contradiction":
            return details[0]["msg"]
    expected = dict.fromkeys(re.sub(WRAPPING, "", one["msg"]) for one in details)
    return f"expected {' or '.join(expected)}, found {details[0]['input']!r}"


def keys_of(location: tuple[int | str, ...]) -> list[str]:
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
