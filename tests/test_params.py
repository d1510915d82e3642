"""params.yaml is checked as a whole, before anything is loaded."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, tiny_params
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.adapters.params import ON_WHOLE_WEIGHTS
from stages.common.errors import ParamsError
from stages.common.section import fill
from stages.common.texts import in_hydra, override
from stages.params import Params

TEXT = (ROOT / "params.yaml").read_text()


def load(tmp_path: Path, *changes: tuple[str, str]) -> Params:
    text = TEXT
    for old, new in changes:
        assert len(re.findall(old, text, re.MULTILINE)) == 1, old
        text = re.sub(old, new, text, flags=re.MULTILINE)
    (tmp_path / "params.yaml").write_text(text)
    return Params.load(tmp_path / "params.yaml")


def test_the_committed_params_are_valid(tmp_path):
    assert load(tmp_path).lora.head_init == "auto"


SETTINGS = [
    ("lora.r=16", "  r: 16"),
    ("seed=7", "seed: 7"),
    ("train.lr=1e-5", "  lr: 1e-05"),
    ("lora.use_dora=true", "  use_dora: true"),
    ("model.layers=null", "  layers:"),
    ("gate.max_slice_drop=0.1", "  max_slice_drop: 0.1"),
    ("data.label=sentiment", "  label: sentiment"),
    ("model.source=package:thing@1.0", "  source: package:thing@1.0"),
    ("data.source=path:data/raw/x.zip//rows.csv", "  source: path:data/raw/x.zip//rows.csv"),
    (override("data.text", "Größe, cm"), "  text: Größe, cm"),
    (override("data.text", "2020"), "  text: '2020'"),
    (override("encode.template", '{text}\n"Queue"'), r"""  template: '{text}\n"Queue"'"""),
]


@pytest.mark.parametrize(("setting", "line"), SETTINGS)
def test_an_override_changes_its_line_and_no_other(tmp_path, setting, line):
    before, after = TEXT.splitlines(), overridden(tmp_path, setting).splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new for _, new in changed] == [line]


LISTS = [
    ("train.seeds=[42,1,2]", 3),
    ("data.slices=[lang,year]", 2),
    ("lora.target_modules=[q_proj,v_proj]", 2),
    ("data.label=[toxic,insult]", 2),
    ("data.classes={bad:0,good:1}", 2),
    ("data.file={train:a.csv,test:b.csv}", 2),
    ("encode.label_words={a:x,b:y}", 2),
    ("+peft.options.num_virtual_tokens=10", 1),
]


@pytest.mark.parametrize(("setting", "lines"), LISTS)
def test_an_override_by_several_values_adds_their_lines_alone(tmp_path, setting, lines):
    before, after = TEXT.splitlines(), overridden(tmp_path, setting).splitlines()
    assert len(after) == len(before) + lines
    assert sum(line not in before for line in after) <= lines + 1
    assert [line for line in before if "#" in line] == [line for line in after if "#" in line]


@pytest.mark.parametrize(
    "value",
    [
        *("Größe", "two\nlines", r"no\nline", 'a "word"', r"a\"b", "C:\\x\\", "tab\tx", "a, b", "", "null", "1e-3"),
        *(None, True, 7, 1e-05, [], ["Größe", 'a"\\', "two\nlines"], [42, 1]),
    ],
)
def test_a_value_that_a_command_gives_to_dvc_arrives_as_it_is(tmp_path, value):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(path, [f"encode.template={in_hydra(value)}"])
    assert YAML(typ="safe").load(path.read_text())["encode"]["template"] == value


def test_params_are_written_for_reading():
    lines = [*TEXT.splitlines(), *(ROOT / "presets/movies.yaml").read_text().splitlines()]
    assert [line for line in lines if len(line) > 100 and "file:" not in line] == []
    assert [line for line in TEXT.splitlines() if "#" in line.lstrip(" #")] == []


def overridden(tmp_path: Path, setting: str) -> str:
    """The committed file after `dvc exp run -S`, given as for a shell."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(path, [shlex.split(setting)[-1]])
    return path.read_text()


