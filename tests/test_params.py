"""params.yaml is checked as a whole, before anything is loaded."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

from stages.common.errors import ParamsError
from stages.common.params import Params

TEXT = (ROOT / "params.yaml").read_text()


def load(tmp_path: Path, *changes: tuple[str, str]) -> Params:
    text = TEXT
    for old, new in changes:
        assert len(re.findall(old, text, re.MULTILINE)) == 1, old
        text = re.sub(old, new, text, flags=re.MULTILINE)
    (tmp_path / "params.yaml").write_text(text)
    return Params.load(tmp_path / "params.yaml")


def test_the_committed_params_are_valid(tmp_path):
    assert load(tmp_path).lora.head_init == "label_words"


def test_a_number_that_dvc_writes_without_a_point_arrives_as_a_number(tmp_path):
    assert load(tmp_path, (r"  lr: \S+", "  lr: 1e-05")).train.lr == 1e-5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"  epochs:", "  epocs:", "train.epocs: unknown key; did you mean 'epochs'?"),
        (r"  epochs: .*\n", "", "train.epochs: missing; add it"),
        (r"^seed:", "sede:", "sede: unknown key; did you mean 'seed'?"),
        (r"  r: 8", "  r: abc", "lora.r: expected integer, found 'abc'"),
        (r"  r: 8", "  r: 8.0", "lora.r: expected integer, found 8.0"),
        (r"  r: 8", "  r: true", "lora.r: expected integer, found True"),
        (r"  r: 8", "  r: 0", "lora.r: expected greater than or equal to 1, found 0"),
        (r"  lr: \S+", "  lr: .nan", "train.lr: expected a finite number, found nan"),
        (r"  lr: \S+", "  lr: .inf", "train.lr: expected a finite number, found inf"),
        (r"  lr: \S+", "  lr: 1e-05x", "train.lr: expected number, found '1e-05x'"),
        (r"  dropout: 0.0", "  dropout: 1.0", "lora.dropout: expected less than 1, found 1.0"),
        (r"  top_layers: 12", "  top_layers: some", "lora.top_layers: expected integer or 'all', found 'some'"),
        (r"  bias: none", "  bias: nome", "lora.bias: expected 'none', 'all' or 'lora_only', found 'nome'"),
        (r"  test: 0.2", "  test: 0.95", "data.split.test: expected validation + test below 1, found 0.1 + 0.95"),
        (r"  scheduler: linear", "  scheduler: constant", "train.warmup: expected 0 with train.scheduler: constant"),
        (r"  text: text", "  text: body", "data.text: expected one of data.columns ['id', 'rating', 'text']"),
        (r"  label: rating", "  label: text", "data.label: expected another column than data.text"),
        (r"  format: tsv", "  format: jsonl", "data.columns: expected null with data.format: jsonl"),
        (r"\[0, null\]", "[-1, null]", "data.bins: expected bins that do not overlap"),
        (r"\[0, null\]", "[1, 1]", "data.bins: expected [above, below] with above < below"),
        (r"template: .*", "template: Review", "encode.template: expected {text} exactly once, found 'Review'"),
        (r'    positive: " positive"', '    good: " good"', "encode.label_words: expected the classes of data.bins"),
        (r"  source: package:vader", "  source: vader", "data.source: expected string should match"),
    ],
)
def test_a_problem_is_named_with_its_key_and_what_was_expected(tmp_path, old, new, message):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, (old, new))
    assert message in str(caught.value).replace("String", "string")
    assert "has 1 problem(s)" in str(caught.value) or old.startswith(("  epochs:", "^seed"))


def test_all_problems_are_listed_at_once(tmp_path):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, (r"  r: 8", "  r: abc"), (r"  lr: \S+", "  lr: .nan"), (r"  epochs:", "  epocs:"))
    for key in ("lora.r", "train.lr", "train.epocs", "train.epochs"):
        assert f"\n  {key}: " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "is not valid YAML"), (b"\xff", "is not UTF-8"), (b"", "expected"), (b"- 1\n", "expected")],
)
def test_a_file_that_is_not_a_mapping_of_sections_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message):
        Params.load(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ParamsError, match="run from the root of the repository"):
        Params.load(tmp_path / "params.yaml")
