"""Bad inputs: for each what is wrong, which command meets it, and the one line that it must give.

To add one, add a row. A row is a name, the command with its arguments, the regular expression that the last line on
standard error must contain, and what makes the input bad: changed parameters, written files, or a function that gets
the folder of a finished tiny pipeline.
"""

import gzip
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

GOOD = b"text,label\n" + b"".join(f"this one is {word},{word}\n".encode() for word in ("good", "bad") * 40)
"""A table that can be read."""


@dataclass(frozen=True)
class Case:
    """A bad input."""

    where: str
    name: str
    command: tuple[str, ...]
    line: str
    params: dict[str, Any] = field(default_factory=dict)
    """New values by their dotted keys."""
    files: dict[str, bytes] = field(default_factory=dict)
    """New contents by path."""
    change: Callable[[Path], Any] = lambda folder: None

    def __str__(self) -> str:
        return f"{self.where}: {self.name}"


def setting(key: str, value: Any, line: str, *, command: str = "report", **others: Any) -> Case:
    """A value in params.yaml; `others`: more of them, with `__` for the dot."""
    params = {key: value} | {name.replace("__", "."): other for name, other in others.items()}
    return Case("params.yaml", f"{key}: {value!r}"[:40], (command,), line, params)


def params_file(name: str, content: bytes, line: str) -> Case:
    """The whole of params.yaml."""
    return Case("params.yaml", name, ("report",), line, files={"params.yaml": content})


def table(name: str, file: str, content: bytes, line: str, **data: Any) -> Case:
    """A file of data/raw that `prepare` reads; `data`: keys of that section."""
    params = {f"data.{key}": value for key, value in (OWN_DATA | data).items()} | {
        "data.source": f"path:data/raw/{file}"
    }
    return Case("data", name, ("prepare",), line, params, {f"data/raw/{file}": content})


OWN_DATA = dict.fromkeys(("revision", "file", "format", "columns", "text", "label", "classes")) | {
    "limit": {"train": None, "validation": None, "test": None}
}
"""What the section `data` says of a file that describes itself."""


def model(name: str, line: str, change: Callable[[Path], Any]) -> Case:
    """A folder in models/raw that `fetch` reads, changed from a good one."""

    def put(folder: Path) -> None:
        shutil.copytree(folder / "models/base", folder / "models/raw/own")
        change(folder / "models/raw/own")

    params = {"model.source": "path:models/raw/own", "model.revision": None, "model.file": None}
    return Case("model", name, ("fetch",), line, params, change=put)


DAMAGED = "{path}: expected what the pipeline wrote there, found it damaged"
"""The line about an output; `{path}`: its path, or that of its folder."""


def made(name: str, command: str, line: str, path: str, change: Callable[[Path], Any]) -> Case:
    """An output of an earlier stage, changed."""
    folders = "|".join(re.escape(str(one)) for one in (path, *Path(path).parents[:-2]))
    line = line.replace("{path}", f"({folders})")
    return Case("outputs of stages", name, tuple(command.split()), line, change=lambda folder: change(folder / path))


def missing(name: str, command: str, path: str, named: str | None = None) -> Case:
    """An output of an earlier stage, removed; the line names the file `named`, if it is not the output itself."""
    return made(name, command, rf"{re.escape(named or path)} is missing; make it with: dvc repro", path, remove)


def asked(
    name: str, command: str, line: str, change: Callable[[Path], Any] = lambda folder: None, **files: bytes
) -> Case:
    """Arguments of a command."""
    return Case(f"arguments of {command.split()[0]}", name, tuple(command.split()), line, files=files, change=change)


def jsonl(*rows: Any) -> bytes:
    """A file of JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(**columns: list) -> bytes:
    """A Parquet file."""
    content = io.BytesIO()
    pd.DataFrame(columns).to_parquet(content)
    return content.getvalue()


def zipped(**files: bytes) -> bytes:
    """A .zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def halve(path: Path) -> None:
    """Cut a file off in its middle."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave a file without content."""
    path.write_bytes(b"")


def garble(path: Path) -> None:
    """Overwrite a file with bytes that mean nothing."""
    path.write_bytes(bytes(range(256)) * 8)


def conflict(path: Path) -> None:
    """Put the marks of a merge conflict into a file."""
    text = path.read_text()
    path.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")


def wrong_json(path: Path) -> None:
    """JSON of another kind."""
    path.write_text("[1, 2, 3]\n")


def into_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def remove(path: Path) -> None:
    """Take away a file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def fifo(path: Path) -> None:
    """Put a named pipe in the place of a file, from which no one would ever read an end."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def edited(key: str, value: Any) -> Callable[[Path], None]:
    """Sets a key of a JSON file."""

    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return edit


TOKENIZER = "models/base: expected a tokenizer that transformers can read, found: "

