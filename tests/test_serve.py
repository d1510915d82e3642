"""`stages.serve`: a project's model over HTTP, several adapters of one base, and how it ends."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file
from web.made_models import made

from stages import export, serve
from stages.adapters.run import FILE
from stages.common import errors, files, paths
from stages.evidence import abstention
from stages.evidence.abstention import Abstention, fingerprint
from stages.serving import adapters, evaluated
from stages.serving.answers import Classifier
from stages.web import server


def child(folder: Path) -> None:
    """A server whose answers take a second; `folder` gets its port, the sign of a question, and what it prints."""
    os.dup2(os.open(folder / "told", os.O_CREAT | os.O_WRONLY), 2)
    sys.stderr = os.fdopen(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored

    def slow(inputs):
        (folder / "begun").touch()
        time.sleep(1)
        return np.zeros((len(inputs), 3), np.float32)

    def main():
        with serve.bound("127.0.0.1", 0) as place:
            files.write_text(folder / "port", str(place.getsockname()[1]))
            serve.serve(server.create({"default": made(compute=slow)}), place)

    errors.run(main)


def appears(path: Path) -> Path:
    """The path, once it is there."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)
    return path


def asked(url: str, **question: object) -> dict:
    """The answer to a question; waits until the server listens."""
    request = urllib.request.Request(
        f"{url}/predict", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    while True:
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except urllib.error.URLError:
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_after_a_signal_what_was_asked_is_answered_and_the_exit_status_is_the_signals(number, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=child, args=(tmp_path,))
    process.start()
    url, found = f"http://127.0.0.1:{appears(tmp_path / 'port').read_text()}", []
    asking = threading.Thread(target=lambda: found.append(asked(url, texts=["a", "b"])))
    asking.start()
    appears(tmp_path / "begun")
    os.kill(process.pid, number)
    asking.join(60)
    process.join(60)
    assert [len(one["answers"]) for one in found] == [2]
    assert process.exitcode == 128 + number
    assert (tmp_path / "told").read_text() == f"interrupted by {number.name}\n"


def called(monkeypatch, *arguments: str) -> dict:
    """The models that a command serves, without serving them."""
    served = {}
    monkeypatch.setattr(serve, "serve", lambda app, place: None)
    monkeypatch.setattr(server, "create", lambda found, **options: served.update(found, options=options))
    monkeypatch.setattr(sys, "argv", ["serve", "--port", "0", *arguments])
    serve.main()
    return served


@pytest.fixture
def inside(finished, tmp_path, monkeypatch):
    """A folder with the outputs of a run."""
    folder = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def test_the_server_says_what_predict_says_with_the_facts_of_the_model(project, inside, monkeypatch):
    served = called(monkeypatch)
    assert served.pop("options") == {"limits": server.Limits(), "hosts": ()}
    told = project.call("predict", "--compare", "A fine film.", "Dull.").stdout.splitlines()
    monkeypatch.undo()
    with TestClient(server.create(served), base_url="http://localhost") as client:
        answers = client.post("/predict", json={"texts": ["A fine film.", "Dull."], "compare": True}).json()["answers"]
        (known,) = client.get("/health").json()["models"]
    rows = [dict(zip(told[0].split("\t"), line.split("\t"), strict=True)) for line in told[1:]]
    for row, answer in zip(rows, answers, strict=True):
        assert row["label"] == answer["label"] and row["untouched_label"] == answer["untouched"]["label"]
        for name, value in answer["probabilities"].items():
            assert float(row[name]) == pytest.approx(value, abs=1e-4)
    metrics = files.read_json(inside / "metrics/evaluate.json")
    of_test = {"score": "accuracy", "percent": True, "value": metrics["accuracy"]} | metrics["interval"]["accuracy"]
    assert known["test"] == of_test
    assert known["classes"] == ["negative", "positive"]
    assert known["base"] == "package:tiny-model==1.0"


def test_the_score_of_a_model_before_the_served_one_is_not_shown(inside, monkeypatch):
    path = paths.ADAPTER / FILE
    files.write_json(path, files.read_json(path) | {"max_length": 9})
    assert called(monkeypatch)["default"].facts["test"] is None


def test_an_exported_model_answers_as_the_adapter_and_has_none_to_compare_with(project, inside, monkeypatch, tmp_path):
    project.call("export", "--output", str(tmp_path / "merged"))
    served = called(monkeypatch, "--model", str(tmp_path / "merged"))["default"]
    alone = Classifier.tuned(evaluated.Model()).answers(["A fine film.", "Dull."])
    assert np.allclose(served.tuned.answers(["A fine film.", "Dull."])["positive"], alone["positive"], atol=1e-6)
    assert served.untouched is None and served.facts["run"] == fingerprint(paths.ADAPTER)


def changed(folder: Path, *, weights: str, factor: float, **config: str) -> str:
    """A copy of an adapter or a base model whose weights are multiplied."""
    copy = Path(shutil.copytree(folder, f"{folder.name}-{factor}", copy_function=shutil.copyfile))
    tensors = {name: factor * value for name, value in load_file(copy / weights).items()}
    save_file(tensors, copy / weights, metadata={"format": "pt"})
    if config:
        files.write_json(copy / "adapter_config.json", files.read_json(copy / "adapter_config.json") | config)
    return str(copy)


def places(classifier: Classifier) -> dict[int, int]:
    """The size of each weight, by its place in memory."""
    return {weight.data_ptr(): weight.nbytes for weight in classifier.network.parameters()}


def test_adapters_of_one_base_have_it_in_memory_once_and_answer_as_each_alone(inside, monkeypatch):
    other = changed(paths.ADAPTER, weights="adapter_model.safetensors", factor=0.5)
    served = called(monkeypatch, "--adapter", "one=models/adapter", "--adapter", f"two={other}")
    texts = ["A fine film.", "Dull.", "Neither here nor there, and long."]
    for name, folder in (("one", paths.ADAPTER), ("two", Path(other))):
        with adapters.of_folder(name, folder) as model:
            alone = Classifier.tuned(model)
        assert np.array_equal(served[name].tuned.logits(texts), alone.logits(texts))
    assert not np.allclose(served["one"].tuned.logits(texts), served["two"].tuned.logits(texts))
    one, two, untouched = places(served["one"].tuned), places(served["two"].tuned), places(served["two"].untouched)
    frozen = {
        weight.data_ptr()
        for name, weight in served["one"].tuned.network.named_parameters()
        if "layers.0." in name or "embed" in name
    }
    assert frozen and frozen <= set(one) & set(two) & set(untouched)
    layers = [weight.nbytes for name, weight in served["one"].tuned.network.named_parameters() if "layers.0." in name]
    assert sum((one | two).values()) - sum(one.values()) <= 2.1 * sum(layers), "more than the two layers that differ"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")],
    ids=["model", "tokenizer"],
)
def test_code_that_a_model_brings_is_neither_run_nor_asked_about(inside, monkeypatch, name, kind):
    folder = Path("brought")
    folder.mkdir()
    export.merge(paths.ADAPTER, folder)
    for file in (FILE, "labels.json"):
        shutil.copy(paths.ADAPTER / file, folder)
    where = "own.Own" if kind == "AutoConfig" else [None, "own.Own"]
    brought = {"auto_map": {kind: where}, "model_type": "own", "tokenizer_class": "Own"}
    files.write_json(folder / name, files.read_json(folder / name) | brought)
    (folder / "own.py").write_text("open('ran', 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with pytest.raises(errors.PipelineError, match=r"^brought: .* found custom code \(auto_map\), which is never run"):
        called(monkeypatch, "--model", str(folder))
    assert not Path("ran").exists()


OTHER = {"model.safetensors": "0" * 64}
"""The hashes of another base model."""


def test_an_adapter_of_another_project_answers_on_that_projects_base_model(inside, monkeypatch):
    texts, there = ["A fine film.", "Dull."], Path("other/models")
    expected = Classifier.tuned(evaluated.Model()).logits(texts)
    shutil.copytree("models", there, copy_function=shutil.copyfile)
    files.write_json(paths.BASE_MODEL / "source.json", {"sha256": OTHER})
    served = called(monkeypatch, "--adapter", f"one={there / 'adapter'}")
    assert np.array_equal(served["one"].tuned.logits(texts), expected)
    with pytest.raises(errors.PipelineError, match=r"expected its base model, .* in models/base, found none"):
        called(monkeypatch, "--adapter", f"one={paths.ADAPTER}")


def test_a_whole_model_of_another_project_is_compared_with_that_projects_base_model_or_with_none(inside, monkeypatch):
    texts, whole = ["A fine film.", "Dull."], Path("other/models/merged")
    expected = Classifier.untouched(evaluated.Model()).logits(texts)
    shutil.copytree(paths.BASE_MODEL, whole.with_name("base"), copy_function=shutil.copyfile)
    whole.mkdir()
    export.merge(paths.ADAPTER, whole)
    shutil.copy(paths.ADAPTER / FILE, whole)
    files.write_json(paths.BASE_MODEL / "source.json", {"sha256": OTHER})
    served = called(monkeypatch, "--adapter", f"one={whole}")["one"]
    assert np.array_equal(served.untouched.logits(texts), expected)
    shutil.rmtree(whole.with_name("base"))
    with pytest.raises(errors.PipelineError, match="--adapter one: expected its base model beside it or"):
        called(monkeypatch, "--adapter", f"one={whole}")
    assert called(monkeypatch, "--model", str(whole))["default"].untouched is None


def test_an_adapter_of_another_project_abstains_by_that_projects_thresholds(inside, monkeypatch):
    there = shutil.copytree("models", "other/models", copy_function=shutil.copyfile)
    promise = {"target": 0.9, "confidence": 0.95, "rows": 9, "threshold": 0.5, "set_threshold": None}
    sure = Abstention(**promise, run=fingerprint(paths.ADAPTER))
    abstention.save(Path(there, "abstention.json"), sure)
    served = called(monkeypatch, "--adapter", f"mails={there}/adapter", "--adapter", "movies=models/adapter")
    assert (served["mails"].tuned.abstention, served["movies"].tuned.abstention) == (sure, None)
    abstention.save(Path(there, "abstention.json"), replace(sure, run="another"))
    with pytest.raises(errors.PipelineError, match=r"abstention\.json: expected thresholds for the model in .*adapter"):
        called(monkeypatch, "--adapter", f"mails={there}/adapter")


def test_an_exported_adapter_whose_base_is_on_a_hub_answers_with_the_one_that_is_here(inside, monkeypatch):
    texts, published = ["A fine film.", "Dull."], Path("models/published")
    expected = Classifier.tuned(evaluated.Model()).logits(texts)
    shutil.copytree(paths.ADAPTER, published, copy_function=shutil.copyfile)
    evaluated.name_base(published, Path("openai-community/gpt2"))
    served = called(monkeypatch, "--model", str(published))["default"]
    assert np.array_equal(served.tuned.logits(texts), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "nowhere"],
            "--model: expected a folder that `python -m stages.export` wrote, found nowhere without",
        ),
        (["--adapter", "one=nowhere"], "--adapter one: expected a folder with run.json, like models/adapter, found"),
        (["--adapter", "one=models/adapter", "--adapter", "two={far}"], "two: expected an adapter of the same base"),
        (
            ["--adapter", "one={lost}"],
            "--adapter one: expected its base model, package:tiny-model==1.0 with the weights of its training, in "
            "models/lost or base or models/base, found none; put it",
        ),
        (["--adapter", "models/adapter"], None),
        (["--adapter", "a=models/adapter", "--adapter", "a=models/adapter"], None),
        (["--max-texts", "0"], None),
        (["--max-texts", "2049"], None),
        (["--port", "{taken}"], "expected a free address, found: Address already in use; name one"),
        (["--port", "70000"], None),
        (["--host", "256.1.1.1"], "--host 256.1.1.1 --port 0: expected a free address, found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_served_is_refused_in_one_line(inside, monkeypatch, arguments, message):
    names = {}
    if "{far}" in arguments[-1]:
        base = changed(paths.BASE_MODEL, weights="model.safetensors", factor=2.0)
        config = {"weights": "adapter_model.safetensors", "base_model_name_or_path": base}
        names["far"] = changed(paths.ADAPTER, factor=1.0, **config)
    if "{lost}" in arguments[-1]:
        config = {"weights": "adapter_model.safetensors", "base_model_name_or_path": "models/lost"}
        names["lost"] = changed(paths.ADAPTER, factor=1.0, **config)
        run = files.read_json(Path(names["lost"], FILE))
        files.write_json(Path(names["lost"], FILE), run | {"base_model": run["base_model"] | {"sha256": OTHER}})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names["taken"] = taken.getsockname()[1]
        with pytest.raises(errors.PipelineError if message else SystemExit) as refused:
            called(monkeypatch, *(argument.format(**names) for argument in arguments))
    if message:
        assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_address_that_another_server_is_still_loading_for_is_not_free():
    taken = pytest.raises(errors.PipelineError, match="found: Address already in use")
    with serve.bound("127.0.0.1", 0) as first, taken:
        serve.bound(*first.getsockname())


def test_without_the_optional_packages_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "stages.web.server")
    monkeypatch.delattr("stages.web.server")
    with pytest.raises(errors.PipelineError, match="found no fastapi; install them with: pip install -r"):
        called(monkeypatch)