def test_a_number_that_dvc_writes_without_a_point_arrives_as_a_number(tmp_path):
    assert load(tmp_path, (r"  lr: \S+", "  lr: 1e-05")).train.lr == 1e-5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"  epochs:", "  epocs:", "train.epocs: unknown key; did you mean 'epochs'?"),
        (r"  epochs: .*\n", "", "train.epochs: missing; add it"),
        (r"^seed:", "sede:", "sede: unknown key; did you mean 'seed'?"),
        (r"  seeds: .*", "  seeds: [42, 1, 42]", "train.seeds: expected different seeds, found [42, 1, 42]"),
        (r"  seeds: .*", "  seeds: [-1]", "train.seeds: expected integer or greater than or equal to 0, found [-1]"),
        (r"  seeds: .*", "  seeds: many", "train.seeds: expected integer or list, found 'many'"),
        (r"  seeds: .*", "  seeds: []", "train.seeds: expected "),
        (r"  r: 8", "  r: abc", "lora.r: expected integer, found 'abc'"),
        (r"max_length: auto", "max_length: all", "encode.max_length: expected integer or 'auto', found 'all'"),
        (r"max_length: auto", "max_length: 0", "encode.max_length: expected greater than or equal to 1 or 'auto'"),
        (r"  r: 8", "  r: 8.0", "lora.r: expected integer, found 8.0"),
        (r"  r: 8", "  r: true", "lora.r: expected integer, found True"),
        (r"  r: 8", "  r: 0", "lora.r: expected greater than or equal to 1, found 0"),
        (r"  lr: \S+", "  lr: .nan", "train.lr: expected a finite number or 'auto', found nan"),
        (r"  lr: \S+", "  lr: .inf", "train.lr: expected a finite number or 'auto', found inf"),
        (r"  lr: \S+", "  lr: 1e-05x", "train.lr: expected number or 'auto', found '1e-05x'"),
        (r"  dropout: 0.0", "  dropout: 1.0", "lora.dropout: expected less than 1, found 1.0"),
        (r"  layers: auto", "  layers: 0", "model.layers: expected greater than or equal to 1 or 'auto', found 0"),
        (r"  top_layers: \d+", "  top_layers: some", "lora.top_layers: expected integer or 'all', found 'some'"),
        (r"  bias: none", "  bias: nome", "lora.bias: expected 'none', 'all' or 'lora_only', found 'nome'"),
        (r"  test: 0.2", "  test: 0.95", "data.split.test: expected validation + test below 1, found 0.1 + 0.95"),
        (
            r"  calibration: 0.0",
            "  calibration: 0.7",
            "expected validation + test + calibration below 1, found 0.1 + 0.2 ",
        ),
        (
            r"  target_accuracy:$",
            "  target_accuracy: 0.95",
            "evaluate.target_accuracy: expected data.split.calibration above 0, like 0.1, with 0.95, found 0.0",
        ),
        (r"  scheduler: linear", "  scheduler: constant", "train.warmup: expected 0 with train.scheduler: constant"),
        (r"columns:$", "columns: [id, id, text]", "data.columns: expected distinct names, found ['id', 'id',"),
        (r"  label:$", "  label: text", "data.label: expected a different column from data.text"),
        (
            r"  format:$",
            "  format: xlsx",
            "data.format: expected 'tsv', 'quoted_tsv', 'csv', 'jsonl', 'parquet' or 'folders'",
        ),
        (r"  slices: \[\]", "  slices: [id, id]", "data.slices: expected distinct columns, found ['id', 'id']"),
        (
            r"  slices: \[\]",
            "  slices: [text]",
            "data.slices: expected other columns than data.text and data.text_pair",
        ),
        (r"max_slice_drop:$", "max_slice_drop: 0.1", "gate.max_slice_drop: expected null with data.slices: []"),
        (r"^  file:$", "  file: {test: a.csv}", "data.file: expected a file for train, found one for test"),
        (
            r"  classes:$",
            "  classes: {a: [null, 0], b: [-1, null]}",
            "data.classes: expected intervals that do not overlap",
        ),
        (
            r"  classes:$",
            "  classes: {a: [null, 0], b: [1, 1]}",
            "data.classes: expected [above, below] with above < below",
        ),
        (
            r"  classes:$",
            "  classes: {a: [null, 0], b: good}",
            "data.classes: expected a value for each class or [above, below] for each",
        ),
        (r"  classes:$", "  classes: {a: 1, b: 1}", "data.classes: expected a different value for each class"),
        (r"  r: 8", f"  r: {10**30}", f"lora.r: expected less than 2147483648, found {10**30}"),
        (r"  max_leak: 0.25", "  max_leak: 1.5", "data.max_leak: expected less than or equal to 1, found 1.5"),
        (
            r"template:$",
            'template: "{text} {text}"',
            "expected {text} exactly once, {text_pair} at most once after it",
        ),
        (r"template:$", 'template: "{text} {x}"', "and no other braces, found '{text} {x}'"),
        (r"template:$", 'template: "{text} {"', "and no other braces, found '{text} {'"),
        (
            r"template:$",
            'template: "{text} {text_pair}"',
            "expected {text} only, as data.text_pair is null",
        ),
        (
            r"text_pair:$",
            "text_pair: more",
            "expected {text_pair} too, or {text} alone, for pairs",
        ),
        (r"template:$", "template: Review", "encode.template: expected {text} exactly once"),
        (r"label_words:$", "label_words: {a: a, b: b}", "encode.label_words: expected the classes of data.classes"),
        (r"  main: auto", "  main: f1", "evaluate.main: expected 'auto', 'accuracy', 'f1_macro', 'mcc', 'roc_auc'"),
        (
            r"  main: auto",
            "  main: mae",
            "evaluate.main: expected auto or accuracy or f1_macro or mcc or roc_auc or log_loss with data.problem: "
            "single_label, found 'mae'",
        ),
        (r"min_gain:", "min_gain: 1.0", "gate.min_gain: expected a share below 1, found 1.0"),
        (
            r"  source: movies",
            "  source: movie",
            "data.source: expected a preset (movies), package:NAME==VERSION, hub:ORG/NAME or path:data/raw/NAME, found "
            "'movie'; did you mean 'movies'?",
        ),
        (
            r"  strategy: ddp",
            "  strategy: zero",
            "compute.strategy: expected 'ddp' or 'fsdp', found 'zero'",
        ),
        *(
            (
                r"(?s)  method: lora\b(.*)  strategy: ddp",
                rf"  method: {method}\1  strategy: fsdp",
                f"compute.strategy: expected ddp with peft.method: {method}, found 'fsdp'; use ddp, or lora",
            )
            for method in ON_WHOLE_WEIGHTS
        ),
        (
            r"(?s)precision: float32(.*)  strategy: ddp",
            r"precision: float16\1  strategy: fsdp",
            "precision: expected float32 or bfloat16 with compute.strategy: fsdp, found 'float16'",
        ),
        (r"  source: movies", "  source: a.csv", "found 'a.csv'; a file of your own is path:data/raw/NAME"),
        (r"  source: movies", "  source: ftp:vader", "path:data/raw/NAME or a preset, found 'ftp:vader'"),
    ],
)
def test_a_problem_is_named_with_its_key_and_what_was_expected(tmp_path, old, new, message):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, (old, new))
    assert message in str(caught.value).replace("String", "string")
    assert "has 1 problem(s)" in str(caught.value) or old.startswith(("  epochs:", "^seed"))


COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("section", "source", "revision", "file"),
    [
        ("model", "hub:org/name", COMMIT, None),
        ("model", "hub:org/name", COMMIT, "model.gguf"),
        ("model", "path:models/raw/name", None, None),
        ("data", "path:data/raw/rows.csv", None, None),
        ("data", "hub:org/name", COMMIT, "data/*.parquet"),
    ],
)
def test_a_source_of_each_kind_is_valid_with_what_pins_it(tmp_path, section, source, revision, file):
    values = {"source": source, "revision": revision, "file": file}
    loaded = getattr(load_with(tmp_path, section, values), section)
    assert loaded.model_dump(include=set(values)) == values
    assert loaded.pin == revision
    assert (loaded.wanted if section == "model" else loaded.files["train"]) == file


def test_a_path_needs_no_other_key_changed(tmp_path):
    model = load_with(tmp_path, "model", {"source": "path:models/raw/x"}).model
    assert (model.pin, model.wanted) == (None, None)
    data = load_with(tmp_path, "data", {"source": "path:data/raw/x"}).data
    assert (data.pin, data.files) == (None, {"train": None})
    committed = load(tmp_path)
    assert (model.revision, model.file) == (committed.model.revision, committed.model.file)


def test_what_is_read_of_the_committed_file_is_what_it_says():
    assert Params.load(ROOT / "params.yaml").model_dump() == YAML(typ="safe").load(TEXT)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {}),
        ("data", {"source": "path:data/raw/x"}),
        ("data", {"source": "path:data/raw/x", "revision": None, "file": None}),
        ("data", {"source": "path:data/raw/x", "file": {"train": "a", "test": "b"}}),
        ("model", {"source": "path:models/raw/x"}),
        ("model", {"source": "path:models/raw/x", "revision": None, "file": None}),
    ],
)
def test_the_checks_change_no_value(tmp_path, section, changes):
    loaded = load_with(tmp_path, section, changes).model_dump()
    written = YAML(typ="safe").load(tmp_path / "params.yaml")
    assert loaded == written
    assert written[section] | changes == written[section]