SETTINGS = [
    setting("train.lr", -1, r"train\.lr: expected greater than 0 or 'auto', found -1"),
    setting("train.lr", 0, r"train\.lr: expected greater than 0 or 'auto', found 0"),
    setting("train.lr", float("nan"), r"train\.lr: expected a finite number or 'auto', found nan"),
    setting("train.lr", "fast", r"train\.lr: expected number or 'auto', found 'fast'"),
    setting("train.lr", [1e-3], r"train\.lr: expected number or 'auto', found \[0\.001\]"),
    setting("train.epochs", 0, r"train\.epochs: expected greater than or equal to 1 or 'auto', found 0"),
    setting("train.epochs", 1.5, r"train\.epochs: expected integer or 'auto', found 1\.5"),
    setting("train.epochs", 10**400, "train.epochs: expected less than 2147483648 or 'auto'"),
    setting("train.epochs", True, r"train\.epochs: expected integer or 'auto', found True"),
    setting("train.batch_size", 0, r"train\.batch_size: expected greater than or equal to 1, found 0"),
    setting("train.batch_size", None, r"train\.batch_size: expected integer, found None"),
    setting("train.batch_size", 2**70, "train.batch_size: expected less than 2147483648, found"),
    setting("train.warmup", 1.5, r"train\.warmup: expected less than 1, found 1\.5"),
    setting("train.scheduler", "cubic", r"train\.scheduler: expected 'linear', 'cosine', 'constant' or"),
    setting("train.balance", "yes", r"train\.balance: expected 'auto', 'weights' or 'sampling', found 'yes'"),
    setting("train.seeds", [1, 1], r"train\.seeds: expected different seeds, found \[1, 1\]"),
    setting("train.seeds", -3, r"train\.seeds: expected greater than or equal to 0 or list, found -3"),
    setting("train.seeds", 2**64, r"train\.seeds: expected less than 4294967296 or list, found"),
    setting("train.label_smoothing", 2, r"train\.label_smoothing: expected less than 1, found 2"),
    setting("train.early_stopping", 0, r"train\.early_stopping: expected greater than or equal to 1, found 0"),
    setting("train.epoch", 3, r"train\.epoch: unknown key; did you mean 'epochs'\?"),
    setting("seed", "forty-two", "seed: expected integer, found 'forty-two'"),
    setting("seed", 2**40, "seed: expected less than 4294967296, found 1099511627776"),
    setting("precision", "float8", "precision: expected 'float32', 'bfloat16' or 'float16', found 'float8'"),
    setting("lora.r", 0, r"lora\.r: expected greater than or equal to 1, found 0"),
    setting("lora.r", "8", r"lora\.r: expected integer, found '8'"),
    setting("lora.dropout", 1, r"lora\.dropout: expected less than 1, found 1"),
    setting("lora.top_layers", "some", r"lora\.top_layers: expected integer or 'all', found 'some'"),
    setting("lora.target_modules", [], r"lora\.target_modules: expected at least 1 item or 'all-linear', found"),
    setting("lora.target_modules", [1, 2], r"lora\.target_modules: expected string or 'all-linear', found 1"),
    setting("lora.head_init", "zeros", r"lora\.head_init: expected 'auto', 'probe', 'mean_probe', 'label_words' or"),
    setting("peft.method", "lara", r"peft\.method: expected 'lora', 'qlora', 'adalora', 'vera', 'ia3', 'loha',"),
    setting("peft.options", [], r"peft\.options: expected dictionary, found \[\]"),
    setting("peft.options", {"no_such_option": 1}, "no_such_option", command="train"),
    setting("model.source", "gpt2", r"model\.source: expected pattern '\^\(package\|hub\|path\):"),
    setting("model.source", "path:../../etc", "expected a path below models/raw/, which DVC watches", command="fetch"),
    setting("model.source", "https://example.org/model", r"model\.source: expected pattern '\^\(package\|hub\|path\):"),
    setting("model.revision", "main", "expected a revision of 64 hex digits", command="fetch"),
    setting("model.layers", 0, r"model\.layers: expected greater than or equal to 1 or 'auto', found 0"),
    setting("data.source", "no_such_preset", r"data\.source: expected a preset \(movies\), package:NAME==VERSION,"),
    setting("data.source", "path:/etc/passwd", "expected a path below data/raw/, which DVC watches", command="prepare"),
    setting("data.source", ["a"], r"data\.source: expected string, found \['a'\]"),
    setting("data.problem", "ranking", r"data\.problem: expected 'single_label', 'multi_label' or 'regression',"),
    setting("data.format", "xlsx", r"data\.format: expected 'tsv', 'quoted_tsv', 'csv', 'jsonl', 'parquet' or"),
    setting(
        "data.split",
        {"validation": 0.6, "test": 0.6, "calibration": 0.0},
        r"data\.split\.test: expected validation \+ test below 1, found 0\.6 \+ 0\.6:",
    ),
    setting("data.split", None, r"data\.split: expected dictionary, found None"),
    setting(
        "data.limit",
        {"train": 0, "validation": 1, "test": 1},
        r"data\.limit\.train: expected greater than or equal to 1, found 0",
    ),
    setting("data.near_duplicate", 7, r"data\.near_duplicate: expected less than or equal to 1, found 7"),
    setting("data.columns", ["a", "a"], r"data\.columns: expected distinct names, found \['a', 'a'\]: rename one"),
    setting(
        "encode.template",
        "no text in it",
        r"encode\.template: expected \{text\} exactly once, \{text_pair\} at most once",
    ),
    setting(
        "encode.template",
        "{text} {rating}",
        r"encode\.template: expected \{text\} exactly once, \{text_pair\} at most once",
    ),
    setting(
        "encode.template", "{text", r"encode\.template: expected \{text\} exactly once, \{text_pair\} at most once"
    ),
    setting("encode.max_length", 0, r"encode\.max_length: expected greater than or equal to 1 or 'auto', found 0"),
    setting("encode.max_length", "longest", r"encode\.max_length: expected integer or 'auto', found 'longest'"),
    setting("encode.max_gb", -1, r"encode\.max_gb: expected greater than 0, found -1"),
    setting("encode.dtype", "int8", r"encode\.dtype: expected 'float32' or 'bfloat16', found 'int8'"),
    setting("encode.truncation", "middle", r"encode\.truncation: expected 'head', 'tail' or 'windows', found 'middle'"),
    setting(
        "evaluate.main", "precision", r"evaluate\.main: expected 'auto', 'accuracy', 'f1_macro', 'mcc', 'roc_auc',"
    ),
    setting("evaluate.resamples", 0, r"evaluate\.resamples: expected greater than or equal to 100, found 0"),
    setting("evaluate.target_accuracy", 1.2, r"evaluate\.target_accuracy: expected less than 1, found 1\.2"),
    setting("gate.min_accuracy", "high", r"gate\.min_accuracy: expected number, found 'high'"),
    setting("gate.max_p_value", 3, r"gate\.max_p_value: expected less than 1, found 3"),
    setting("checkpoints.minutes", 0, r"checkpoints\.minutes: expected greater than 0, found 0"),
    setting("checkpoints.days", -1, r"checkpoints\.days: expected greater than 0, found -1"),
    setting("compute.processes", 0, r"compute\.processes: expected greater than or equal to 1, found 0"),
    setting("compute.engine", "spark", r"compute\.engine: expected 'local' or 'ray', found 'spark'"),
    setting("baseline.regularization", [], r"baseline\.regularization: expected at least 1 item, found"),
    setting("baseline.ngrams", [0], r"baseline\.ngrams: expected greater than or equal to 1, found 0"),
    setting("baseline", None, "baseline: expected dictionary, found None"),
    setting("trian", {}, r"trian: unknown key; did you mean 'train'\?"),
    params_file("empty", b"", "the file: expected dictionary, found None"),
    params_file("a list", b"- train\n- data\n", r"the file: expected dictionary, found \['train', 'data'\]"),
    params_file("a word", b"params\n", "the file: expected dictionary, found 'params'"),
    params_file(
        "a tab", b"train:\n\tlr: 1\n", r"params\.yaml is not valid YAML: while scanning for the next token found"
    ),
    params_file(
        "a key twice",
        b"train: {lr: 1, lr: 2}\n",
        r'params\.yaml is not valid YAML: while constructing a mapping in "<unicode',
    ),
    params_file(
        "marks of a merge conflict",
        b"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> other\n",
        r"params\.yaml is not valid YAML: mapping values are not allowed here in",
    ),
    params_file(
        "not text", bytes(range(256)), r"params\.yaml is not UTF-8 text: 'utf-8' codec can't decode byte 0x80 in"
    ),
    params_file(
        "UTF-16",
        "seed: 1\n".encode("utf-16"),
        r"params\.yaml is not UTF-8 text: 'utf-8' codec can't decode byte 0xff in",
    ),
    params_file(
        "a tag that makes an object",
        b"seed: !!python/object/apply:os.getcwd []\n",
        r"params\.yaml is not valid YAML: could not determine a constructor for the",
    ),
    params_file("an alias of itself", b"train: &a [*a]\n", r"expected no alias, found \*a in line 1"),
    params_file(
        "aliases that multiply",
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n".encode() for n in range(8)),
        r"expected no alias, found \*a in line 2",
    ),
    params_file(
        "deep nesting",
        b"train: " + b"[" * 20000 + b"]" * 20000 + b"\n",
        "expected at most 20 levels, found more in line 1",
    ),
    Case(
        "params.yaml",
        "missing",
        ("report",),
        r"params\.yaml not found; run from the root of the repository",
        change=lambda folder: remove(folder / "params.yaml"),
    ),
    Case(
        "params.yaml",
        "a folder",
        ("report",),
        "params.yaml: Is a directory",
        change=lambda folder: into_folder(folder / "params.yaml"),
    ),
]

