"""The tuned model in ONNX: what is written, what is refused, and that int8 answers nearly alike.

The answers of each kind of problem, pairs and windows are compared in the tests of these.
"""

import importlib.util
import json
import math
import shutil
import sys

import families
import numpy as np
import pytest
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from stages import export, predict
from stages.common import paths
from stages.common.errors import PipelineError
from stages.problems.kinds import PROBLEMS
from stages.serving import evaluated
from stages.serving.answers import Classifier

onnx_ir = pytest.importorskip("onnx_ir", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime")

from stages.exporting import int8, onnx_export  # noqa: E402 - they need both
from stages.exporting.equivalence import Check  # noqa: E402
from stages.serving.onnx_model import GRAPH, OnnxModel  # noqa: E402
from stages.web import models  # noqa: E402

FILES = {GRAPH, "classifier.json", "tokenizer.json", "tokenizer_config.json", "run.json", "abstention.json"} | {
    "check.json",
    "example.py",
    "README.md",
}


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A finished run's folder, with the float32 and the int8 model in ONNX."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("onnx") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(patch, export, "--onnx")
        graph = onnx_ir.load(paths.ONNX / GRAPH)
        patch.setattr(onnx_export, "traced", lambda *given: graph)  # tracing takes seconds
        call(patch, export, "--onnx", "--int8", "--output", "models/int8")
    return folder


@pytest.fixture
def inside(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(onnx_export, "traced", lambda *given: onnx_ir.load(paths.ONNX / GRAPH))


def call(patch, script, *arguments):
    patch.setattr(sys, "argv", [script.__name__, *arguments])
    script.main()


def test_the_folder_has_exactly_its_files_and_none_names_a_file_of_this_machine(inside, home):
    for folder in (paths.ONNX, home / "models/int8"):
        written = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(written) | {"abstention.json"} == FILES
        assert written["run.json"] == (paths.ADAPTER / "run.json").read_bytes()
        assert not any(str(place).encode() in written[GRAPH] for place in (home, sys.prefix, onnx_export.__file__))
        assert b"python example.py" in written["README.md"]


def test_the_check_compares_the_exported_model_with_the_adapter_on_all_test_rows(inside):
    found = {name: json.loads((paths.ONNX.with_name(name) / "check.json").read_text()) for name in ("onnx", "int8")}
    tuned = evaluated.scores(evaluated.Model())
    for check in found.values():
        assert (check["rows"], check["adapter"]) == (24, pytest.approx(tuned["accuracy"], rel=1e-4))
    exact = found["onnx"]
    assert exact["largest_difference"] < 1e-5
    assert (exact["same_answers"], exact["gain"], exact["p_value"]) == (1, 0, 1)
    assert 1e-5 < found["int8"]["largest_difference"] < 0.2


def test_a_model_that_answers_otherwise_is_refused_with_the_numbers_and_the_last_one_stays(inside, monkeypatch):
    before = {path: path.read_bytes() for path in paths.ONNX.iterdir()}
    monkeypatch.setattr(onnx_export, "traced", lambda *given: onnx_ir.load("models/int8/model.onnx"))
    reason = r"the 24 test rows, found one to differ by \S+, more than 0.0001 \(largest difference .* p = "
    with pytest.raises(PipelineError, match=reason):
        call(monkeypatch, export, "--onnx")
    assert {path: path.read_bytes() for path in paths.ONNX.iterdir()} == before
    assert not [path for path in paths.ONNX.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("problem", "key", "refused"), [("single_label", "accuracy", True), ("regression", "mae", False)]
)
def test_in_int8_a_significant_trifle_is_refused_unless_the_score_is_an_error(problem, key, refused):
    found = {"score": 0.5, "low": 0.4, "high": 0.6, "adapter": 0.5001, "largest_difference": 0.1, "same_answers": 0.9}
    gain = {"gain": -1e-4, "gain_low": -2e-4, "gain_high": -5e-5, "p_value": 1e-9}
    check = Check(rows=100, precision="int8", tolerance=0.005, main=key, **found, **gain)
    assert bool(check.why_refused(PROBLEMS[problem].main_scores[key])) == refused


@pytest.mark.parametrize(("difference", "refused"), [(1e-6, False), (0.1, True), (math.nan, True)])
def test_in_float32_a_difference_above_the_tolerance_is_refused_and_one_that_is_no_number(difference, refused):
    found = {"score": 0.5, "low": 0.4, "high": 0.6, "adapter": 0.5, "largest_difference": difference}
    gain = {"same_answers": 1.0, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "p_value": 1.0}
    check = Check(rows=100, precision="float32", tolerance=1e-4, main="accuracy", **found, **gain)
    assert bool(check.why_refused(PROBLEMS["single_label"].main_scores["accuracy"])) == refused


def test_in_int8_a_worse_score_is_refused(inside, monkeypatch):
    monkeypatch.setattr(int8, "WEIGHT", 1)
    monkeypatch.setattr(int8, "ACTIVATION", 1)
    with pytest.raises(PipelineError, match=r"found its accuracy worse by .* export it without --int8"):
        call(monkeypatch, export, "--onnx", "--int8")
    call(monkeypatch, export, "--onnx", "--int8", "--tolerance", "1", "--output", "models/coarse")


def test_in_int8_an_answer_does_not_depend_on_the_other_texts_of_its_batch(inside):
    texts = [text for text in ("A good film.", "Bad.", "A dull and silly story, and a warm ending.", "wise " * 30)]
    model = evaluated.Model(adapter=paths.ONNX.with_name("int8"), abstention=paths.ABSTENTION)
    alone, together = (Classifier.tuned(model, batch_size=size).logits(texts) for size in (1, 4))
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)


def test_a_graph_that_has_become_small_is_one_file(inside, tmp_path, monkeypatch):
    path, further = tmp_path / GRAPH, tmp_path / f"{GRAPH}.data"
    monkeypatch.setattr(onnx_export, "MOST_IN_ONE_FILE", 0)
    onnx_export.save_graph(onnx_ir.load(paths.ONNX / GRAPH), path)
    assert further.stat().st_size > path.stat().st_size
    monkeypatch.undo()
    onnx_export.save_graph(onnx_ir.load(path), path)
    assert list(tmp_path.iterdir()) == [path]
    OnnxModel(path)


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_states_with_outliers_keep_their_values_in_int8(transposed, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    weight, head, bias = (generator.normal(size=size).astype(np.float32) for size in ((64, 32), (32, 32), 32))
    states = generator.normal(size=(40, 64)).astype(np.float32)
    states[:, 3] *= 50  # a channel
    states[7] *= 100  # a token
    of_floats = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    given = onnx_ir.Value(name="states", shape=onnx_ir.Shape(["rows", 64]), type=of_floats)
    graph = onnx_ir.Graph([given], [], nodes=[], opset_imports={"": 20})
    weights = [
        int8.constant(graph, name, values)
        for name, values in (("weight", weight.T if transposed else weight), ("head", head), ("bias", bias))
    ]
    states_again = onnx_ir.node("Identity", [given])
    product = onnx_ir.node("Gemm", [states_again.outputs[0], weights[0], weights[2]], {"transB": int(transposed)})
    logits = onnx_ir.node("MatMul", [product.outputs[0], weights[1]])
    graph.append(states_again)
    for node, name in ((product, "product"), (logits, "logits")):
        graph.append(node)
        (value,) = node.outputs
        value.name, value.shape, value.type = name, onnx_ir.Shape(["rows", 32]), of_floats
    graph.outputs.append(logits.outputs[0])
    onnx_ir.save(onnx_ir.Model(graph, ir_version=10), tmp_path / GRAPH)
    monkeypatch.setattr(OnnxModel, "__call__", lambda model, batch, names=("logits",): model.session.run(names, batch))
    quantized = int8.quantized(tmp_path / GRAPH, [{"states": states}])
    kinds = [node.op_type for node in quantized.graph]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("MatMul"), kinds.count("Gemm")) == (1, 1, 0)
    onnx_ir.save(quantized, tmp_path / "int8.onnx")
    (found,) = OnnxModel(tmp_path / "int8.onnx")({"states": states})
    expected = (states @ weight + bias) @ head
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 0.05


def test_without_the_optional_packages_a_line_says_what_to_install(inside, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    for script, arguments in ((export, ["--onnx"]), (predict, ["--model", "models/onnx", "text"])):
        with pytest.raises(PipelineError, match=r"found no onnxruntime.*; install with: pip install onnxruntime"):
            call(monkeypatch, script, *arguments)


@pytest.mark.long
def test_fused_operations_that_change_what_a_model_computes_are_left_out(saved_model, tmp_path):
    assert float(families.in_onnx(saved_model("t5"), tmp_path)) < 1e-4


@pytest.mark.parametrize("option", [[], ["--adapter"]])
def test_predict_runs_every_form_that_export_writes(option, inside, monkeypatch, capsys, tmp_path):
    call(monkeypatch, export, *option, "--output", str(tmp_path / "out"))
    capsys.readouterr()
    printed = []
    for options in ([], ["--model", str(tmp_path / "out")], ["--model", "models/onnx"]):
        call(monkeypatch, predict, *options, "A good film.", "A dull story.")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    with evaluated.model(paths.ONNX) as model:
        served = models.load({"default": model}, untouched=False)["default"]
    assert served.tuned.answers(["A good film.", "A dull story."])["label"].tolist() == [
        line.split("\t")[1] for line in printed[0].splitlines()[1:]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "models/base", "text"], "--model: expected a folder that `python -m stages.export` wrote, found"),
        (["--model", "models/onnx", "--compare", "text"], "--compare: expected the model in models/adapter"),
        (["--model", "models/onnx", "--processes", "2", "text"], "--processes, --engine: expected a model in PyTorch"),
        (["--address", "node:6379", "text"], "--address: expected --engine ray with it"),
    ],
)
def test_what_predict_cannot_run_is_one_clear_line(arguments, message, inside, monkeypatch, capsys):
    with pytest.raises((PipelineError, SystemExit)) as error:
        call(monkeypatch, predict, *arguments)
    assert message in str(error.value) + capsys.readouterr().err


@pytest.mark.parametrize("option", [["--int8"], ["--tolerance", "0.1"]])
def test_options_of_onnx_need_it(option, inside, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, export, *option)
    assert f"{option[0]}: expected --onnx with it" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1"])
def test_a_tolerance_that_no_difference_can_be_held_against_is_refused(tolerance, inside, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, export, "--onnx", "--tolerance", tolerance)
    assert f"--tolerance: expected a number from 0 on, found {float(tolerance)}" in capsys.readouterr().err


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_are_refused_in_a_line(saved_model, tmp_path, config):
    model = AutoModelForSequenceClassification.from_pretrained(saved_model("gpt2"))
    adapter = get_peft_model(model, config(task_type="SEQ_CLS", num_virtual_tokens=2))
    with pytest.raises(PipelineError, match=r"expected an adapter that can be merged .*, found virtual tokens \(P"):
        onnx_export.save_model(adapter, None, tmp_path / GRAPH)
    assert not (tmp_path / GRAPH).exists()