def test_a_path_of_a_folder_may_hold_ready_splits(tmp_path):
    splits = {"train": "a.csv", "test": "b.csv"}
    assert load_with(tmp_path, "data", {"source": "path:data/raw/x", "file": splits}).data.files == splits


@pytest.mark.parametrize(
    ("section", "source", "revision", "file", "message"),
    [
        (
            "model",
            "package:x==1",
            None,
            "x",
            "model.revision: expected the sha256 of the package's archive, found null",
        ),
        (
            "data",
            "hub:org/name",
            None,
            "x",
            "data.revision: expected the commit of the repository, 40 hex digits, found",
        ),
        ("model", "package:x==1", COMMIT, None, "model.file: expected a file or folder within the package, found null"),
        ("data", "hub:org/name", COMMIT, None, "data.file: expected a file or glob of the dataset repository, like"),
    ],
)
def test_a_source_without_what_pins_it_is_refused(tmp_path, section, source, revision, file, message):
    with pytest.raises(ParamsError) as caught:
        load_with(tmp_path, section, {"source": source, "revision": revision, "file": file})
    assert message in str(caught.value)
    assert "has 1 problem(s)" in str(caught.value)


def load_with(tmp_path: Path, section: str, values: dict) -> Params:
    """The committed parameters with the given values in one section."""
    YAML().dump(tiny_params(**{section: values}), tmp_path / "params.yaml")
    return Params.load(tmp_path / "params.yaml")


def test_the_texts_of_a_pair_lie_in_two_columns(tmp_path):
    with pytest.raises(ParamsError, match=r"data.text_pair: expected a different column from data.text, found 'text'"):
        load(tmp_path, (r"text_pair:$", "text_pair: text"), (r"template:$", 'template: "{text}"'))


@pytest.mark.parametrize("main", ["mcc", "log_loss"])
def test_a_gain_of_a_score_that_is_no_share_may_be_1(tmp_path, main):
    params = load(tmp_path, (r"  main: auto", f"  main: {main}"), (r"min_gain:", "min_gain: 1.0"))
    assert params.gate.min_gain == 1