TABLES = [
    table("empty", "x.csv", b"", r"x\.csv: expected csv, found: No columns to parse from file"),
    table("a header alone", "x.csv", b"text,label\n", r"x\.csv: expected rows, found none"),
    table("blank lines alone", "x.csv", b"\n\n\n", r"x\.csv: expected csv, found: No columns to parse from file"),
    table(
        "no column of texts",
        "x.csv",
        b"a,b\n1,2\n3,4\n",
        r"x\.csv: expected data\.text to name the column with the text, as none looks",
    ),
    table(
        "a wrong column",
        "x.csv",
        GOOD,
        r"x\.csv: expected a column 'txt' \(data\.text\), found text, label; did you",
        text="txt",
        label="label",
    ),
    table(
        "a column twice",
        "x.csv",
        b"text,text,label\na,b,1\n",
        "several columns 'text'; rename all but one",
        text="text",
        label="label",
    ),
    table(
        "a row with more fields",
        "x.csv",
        GOOD + b"a,b,c,d\n",
        r"x\.csv: expected csv, found: 4 fields in row 81, 2 in the first line;",
    ),
    table(
        "a row with fewer fields",
        "x.csv",
        GOOD + b"a\n",
        r"x\.csv: expected csv, found: 1 fields in row 81, expected 2 or more;",
        text="text",
        label="label",
    ),
    table(
        "a quote that never ends",
        "x.csv",
        GOOD + b'"never ends,good\n',
        r"x\.csv: expected csv, found: Error tokenizing data\. C error: EOF inside",
    ),
    table(
        "NUL bytes",
        "x.csv",
        b"text,label\n" + b"\x00" * 500,
        r"x\.csv: expected csv, found: 1 fields in row 1, expected 2 or more; correct",
    ),
    table(
        "not text",
        "x.csv",
        bytes(range(256)) * 40,
        r"x\.csv: expected UTF-8 text, found byte 0x80 at 128; convert the file to",
    ),
    table(
        "one class",
        "x.csv",
        b"text,label\n" + b"".join(b"text %d,good\n" % n for n in range(50)),
        "expected at least two classes, found good",
    ),
    table(
        "every row its own class",
        "x.csv",
        b"text,label\n" + b"".join(b"a longer text %d,c%d\n" % (n, n) for n in range(50)),
        "expected at least 3 rows of every class, one for each split, found fewer of c5 \\(1\\), ",
        text="text",
        label="label",
    ),
    table(
        "all rows alike",
        "x.csv",
        b"text,label\n" + b"the same text,good\nthe same text,bad\n" * 30,
        "expected at least two classes, found no usable row",
    ),
    table(
        "two rows",
        "x.csv",
        b"text,label\nsome text,good\nother text,bad\n",
        "expected at least 3 rows of every class, one for each split, found fewer of bad \\(1\\), good \\(1\\); add",
    ),
    table(
        "labels missing",
        "x.csv",
        b"text,label\n" + b"some text,\n" * 5 + GOOD[11:],
        r"x\.csv: expected a label in every row, found 5 without one, the first in",
        text="text",
        label="label",
    ),
    table(
        "no such ending",
        "x.xlsx",
        b"PK\x03\x04",
        r"x\.xlsx: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; save the sheet as \.csv",
    ),
    table(
        "an old workbook",
        "x.xls",
        b"\xd0\xcf\x11\xe0",
        r"x\.xls: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; save the sheet as \.csv",
    ),
    table(
        "an array of objects",
        "x.json",
        b'[{"text": "a"}]',
        r"x\.json: expected a file ending in .*; write one JSON object per line into a \.jsonl file, as jq -c",
    ),
    table(
        "no such format in the file",
        "x.csv",
        GOOD,
        r"x\.csv: expected parquet, found: Parquet magic bytes not found in footer\.",
        format="parquet",
    ),
    table(
        "names that do not fit",
        "x.csv",
        b"a b c,good\nd e f,bad\n",
        r"x\.csv: expected csv, found: a b c, good in the first line, which is",
        columns=["id", "text", "label"],
        text="text",
        label="label",
    ),
    table(
        "a wrong problem",
        "x.csv",
        GOOD,
        r"x\.csv: expected a finite number in column 'label', found 'good' in row 1;",
        problem="regression",
    ),
    table(
        "labels of several",
        "x.csv",
        GOOD,
        r"x\.csv: expected a list of labels in column 'label', or a column for each",
        problem="multi_label",
        text="text",
        label="label",
    ),
    table(
        "numbers that are not finite",
        "x.csv",
        b"text,label\n" + b"a good text,inf\n" * 40,
        r"x\.csv: expected a finite number in column 'label', found 'inf' in row 1;",
        problem="regression",
        text="text",
        label="label",
    ),
    table(
        "a label beyond all numbers",
        "x.jsonl",
        b'{"text": "a", "label": 1e999}\n' * 40,
        r"x\.jsonl: expected a finite number in column 'label', found inf in row 1;",
        problem="regression",
        text="text",
        label="label",
    ),
    table(
        "classes that no row has",
        "x.csv",
        GOOD,
        r"data\.classes: expected labels with the value '1' \(up\), '2' \(down\), found",
        classes={"up": 1, "down": 2},
        text="text",
        label="label",
    ),
    table(
        "a slice that is no column",
        "x.csv",
        GOOD,
        r"x\.csv: expected a column 'language' \(data\.slices\), found text, label;",
        slices=["language"],
        text="text",
        label="label",
    ),
    table(
        "a second text that is no column",
        "x.csv",
        GOOD,
        r"encode\.template: expected \{text_pair\} too, or \{text\} alone, for pairs,",
        text_pair="other",
        text="text",
        label="label",
    ),
    table(
        "tsv, a row with more fields",
        "x.tsv",
        b"text\tlabel\n" + b"a\tb\n" * 9 + b"a\tb\tc\n",
        r"x\.tsv: expected tsv, found: 3 fields in row 10, 2 in the first line;",
    ),
    table(
        "jsonl, no JSON",
        "x.jsonl",
        jsonl({"text": "a", "label": 1}) + b"{nonsense\n",
        r"x\.jsonl: expected jsonl, found: Expecting property name enclosed in double",
    ),
    table(
        "jsonl, a list a line",
        "x.jsonl",
        jsonl(["a", 1], ["b", 2]),
        r'x\.jsonl: expected jsonl, found: \["a", 1\] in line 1, which is not a JSON',
    ),
    table(
        "jsonl, cut off",
        "x.jsonl",
        jsonl(*[{"text": f"text {n}", "label": n % 2} for n in range(50)])[:-9],
        r"x\.jsonl: expected jsonl, found: Unterminated string starting at: line 1",
    ),
    table(
        "jsonl, one JSON array",
        "x.jsonl",
        b"[\n" + b'{"text": "a", "label": 1},\n' * 9 + b"]\n",
        r"x\.jsonl: expected jsonl, found: Expecting value: line 1 column 2 \(char 1\)",
    ),
    table("jsonl, deep nesting", "x.jsonl", b"[" * 100_000 + b"\n", "values nested too deeply in line 1; unnest them"),
    table(
        "jsonl, an object as text",
        "x.jsonl",
        jsonl(*[{"text": {"a": 1}, "label": n % 2} for n in range(50)]),
        r"x\.jsonl: expected text, numbers or booleans in column 'text' \(data\.text\),",
        text="text",
        label="label",
    ),
    table("jsonl, empty", "x.jsonl", b"", r"x\.jsonl: expected rows, found none"),
    table(
        "jsonl, other keys in every row",
        "x.jsonl",
        "".join(f'{{"text": "a", "label": "b", "{row}": 1}}\n' for row in range(1000)).encode(),
        r"x\.jsonl: expected jsonl, found: more than 1,000 columns; remove those",
    ),
    table(
        "jsonl, an integer of many digits",
        "x.jsonl",
        b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n",
        r"x\.jsonl: expected jsonl, found: Exceeds the limit \(4300 digits\) for",
    ),
    table(
        "parquet, garbage",
        "x.parquet",
        b"nonsense" * 100,
        r"x\.parquet: expected parquet, found: Parquet magic bytes not found in",
    ),
    table(
        "parquet, empty file", "x.parquet", b"", r"x\.parquet: expected parquet, found: Parquet file size is 0 bytes"
    ),
    table(
        "parquet, cut off",
        "x.parquet",
        parquet(text=["a"] * 50, label=[0, 1] * 25)[:-20],
        r"x\.parquet: expected parquet, found: Parquet magic bytes not found in",
    ),
    table(
        "parquet, no rows",
        "x.parquet",
        parquet(text=[], label=[]),
        r"x\.parquet: expected rows, found none",
        text="text",
        label="label",
    ),
    table(
        "parquet, bytes as text",
        "x.parquet",
        parquet(text=[b"\xff\xfe"] * 50, label=[0, 1] * 25),
        r"x\.parquet: expected text, numbers or booleans in column 'text'",
        text="text",
        label="label",
    ),
    table(
        "parquet, lists as labels",
        "x.parquet",
        parquet(text=["a text"] * 50, label=[["a", "b"]] * 50),
        r"x\.parquet: expected text, numbers or booleans in column 'label'",
        text="text",
        label="label",
    ),
    table(
        "gzip, garbage",
        "x.csv.gz",
        b"nonsense",
        r"x\.csv\.gz: expected rows, found none",
    ),
    table(
        "gzip, cut off",
        "x.csv.gz",
        gzip.compress(GOOD, mtime=0)[:-20],
        r"x\.csv\.gz: expected csv, found: damaged compression \(Compressed file ended",
    ),
    table(
        "zip, garbage",
        "x.zip",
        b"PK nonsense",
        r"x\.zip: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; unpack it \(data\.source may",
    ),
    table(
        "zip, cut off",
        "x.zip",
        zipped(**{"a.csv": GOOD})[:-30],
        r"x\.zip: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; unpack it \(data\.source may",
    ),
    table(
        "zip, no files",
        "x.zip",
        zipped(),
        r"x\.zip: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; unpack it \(data\.source may",
    ),
    table(
        "zip, several files",
        "x.zip",
        zipped(**{"a.csv": GOOD, "b.txt": b"x"}),
        r"x\.zip: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet; unpack it \(data\.source may",
    ),
    Case(
        "data",
        "no such file",
        ("prepare",),
        r"path:data/raw/absent\.csv: expected a file or folder, found none; put it",
        {"data.source": "path:data/raw/absent.csv", "data.revision": None, "data.file": None},
    ),
    Case(
        "data",
        "no such file in an archive",
        ("prepare",),
        r"x\.zip: expected a member 'b\.csv', found none; it holds: a\.csv",
        {f"data.{k}": v for k, v in OWN_DATA.items()} | {"data.source": "path:data/raw/x.zip//b.csv"},
        {"data/raw/x.zip": zipped(**{"a.csv": GOOD})},
    ),
    Case(
        "data",
        "a glob that finds nothing",
        ("prepare",),
        r"raw: expected a member '\*\.csv', found none; it holds: README\.md",
        {f"data.{k}": v for k, v in OWN_DATA.items()} | {"data.source": "path:data/raw/*.csv"},
    ),
    Case(
        "data",
        "an empty folder",
        ("prepare",),
        "none: expected a file or a folder of files, found an empty folder",
        {f"data.{k}": v for k, v in OWN_DATA.items()} | {"data.source": "path:data/raw/none"},
        change=lambda folder: (folder / "data/raw/none").mkdir(parents=True),
    ),
    Case(
        "data",
        "a named pipe",
        ("prepare",),
        r"path:data/raw/p\.csv: expected a file or folder, found a named pipe; put a",
        {f"data.{k}": v for k, v in OWN_DATA.items()} | {"data.source": "path:data/raw/p.csv"},
        change=lambda folder: fifo(folder / "data/raw/p.csv"),
    ),
    Case(
        "data",
        "a link to nothing",
        ("prepare",),
        r"path:data/raw/l\.csv: expected a file or folder, found a symbolic link to",
        {f"data.{k}": v for k, v in OWN_DATA.items()} | {"data.source": "path:data/raw/l.csv"},
        change=lambda folder: (folder / "data/raw/l.csv").symlink_to("gone"),
    ),
]