def test_the_dockerfile_copies_what_exists_and_runs_what_the_readme_names(monkeypatch):
    steps = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    copied = [source for line in re.findall(r"^COPY (.*) \S+$", steps, re.MULTILINE) for source in line.split()]
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for source in copied:
        assert any(path.startswith(source) for path in tracked), source
        assert any(fnmatch(path, f"{one}*") for path in tracked if path.startswith(source) for one in kept), source
    for line in re.findall(r"^RUN (.*)$", steps, re.MULTILINE):
        assert {*re.findall(r"-[rc] (\S+)", line)} <= {*copied}
    assert re.search(r"^USER (?!root)\w+$", steps, re.MULTILINE)
    commands = [json.loads(line) for line in re.findall(r"CMD (\[.*\])$", steps, re.MULTILINE)]
    checked, started = commands
    assert started[:3] == ["python", "-m", "stages.serve"]
    monkeypatch.setattr(sys, "argv", started[2:])
    options = serve.parse_arguments()
    (port,) = re.findall(r"^EXPOSE (\d+)$", steps, re.MULTILINE)
    assert (options.host, options.port) == ("0.0.0.0", int(port))
    assert f"http://127.0.0.1:{port}/health" in checked[2]


def test_the_steps_of_the_dockerfile_are_those_of_the_makefile_and_of_the_page():
    page, steps = (ROOT / "docs/serve.md").read_text(), (ROOT / "Dockerfile").read_text()
    install = "pip install -r requirements.txt -r requirements-serve.txt -c requirements.lock"
    assert install in page
    assert install.replace("install", "install --no-cache-dir") in steps
    assert "INSTALL) --no-deps -r requirements-cpu.lock" in (ROOT / "Makefile").read_text()