def test_all_problems_are_listed_at_once(tmp_path):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, (r"  r: 8", "  r: abc"), (r"  lr: \S+", "  lr: .nan"), (r"  epochs:", "  epocs:"))
    for key in ("lora.r", "train.lr", "train.epocs", "train.epochs"):
        assert f"\n  {key}: " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not valid YAML"),
        (b"a: &a [1]\nb: *a", "expected no alias"),
        (b"\xff", "is not UTF-8"),
        (b"", "expected"),
        (b"- 1\n", "expected"),
    ],
)
def test_a_file_that_is_not_a_mapping_of_sections_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message):
        Params.load(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ParamsError, match="run from the root of the repository"):
        Params.load(tmp_path / "params.yaml")


MOVED = """\
data: {bins: {}}
evaluate: {gate: {}}
train: {class_weights: true, epocs: 2}
"""


def test_a_key_of_an_earlier_version_says_where_it_went(tmp_path):
    (tmp_path / "params.yaml").write_text(MOVED)
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    for line in (
        "evaluate.gate: unknown key; it is now the section gate",
        "train.class_weights: unknown key; it is now train.balance: weights",
        "data.bins: unknown key; it is now data.classes",
        "train.epocs: unknown key; did you mean 'epochs'?",
    ):
        assert f"\n  {line}" in str(caught.value)


def test_values_of_a_dataset_fill_null_keys_alone():
    params = {"data": {"source": "x", "text": None, "label": "b"}, "lora": {"r": None}}
    filled = fill(params, {"data": {"source": "path:x", "text": "a", "label": "c", "odd": 1}})
    assert filled == {"data": {"source": "path:x", "text": "a", "label": "b"}, "lora": {"r": None}}


def test_a_preset_fills_what_is_null_and_applies_to_no_other_source(tmp_path):
    movies = load(tmp_path, (r"  label:$", "  label: id")).filled()
    assert (movies.data.source, movies.data.text, movies.data.label) == ("package:vaderSentiment==2.5", "text", "id")
    assert movies.encode.template == "Review: {text}\nSentiment:"
    own = load(tmp_path, (r"  source: movies", "  source: path:data/raw/x.csv")).filled()
    assert (own.data.text, own.data.label, own.data.classes, own.encode.template) == (None,) * 4


def test_a_preset_gives_no_classes_where_the_problem_has_none(tmp_path):
    assert load(tmp_path, (r"problem: single_label", "problem: regression")).filled().data.classes is None


def test_what_prepare_found_replaces_a_preset(tmp_path):
    found = {"data": {"source": "path:x", "text": "body"}, "encode": {"template": "{text}?"}}
    filled = load(tmp_path, (r"  source: movies", "  source: path:x")).filled(found)
    assert (filled.data.text, filled.encode.template) == ("body", "{text}?")


def test_classes_may_be_named_by_numbers_and_booleans():
    data = {"classes": {1: 5, "true": "5.5"}}
    params = Params.model_validate(tiny_params(data=data, encode={"label_words": {1.0: "good", "True": "bad"}}))
    assert list(params.data.classes) == ["1", "true"]
    assert list(params.encode.label_words) == ["1", "true"]


def test_label_words_are_of_the_classes_however_a_name_is_spelled_and_no_name_comes_twice(tmp_path):
    def read(classes, words):
        YAML().dump(tiny_params(data={"classes": classes}, encode={"label_words": words}), tmp_path / "params.yaml")
        return Params.load(tmp_path / "params.yaml")

    assert read({1: 5, 2: 6}, {"1": "bad", 2.0: "good"}).encode.label_words == {"1": "bad", "2": "good"}
    with pytest.raises(ParamsError, match=r"data.classes: expected different classes, found \['1', '1', '2'\]"):
        read({1: 5, "1": 6, 2: 7}, None)
    with pytest.raises(ParamsError, match=r"encode.label_words: expected different classes, found \['a', 'b', 'a'\]"):
        read({"a": 5, "b": 6}, {"a": "x", "b": "y", "a ": "z"})