MODELS = [
    model(
        "no config.json",
        r"path:models/raw/own: expected a \.gguf file or a folder with config\.json,",
        lambda home: remove(home / "config.json"),
    ),
    model(
        "no weights",
        r"own: expected model\.safetensors, found config\.json,",
        lambda home: remove(home / "model.safetensors"),
    ),
    model(
        "config.json, cut off",
        r"config\.json: expected JSON, found: Unterminated string starting at: line",
        lambda home: halve(home / "config.json"),
    ),
    model(
        "config.json, a list",
        r"config\.json: expected a JSON object, found list",
        lambda home: wrong_json(home / "config.json"),
    ),
    model(
        "config.json, empty",
        r"config\.json: expected JSON, found: Expecting value: line 1 column 1 \(char",
        lambda home: empty(home / "config.json"),
    ),
    model(
        "config.json, not text",
        r"config\.json: expected JSON, found: 'utf-8' codec can't decode byte 0x80 in",
        lambda home: garble(home / "config.json"),
    ),
    model(
        "a pickle for weights",
        r"own: expected model\.safetensors, found config\.json,",
        lambda home: (home / "model.safetensors").rename(home / "pytorch_model.bin"),
    ),
    model(
        "weights, cut off",
        r"model\.safetensors: expected weights in safetensors, found a truncated file",
        lambda home: halve(home / "model.safetensors"),
    ),
    model(
        "weights, empty",
        r"model\.safetensors: expected weights in safetensors, found a truncated file",
        lambda home: empty(home / "model.safetensors"),
    ),
    model(
        "weights, garbage",
        r"model\.safetensors: expected weights in safetensors, found a truncated file",
        lambda home: garble(home / "model.safetensors"),
    ),
    model(
        "tokenizer_config.json, a list",
        r"tokenizer_config\.json: expected a JSON object, found list",
        lambda home: wrong_json(home / "tokenizer_config.json"),
    ),
    Case(
        "model",
        "no such folder",
        ("fetch",),
        "path:models/raw/absent: expected a file or folder, found none; put it",
        {"model.source": "path:models/raw/absent", "model.revision": None, "model.file": None},
    ),
    Case(
        "model",
        "gguf, garbage",
        ("fetch",),
        r"x\.gguf: expected a GGUF file of a language model that transformers reads,",
        {"model.source": "path:models/raw/x.gguf", "model.revision": None, "model.file": None},
        {"models/raw/x.gguf": b"GGUF" + b"\xff" * 200},
    ),
    Case(
        "model",
        "gguf, empty",
        ("fetch",),
        r"x\.gguf: expected a GGUF file of a language model that transformers reads,",
        {"model.source": "path:models/raw/x.gguf", "model.revision": None, "model.file": None},
        {"models/raw/x.gguf": b""},
    ),
    Case(
        "model",
        "not in the package index",
        ("fetch",),
        r"package:no-such-model==1\.0: not found, or the package index cannot be",
        {"model.source": "package:no-such-model==1.0", "model.revision": "0" * 64},
    ),
    Case(
        "model",
        "another archive than was pinned",
        ("fetch",),
        "expected an archive with sha256 0{64}, found .*; correct the revision",
        {"model.revision": "0" * 64},
    ),
]

