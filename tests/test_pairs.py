"""Pairs of texts, through every stage and out again."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import whole_run
from families import BAD, GOOD

from stages import predict
from stages.common import errors, paths
from stages.rows import formats

TEMPLATE = "First: {text}\nSecond: {text_pair}\nThe same:"


def pairs(count):
    """Pairs that say the same or not; neither text alone tells."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        one, other = (GOOD, BAD) if number % 2 else (BAD, GOOD)
        first, second = generator.choice(one, 2), generator.choice(one if number // 2 % 2 else other, 2)
        rows.append(
            {
                "id": number,
                "one": f"{' '.join(first)} {generator.integers(10**9)} film",
                "two": f"{' '.join(second)} {generator.integers(10**9)} story",
                "same": bool(number // 2 % 2),
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    """A folder in which every stage ran on pairs."""
    data = {"format": None, "text": "one", "text_pair": "two", "label": "same", "classes": None}
    sections = {"data": data, "encode": {"template": TEMPLATE, "max_length": "auto"}, "train": {"epochs": 1}}
    with whole_run.ran(tmp_path_factory.mktemp("pairs"), pairs(160), saved_model("llama"), **sections) as folder:
        yield folder


def test_the_length_that_auto_stands_for_is_in_all_that_reads_texts(ran, monkeypatch):
    monkeypatch.chdir(ran)
    made, window = whole_run.read(paths.ADAPTER / "run.json"), 128
    assert made["params"]["encode"]["max_length"] == "auto"
    for values, key in (
        (made, "max_length"),
        (whole_run.read(paths.ENCODED / "about.json"), "max_length"),
        (whole_run.read(paths.ENCODE_METRICS), "max_length"),
        (whole_run.read(paths.ADAPTER / "tokenizer_config.json"), "model_max_length"),
    ):
        assert values[key] == window
    assert "Every text was read to its end, within `encode.max_length`, 128 tokens." in paths.REPORT.read_text()


def predicted(arguments, patch, capsys):
    patch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    capsys.readouterr()
    predict.main()
    return capsys.readouterr().out


def test_predict_agrees_with_evaluate_on_pairs_from_a_file(ran, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ran)
    table = pd.read_csv(paths.TEST_PREDICTIONS)
    assert list(table.columns[:4]) == ["row", "text", "text_pair", "label"]
    table.rename(columns={"text": "one", "text_pair": "two"})[["one", "two"]].to_csv(tmp_path / "in.csv", index=False)
    predicted(["--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"], monkeypatch, capsys)
    answers = pd.read_csv(tmp_path / "out.csv")
    assert answers["label"].tolist() == table["tuned"].tolist()
    np.testing.assert_allclose(answers["probability"], table["probability"], atol=1e-4)


def test_a_tab_parts_the_texts_of_a_pair_on_the_command_line(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran)
    header, row = predicted(["good film\tbad story"], monkeypatch, capsys).splitlines()
    assert header.startswith("text\ttext_pair\tlabel\t")
    assert row.startswith("good film\tbad story\t")
    assert "half \ufffd\tbad\t" in predicted(["half \udcff\tbad"], monkeypatch, capsys)
    with pytest.raises(errors.PipelineError, match="expected pairs of texts with a TAB between them, found 'good'"):
        predicted(["good"], monkeypatch, capsys)


def test_every_rival_is_scored_on_pairs(ran):
    scores = json.loads((ran / paths.BASELINE_METRICS).read_text())
    assert {"bag_of_words", "zero_shot", "linear_probe"} <= set(scores)


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_what_was_given(monkeypatch, capsys):
    for terminal, shown in ((True, '"text"\n"\\x1b[31mred\\r"\n'), (False, '"text"\n"\x1b[31mred\r"\n')):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        predict.write(pd.DataFrame({"text": ["\x1b[31mred\r"]}), None)
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_line_separators_in_a_carried_text_leave_its_row_whole(ending, tmp_path):
    table = pd.DataFrame({"text": ["a\rb", "e\nf", "g\x85h\u2028i\x0c", 'j",\t']})
    predict.write(table, tmp_path / f"answers{ending}")
    assert formats.read_table(tmp_path / f"answers{ending}")["text"].tolist() == table["text"].tolist()