OUTPUTS = [
    missing("data/prepared missing", "encode", "data/prepared", "data/prepared/dataset.json"),
    made("train.parquet, cut off", "encode", DAMAGED, "data/prepared/train.parquet", halve),
    made("train.parquet, empty", "encode", DAMAGED, "data/prepared/train.parquet", empty),
    made("dataset.json, conflict", "encode", DAMAGED, "data/prepared/dataset.json", conflict),
    missing("models/base missing", "encode", "models/base", "models/base/config.json"),
    made("base weights, cut off", "encode", DAMAGED, "models/base/model.safetensors", halve),
    made("base config, empty", "encode", DAMAGED, "models/base/config.json", empty),
    made(
        "base tokenizer, garbage",
        "encode",
        "models/base: expected a tokenizer that transformers can read, found:",
        "models/base/tokenizer.json",
        garble,
    ),
    made(
        "base without a tokenizer",
        "encode",
        TOKENIZER,
        "models/base",
        lambda home: [remove(path) for path in home.glob("tokenizer*")],
    ),
    made("base tokenizer, cut off", "encode", TOKENIZER, "models/base/tokenizer.json", halve),
    made("base tokenizer, empty", "encode", TOKENIZER, "models/base/tokenizer.json", empty),
    made(
        "base of an unknown architecture",
        "encode",
        "models/base: expected a model that transformers .* knows, found: ",
        "models/base/config.json",
        edited("model_type", "no_such_model"),
    ),
    missing("data/encoded missing", "train", "data/encoded", "data/encoded/about.json"),
    made("about.json, conflict", "train", DAMAGED, "data/encoded/about.json", conflict),
    made("about.json, a list", "baseline", DAMAGED, "data/encoded/about.json", wrong_json),
    made("states, cut off", "train", DAMAGED, "data/encoded/train/states-00000.npy", halve),
    made("states, empty", "train", DAMAGED, "data/encoded/train/states-00000.npy", empty),
    made("tokens, cut off", "train", DAMAGED, "data/encoded/train/tokens.bin", halve),
    made("offsets, garbage", "train", DAMAGED, "data/encoded/train/offsets.npy", garble),
    made("features, empty", "audit", DAMAGED, "data/features/train.parquet", empty),
    made("baseline.json, conflict", "audit", DAMAGED, "metrics/baseline.json", conflict),
    missing("baseline.json missing", "audit", "metrics/baseline.json"),
    made("baseline's answers, cut off", "evaluate", DAMAGED, "data/predictions/baseline.parquet", halve),
    made("slices, garbage", "evaluate", DAMAGED, "data/slices.parquet", garble),
    made("run.json, conflict", "evaluate", DAMAGED, "models/adapter/run.json", conflict),
    missing("adapter missing", "evaluate", "models/adapter", "models/adapter/run.json"),
    made("adapter weights, cut off", "evaluate", DAMAGED, "models/adapter/adapter_model.safetensors", halve),
    made("answers, empty", "report", DAMAGED, "data/predictions/test.csv", empty),
    made("answers, garbage", "report", DAMAGED, "data/predictions/test.csv", garble),
    made("evaluate.json, conflict", "report", DAMAGED, "metrics/evaluate.json", conflict),
    made("evaluate.json, empty", "report", DAMAGED, "metrics/evaluate.json", empty),
    made("data.json, a list", "report", DAMAGED, "metrics/data.json", wrong_json),
    made("a plot's table, empty", "report", DAMAGED, "metrics/plots/confusion.csv", empty),
    missing("adapter missing", "predict Good.", "models/adapter", "models/adapter/run.json"),
    made("adapter_config.json, conflict", "predict Good.", DAMAGED, "models/adapter/adapter_config.json", conflict),
    made("adapter weights, garbage", "predict Good.", DAMAGED, "models/adapter/adapter_model.safetensors", garble),
    made("run.json, a list", "predict Good.", DAMAGED, "models/adapter/run.json", wrong_json),
    made("labels.json, empty", "predict Good.", DAMAGED, "models/adapter/labels.json", empty),
    made("tokenizer, cut off", "predict Good.", DAMAGED, "models/adapter/tokenizer.json", halve),
    made("abstention.json, conflict", "predict Good.", DAMAGED, "models/abstention.json", conflict),
    missing("base missing", "predict Good.", "models/base", "models/base/config.json"),
    missing("evaluate.json missing", "export", "metrics/evaluate.json"),
    made("adapter weights, empty", "export", DAMAGED, "models/adapter/adapter_model.safetensors", empty),
    made("no object in run.json", "export --adapter", DAMAGED, "models/adapter/run.json", wrong_json),
]

ARGUMENTS = [
    asked("no texts", "predict", "expected texts as arguments, on standard input or in --input FILE, found"),
    asked(
        "texts and a file",
        "predict Good. --input a.csv",
        r"python -m stages\.predict: error: expected texts or --input, found both",
    ),
    asked(
        "no such file", "predict --input absent.csv", r"absent\.csv: expected a file, found none; name or put one there"
    ),
    asked("a folder", "predict --input data", "data: expected a file, found a folder; name or put one there"),
    asked(
        "a column without a file",
        "predict --text body Good.",
        r"python -m stages\.predict: error: --text: expected --input FILE with it,",
    ),
    asked(
        "an unknown ending",
        "predict --input a.docx",
        r"a\.docx: expected a file ending in \.tsv, \.txt, \.csv, \.jsonl, \.parquet, compressed or not; convert",
        **{"a.docx": b"x"},
    ),
    asked(
        "no column of texts",
        "predict --input a.csv",
        r"a\.csv: expected the column 'text' of the training, or else one column of",
        **{"a.csv": b"x,y\n1,2\n"},
    ),
    asked(
        "an unknown column",
        "predict --input a.csv --text body",
        r"a\.csv: expected a column 'body' \(--text\), found text, y; name one of these",
        **{"a.csv": b"text,y\nGood.,2\n"},
    ),
    asked("no rows", "predict --input a.csv --text text", r"a\.csv: expected rows, found none", **{"a.csv": b"text\n"}),
    asked(
        "an empty file",
        "predict --input a.csv",
        r"a\.csv: expected csv, found: No columns to parse from file",
        **{"a.csv": b""},
    ),
    asked(
        "a garbled table",
        "predict --input a.parquet",
        r"a\.parquet: expected parquet, found: Parquet magic bytes not found in",
        **{"a.parquet": b"nonsense"},
    ),
    asked(
        "an output in the pipeline",
        "predict Good. --output models/adapter/a.csv",
        r"--output: expected a file ending in \.csv, \.tsv, \.jsonl, \.parquet, found",
    ),
    asked(
        "an output over the input",
        "predict --input a.csv --output a.csv",
        r"--output: expected a file ending in \.csv, \.tsv, \.jsonl, \.parquet, found",
        **{"a.csv": b"text\nGood.\n"},
    ),
    asked(
        "an output's unknown ending",
        "predict Good. --output a.txt",
        r"--output: expected a file ending in \.csv, \.tsv, \.jsonl, \.parquet, found",
    ),
    asked(
        "an output that is a folder",
        "predict Good. --output out.csv",
        r"--output: expected a file ending in \.csv, \.tsv, \.jsonl, \.parquet, found",
        lambda folder: (folder / "out.csv").mkdir(),
    ),
    asked(
        "an output below a file",
        "predict Good. --output params.yaml/a.csv",
        r"--output: expected a file ending in \.csv, \.tsv, \.jsonl, \.parquet, found",
    ),
    asked(
        "no rows at once",
        "predict Good. --batch-size 0",
        r"python -m stages\.predict: error: --batch-size: expected 1 or more, found 0",
    ),
    asked(
        "no process",
        "predict Good. --processes 0",
        r"python -m stages\.predict: error: --processes: expected 1 or more, found 0",
    ),
    asked(
        "a number that is none",
        "predict Good. --batch-size many",
        r"python -m stages\.predict: error: argument --batch-size: invalid int value:",
    ),
    asked(
        "an unknown option",
        "predict Good. --outptu a.csv",
        r"python -m stages\.predict: error: unrecognized arguments: --outptu a\.csv",
    ),
    asked(
        "a named pipe",
        "predict --input p.csv",
        r"p\.csv: expected a file, found a named pipe; name or put one there",
        lambda folder: fifo(folder / "p.csv"),
    ),
    asked(
        "an output in the pipeline",
        "export --output data/prepared",
        "--output: expected a new folder or an earlier export, found data/prepared,",
    ),
    asked(
        "an output that is a file",
        "export --output params.yaml",
        r"--output: expected a new folder or an earlier export, found params\.yaml,",
    ),
    asked(
        "a folder with other files",
        "export --output own",
        "--output: expected a new folder or an earlier export, found own, a folder",
        **{"own/diary.txt": b"x"},
    ),
    asked(
        "an unknown option",
        "export --format onnx",
        r"python -m stages\.export: error: unrecognized arguments: --format onnx",
    ),
    asked(
        "the repository itself",
        "export --output .",
        r"--output: expected a new folder or an earlier export, found \., where the",
    ),
    asked("no such revision", "report --rev no-such-branch", "--rev no-such-branch: "),
    asked("a revision like an option", "report --rev=--output=x", "--rev --output=x: "),
    asked("an unknown option", "report --fast", "unrecognized arguments: --fast"),
    asked("no file", "inspect", r"python -m stages\.inspect: error: the following arguments are required: FILE"),
    asked(
        "no such file",
        "inspect absent.csv",
        r"path:absent\.csv: expected a file or folder, found none; put it there, and",
    ),
    asked(
        "an empty file",
        "inspect data/raw/a.csv",
        r"a\.csv: expected csv, found: No columns to parse from file",
        **{"data/raw/a.csv": b""},
    ),
    asked(
        "a garbled table",
        "inspect data/raw/a.parquet",
        r"a\.parquet: expected parquet, found: Parquet magic bytes not found in",
        **{"data/raw/a.parquet": b"nonsense"},
    ),
    asked(
        "an unknown column",
        "inspect data/raw/a.csv --text body",
        r"a\.csv: expected one of its columns for --text, text, label, found 'body'",
        **{"data/raw/a.csv": GOOD},
    ),
    asked(
        "an unknown problem",
        "inspect data/raw/a.csv --problem ranking",
        r"python -m stages\.inspect: error: argument --problem: invalid choice:",
        **{"data/raw/a.csv": GOOD},
    ),
    asked(
        "a folder without files",
        "inspect data/raw/none",
        "none: expected a file or a folder of files, found an empty folder",
        lambda folder: (folder / "data/raw/none").mkdir(parents=True),
    ),
    asked(
        "a named pipe",
        "inspect data/raw/p.csv",
        r"path:data/raw/p\.csv: expected a file or folder, found a named pipe; put a",
        lambda folder: fifo(folder / "data/raw/p.csv"),
    ),
    asked(
        "a plot without a parameter",
        "experiments --plot a.png",
        r"python -m stages\.experiments: error: --plot: expected --by PARAM with it,",
    ),
    asked(
        "an unknown parameter",
        "experiments --by train.rate",
        r"expected a parameter of params\.yaml, found train\.rate; did you mean",
    ),
    asked(
        "a plot of another kind",
        "experiments --by train.lr --plot a.pdf",
        r"--plot: expected a file ending in \.png, found a\.pdf",
    ),
    asked("no space to search", "search", r"python -m stages\.search: error: the following arguments are required:"),
    asked(
        "a space without values",
        "search train.lr",
        r"train\.lr: expected train\.lr=a,b,c or train\.lr=low\.\.high, found train\.lr",
    ),
    asked(
        "an unknown parameter",
        "search train.rate=1,2",
        r"expected a parameter of params\.yaml, found train\.rate; did you mean",
    ),
    asked(
        "a range the wrong way",
        "search train.lr=1..0.1",
        r"train\.lr: expected low\.\.high with 0 < low < high, found 1\.\.0\.1",
    ),
    asked("a value that is refused", "search train.lr=-1,1", r"train\.lr: expected greater than 0 or 'auto', found -1"),
    asked(
        "no trials",
        "search train.lr=1e-3,1e-2 --trials 0",
        r"python -m stages\.search: error: --trials: expected 1 or more, found 0",
    ),
    asked(
        "a plot of another kind",
        "search train.lr=1e-3,1e-2 --plot a.pdf",
        r"--plot: expected a file ending in \.png, found a\.pdf",
    ),
]

CASES = [*SETTINGS, *TABLES, *MODELS, *OUTPUTS, *ARGUMENTS]
