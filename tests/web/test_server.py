"""The API: answers to one text and to many, what is refused and how, and what the server tells of itself."""

import asyncio
import gc
import gzip
import io
import json
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

import httpx2
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from made_models import CLASSES, MARKUP, SURE, logits, made, running
from pydantic import ValidationError
from reporting import outputs

from stages.common.errors import PipelineError
from stages.reporting.wording import METRICS
from stages.serving import evaluated, reasons
from stages.web import server, uploads
from stages.web.batching import Batcher
from stages.web.models import as_json
from stages.web.models import test_score as score_on_test_rows

LIMITS = server.Limits(texts=4, characters=50, megabytes=1)


def client(*models, limits=LIMITS, **options):
    """A client of a server of models, by default one of three classes with abstention."""
    models = models or (made(abstention=SURE),)
    app = server.create({model.name: model for model in models}, limits=limits, **options)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def ours():
    with client() as opened:
        yield opened


@pytest.mark.parametrize(("main", "percent"), [("accuracy", True), ("mcc", False), ("roc_auc", False)])
def test_a_score_is_said_to_be_in_percent_as_in_the_report(monkeypatch, main, percent):
    found = {main: 0.75, "interval": {main: {"low": 0.5, "high": 1.0}}}
    monkeypatch.setattr(evaluated, "scores", lambda model: found)
    told = score_on_test_rows(outputs.run("single_label", main=main), evaluated.Model())
    assert told == {"score": METRICS[main].name, "percent": percent, "value": 0.75, "low": 0.5, "high": 1.0}


def ask(opened, **question):
    return opened.post("/predict", json=question)


def test_one_text_and_many_get_the_answers_of_the_classifier(ours):
    one, many = ask(ours, text="A film."), ask(ours, texts=["A film.", "Another one, longer."], compare=True)
    assert one.status_code == many.status_code == 200
    model = made(abstention=SURE)
    expected = as_json(model.tuned, model.tuned.answers(["A film.", "Another one, longer."]))
    untouched = as_json(model.untouched, model.untouched.answers(["A film.", "Another one, longer."]))
    assert one.json() == {"model": "default", "answers": expected[:1]}
    assert many.json()["answers"] == [a | {"untouched": b} for a, b in zip(expected, untouched, strict=True)]
    assert set(expected[0]) == {"label", "probability", "probabilities", "abstain", "set"}
    assert list(expected[0]["probabilities"]) == CLASSES
    assert sum(expected[0]["probabilities"].values()) == pytest.approx(1)
    assert set(expected[0]["set"]) == {name for name, value in expected[0]["probabilities"].items() if value >= 0.2}


def test_a_text_with_several_labels_has_a_list_of_them_a_number_has_no_probability_and_pairs_are_lists():
    with client(made("multi_label")) as several:
        (answer,) = ask(several, text="A film").json()["answers"]
        given = [name for name, value in answer["probabilities"].items() if value > 0.5]
        assert answer["labels"] == given and len(given) in (1, 2)
    with client(made("regression")) as number:
        (answer,) = ask(number, text="A film.").json()["answers"]
        assert list(answer) == ["value"] and answer["value"] == pytest.approx(logits(["A film."])[0, 0])
    with client(made(columns=("premise", "claim"))) as pairs:
        (answer,) = ask(pairs, texts=[["A man sleeps.", "He rests."]]).json()["answers"]
        assert answer["label"] == CLASSES[logits([("A man sleeps.", "He rests.")]).argmax()]
        assert ask(pairs, text=["A man sleeps.", "He rests."]).json()["answers"] == [answer]
        wrong = ask(pairs, texts=["A man sleeps."])
        assert (wrong.status_code, wrong.json()["detail"]) == (
            422,
            "text 1: expected a pair of texts, as ['premise', 'claim'], found a text",
        )


def test_the_words_that_mattered_come_with_the_answer_of_few_texts(ours):
    (answer,) = ask(ours, text="A film of  note.", explain=True).json()["answers"]
    (found,) = reasons.reasons_for(made().tuned, ["A film of note."])
    assert answer.pop("reasons") == asdict(found)
    assert [answer] == ask(ours, text="A film of note.").json()["answers"]
    with client(limits=server.Limits(explained=2)) as opened:
        refused = ask(opened, texts=["a", "b", "c"], explain=True)
    assert (refused.status_code, refused.json()["detail"]) == (413, "explain: expected at most 2 texts, found 3")


@pytest.mark.parametrize(
    ("question", "status", "detail"),
    [
        ({}, 422, "expected text or texts, found neither"),
        ({"text": "a", "texts": ["a"]}, 422, "expected text or texts, found both"),
        ({"texts": []}, 422, "texts: expected one or more, found none"),
        ({"text": 3}, 422, "text: expected one text, or a pair of texts, found 3"),
        ({"texts": "a"}, 422, "texts: expected a list of texts, or of pairs of texts, found 'a'"),
        ({"texts": ["a", None]}, 422, "texts: expected a list of texts, or of pairs of texts, found None"),
        ({"text": ["a", "b"]}, 422, "text 1: expected a text, found a list of 2"),
        ({"text": "a", "compare": "yes"}, 422, "compare: expected true for the untouched model's answers besides"),
        ({"texst": "a"}, 422, "found 'texst'; did you mean 'text'?"),
        ({"text": "a", MARKUP: 1}, 422, f"found '{MARKUP}'"),
        ({"text": "a", "model": "b"}, 404, "model: expected one of 'default', found 'b'"),
        ({"texts": ["a"] * 5}, 413, "texts: expected at most 4, found 5; send them in parts"),
        ({"texts": ["a", "b" * 51]}, 413, "text 2: expected at most 50 characters, found 51; cut it"),
        ({"text": "b" * 5000}, 413, "text 1: expected at most 50 characters, found 5,000; cut it"),
        ([], 422, "expected a JSON object with text or texts (Content-Type: application/json), found []"),
        (None, 422, "expected a JSON object with text or texts"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_question_is_refused_in_one_line_that_says_what_was_expected(ours, question, status, detail):
    found = ours.post("/predict", json=question)
    assert found.status_code == status
    assert list(found.json()) == ["detail"] and detail in found.json()["detail"]
    assert "\n" not in found.json()["detail"] and len(found.json()["detail"]) < 200


@pytest.mark.parametrize(
    "body",
    [{"texts": [1] * 1000}, {"texts": [[1] * 1000]}, {"text": [1] * 1000}, dict.fromkeys(map(str, range(1000)))],
    ids=["texts", "pair in texts", "pair", "unknown keys"],
)
def test_of_a_body_with_many_faults_few_are_looked_at(body):
    with pytest.raises(ValidationError) as found:
        server.Question.model_validate(body)
    assert found.value.error_count() <= 2


def test_the_largest_question_is_answered_however_its_characters_are_written(ours):
    question = json.dumps({"texts": ["\N{GRINNING FACE}" * 50] * 4}, indent=1)  # 12 bytes for each character
    found = ours.post("/predict", content=question, headers={"Content-Type": "application/json"})
    assert found.status_code == 200


def test_what_is_no_json_and_what_is_longer_than_it_says_is_refused(ours):
    found = ours.post("/predict", content=b'{"text": ', headers={"Content-Type": "application/json"})
    assert (found.status_code, found.json()["detail"]) == (422, "expected JSON, found: Expecting value at 9")
    assert ours.post("/predict", content=b'{"text": "a"}').status_code == 422, "without its type"
    deep = ours.post("/predict", content=b"[" * 2000, headers={"Content-Type": "application/json"})
    assert deep.status_code in (400, 422) and list(deep.json()) == ["detail"]
    chunks = (b" " * 1000 for _ in range(2000))
    found = ours.post("/predict", content=chunks, headers={"Content-Type": "application/json"})
    assert found.status_code == 413
    assert ours.get("/predict").status_code == 405
    assert ours.get("/nothing").json() == {"detail": "Not Found"}


def test_odd_texts_are_answered_as_predict_cleans_them(ours):
    odd = ["", " a\u0000 \n b ", "e\u0301", "\U0001f642"]
    found = ask(ours, texts=odd).json()["answers"]
    assert found == ask(ours, texts=["", "a b", "é", "\U0001f642"]).json()["answers"]
    raw = ours.post("/predict", content=b'{"text": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert raw.json()["answers"] == ask(ours, text="\ufffd").json()["answers"]


def test_of_32_clients_at_once_each_gets_its_own_answers(ours):
    model = made(abstention=SURE)

    def asked(number):
        texts = [f"{'x' * (number % 40)}{one}" for one in range(1 + number % 4)]
        return ask(ours, texts=texts).json()["answers"] == as_json(model.tuned, model.tuned.answers(texts))

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(asked, range(128)))


def test_two_models_answer_by_name_and_the_first_without_one():
    second = made(name="second", compute=lambda inputs: -logits(inputs), untouched=False)
    with client(made(), second) as both:
        first, other = ask(both, text="A film.").json(), ask(both, text="A film.", model="second").json()
        assert (first["model"], other["model"]) == ("default", "second")
        assert first["answers"][0]["label"] != other["answers"][0]["label"]
        found = ask(both, text="A film.", model="second", compare=True)
        assert (found.status_code, found.json()["detail"]) == (
            400,
            "compare: expected a model with its base beside it, found 'second' alone",
        )
        known = both.get("/health").json()["models"]
        assert [(model["name"], model["compares"]) for model in known] == [("default", True), ("second", False)]


def test_a_fault_is_told_without_its_details_and_the_next_question_is_answered():
    def faulty(inputs):
        if inputs == ["bad"]:
            raise KeyError("secret")
        return np.full((len(inputs), 3), np.float32(len(inputs[0])))

    with client(made(compute=faulty)) as opened:
        found = ask(opened, text="bad")
        assert (found.status_code, found.json()) == (
            500,
            {"detail": "the server failed; its standard error says why"},
        )
        assert ask(opened, text="good").status_code == 200


def test_health_tells_the_models_and_limits_and_metrics_count(ours):
    told = ours.get("/health").json()
    assert told["status"] == "ok"
    assert told["limits"] == {"texts": 4, "explained": 8, "characters": 50, "megabytes": 1}
    (model,) = told["models"]
    assert {"run", "base", "since", "parameters", "classes", "test"} < set(model)
    with client() as fresh:
        ask(fresh, texts=["a", "b", "c"])
        ask(fresh, text=1)
        fresh.get("/nothing/at/all")
        counted = fresh.get("/metrics")
    assert counted.headers["content-type"].startswith("text/plain")
    for line in (
        'classifier_requests_total{path="/predict",status="200"} 1.0',
        'classifier_requests_total{path="/predict",status="422"} 1.0',
        'classifier_requests_total{path="other",status="404"} 1.0',
        'classifier_texts_total{model="default"} 3.0',
        'classifier_request_seconds_count{path="/predict"} 2.0',
        "classifier_batch_texts_sum 3.0",
        "classifier_waiting_texts 0.0",
    ):
        assert line in counted.text.splitlines()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("10.1.2.3:8000", 200),
        ("known.example", 200),
        ("Known.Example:80", 200),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("", 400),
        ("[::1", 400),
        ("evil@127.0.0.1.evil.example", 400),
    ],
)
def test_a_request_names_the_server_by_an_address_or_a_known_name(host, status):
    with client(hosts=("Known.example",)) as opened:
        assert opened.get("/health", headers={"Host": host}).status_code == status


def test_no_other_sites_page_may_ask_and_the_page_runs_its_own_script_alone(ours):
    for origin, status in (
        ("http://127.0.0.1:8000", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ):
        found = ours.post("/predict", json={"text": "a"}, headers={"Origin": origin})
        assert found.status_code == status, origin
        assert not any(name.startswith("access-control") for name in found.headers)
    page = ours.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("'sha256-") == 2
    assert page.headers["x-content-type-options"] == "nosniff"
    assert ours.get("/docs", follow_redirects=False).headers["location"] == "/#api"
    assert {"/predict", "/health", "/metrics"} <= set(json.loads(ours.get("/openapi.json").text)["paths"])
    for word in ("http://", "https://", " src=", "@import", "url(", "innerHTML", "eval("):
        assert word not in page.text, "it fetches or inserts something"


def test_while_too_many_texts_wait_more_are_refused(monkeypatch):
    monkeypatch.setattr(server, "Batcher", partial(Batcher, capacity=2))
    with client() as opened:
        found = ask(opened, texts=["a", "b", "c"])
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")


def test_a_text_whose_words_are_weighed_waits_as_the_passes_that_it_takes(monkeypatch):
    monkeypatch.setattr(server, "Batcher", partial(Batcher, capacity=reasons.MOST))
    with client() as opened:
        found = [ask(opened, text="a", explain=explain).status_code for explain in (False, True)]
    assert found == [200, 503]


def sent(opened, content, name="rows.csv", **query):
    return opened.post("/file", params={"name": name} | query, content=content)


def test_a_file_comes_back_with_the_answers_in_further_columns(ours):
    texts = [f"Text {'x' * (number % 30)}, {number}" for number in range(100)]
    table = pd.DataFrame({"id": range(100), "body": texts, "label": "old"})
    model = made(abstention=SURE)
    expected = model.tuned.answers(texts)
    written = {
        "rows.csv": table.to_csv(index=False),
        "rows.tsv": table.to_csv(index=False, sep="\t"),
        "rows.jsonl": table.to_json(orient="records", lines=True),
        "more.rows.CSV.gz": gzip.compress(table.to_csv(index=False).encode()),
    }
    for name, content in written.items():
        found = sent(ours, content, name, text="body", compare=True)
        assert (found.status_code, found.headers["x-rows"]) == (200, "100"), found.text
        read = io.StringIO(found.text)
        if name == "rows.jsonl":
            back = pd.read_json(read, lines=True)
        else:
            back = pd.read_csv(read, sep="\t" if ".tsv" in name else ",", keep_default_na=False)
        assert back["body"].tolist() == texts and back["label"].tolist() == ["old"] * 100
        assert back["predicted_label"].tolist() == expected["label"].tolist()
        assert np.allclose(back["probability"], expected["probability"])
        answers = ["label", "probability", *CLASSES]
        assert list(back)[-5:] == [f"untouched_{name}" for name in answers]
    assert (
        'filename="rows.answers.jsonl"'
        in sent(ours, written["rows.jsonl"], "rows.jsonl", text="body").headers["content-disposition"]
    )


def test_columns_of_a_file_that_comes_back_are_called_as_they_were(ours):
    found = sent(ours, ",text,id,id\n0,A film.,1,2\n")
    assert found.text.startswith(",text,id,id,label,probability")


def test_the_first_bad_row_of_a_file_is_refused_before_others_are_gathered(monkeypatch, tmp_path):
    (tmp_path / "rows.csv").write_text('text,b\nx,y\n"a,b\n')
    monkeypatch.setattr(uploads.tables, "sample", lambda table: pytest.fail("gathered rows"))
    with pytest.raises(PipelineError, match="found in line 3: a quote that is not closed; correct it"):
        uploads.Upload.opened(tmp_path / "rows.csv", {"text": "text"}, named=None, characters=50)


@pytest.mark.parametrize(
    ("content", "query", "status", "detail"),
    [
        ("text,text\nx,y\n", {}, 400, "rows.csv: expected csv, found: several columns 'text'; rename all but one"),
        ("a,b\n1,2\n", {}, 400, "rows.csv: expected the column 'text' of the training, or else one column of texts"),
        ("a,b\n1,2\n", {"text": "c"}, 400, "rows.csv: expected a column 'c' (text), found a, b; name one of these"),
        ("text,b\nx,2\ny\n", {}, 400, "rows.csv: expected rows that can be read, found in line 3: 1 fields, 2 in"),
        ("text\n" + "x" * 51, {}, 400, "expected texts of at most 50 characters, found 51 in line 2; cut it"),
        ("text\n", {}, 400, "rows.csv: expected rows, found none"),
        ("", {}, 400, "rows.csv: expected"),
        ("text\nx\n", {"name": "rows.xlsx"}, 400, "rows.xlsx: expected a file ending in .csv, .tsv, .jsonl; convert"),
        ("PAR1", {"name": "rows.parquet"}, 400, "rows.parquet: expected a file ending in .csv, .tsv, .jsonl; convert"),
        ("{", {"name": "rows.jsonl"}, 400, "rows.jsonl: expected"),
        ("text\nx\n", {"name": "../../<b>.csv"}, 200, ""),
        ("text\nx\n", {"compare": "maybe"}, 422, "compare: expected a value, as in /file?name=rows.csv&compare=true"),
        ("text\nx\n", {"model": "none"}, 404, "model: expected one of 'default', found 'none'"),
        ("text\n" + "x\n" * 600_000, {}, 413, "expected a body of at most 1 MB, found a larger one"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_cannot_be_answered_as_a_whole_is_refused_before_the_first_answer(
    ours, content, query, status, detail
):
    found = sent(ours, content, **query)
    assert found.status_code == status
    if detail:
        assert detail in found.json()["detail"] and "/tmp" not in found.text
    assert ours.post("/file", content=content).status_code in (413, 422), "without a name"


def test_nothing_of_a_file_stays_and_a_question_is_answered_between_its_pieces(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = []

    def noted(inputs):
        asked.append(len(inputs))
        return logits(inputs)

    with client(made(compute=noted)) as opened:
        assert sent(opened, "text\n" + "A film.\n" * 100).status_code == 200
        assert list(tmp_path.iterdir()) == []
        assert sent(opened, "a,b\n1,2\n").status_code == 400
        assert list(tmp_path.iterdir()) == []
    assert asked == [16] * 6 + [4]


def test_while_as_many_files_are_answered_as_are_taken_at_once_another_is_refused(monkeypatch):
    monkeypatch.setattr(server, "FILES", 1)
    begun, go = threading.Event(), threading.Event()

    def held(inputs):
        begun.set()
        go.wait()
        return logits(inputs)

    with client(made(compute=held)) as opened, ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(sent, opened, "text\nA film.\n")
            begun.wait()
            found = sent(opened, "text\nA film.\n")
            assert (found.status_code, found.headers["retry-after"]) == (503, "1")
        finally:
            go.set()
        assert first.result().status_code == 200
        refused = [sent(opened, "a,b\n1,2\n").status_code for _ in range(2)]
        assert [*refused, sent(opened, "text\nA film.\n").status_code] == [400, 400, 200]


def test_a_client_that_sends_nothing_for_long_gives_up_its_place(monkeypatch):
    monkeypatch.setattr(uploads, "IDLE", 0.2)
    monkeypatch.setattr(server, "FILES", 1)
    app = server.create({"default": made()})
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as opened:
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"POST /file?name=rows.csv HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\ntext")
            found = idle.recv(1000)
            while not found.endswith(b"}"):  # the body may come apart from the head
                found += idle.recv(1000) or b"}"
            assert found.startswith(b"HTTP/1.1 400") and b"expected the rest of the body within" in found
        assert sent(opened, "text\nA film.\n").status_code == 200


def test_a_client_that_takes_nothing_for_long_gives_up_its_place(monkeypatch):
    monkeypatch.setattr(uploads, "IDLE", 0.05)
    released = []

    async def answers():
        yield b"text\n"

    async def never(*message):
        await asyncio.Event().wait()

    held = ExitStack()
    held.callback(released.append, True)
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    asyncio.run(uploads.Answers(answers(), held)(scope, never, never))
    assert released == [True]


def test_a_client_that_leaves_leaves_nothing_behind_and_ends_no_one_elses_answers(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked, table = [], "text\n" + "A film.\n" * 2000

    def slow(inputs):
        asked.append(len(inputs))
        time.sleep(0.05)
        return logits(inputs)

    threads = threading.active_count()
    app = server.create({"default": made(compute=slow)})
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as opened:
        for path, body in (("/file?name=rows.csv", "text\nx"), ("/predict", '{"text": ')):
            with socket.create_connection(("127.0.0.1", port)) as half:
                head = (
                    f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 999"
                )
                half.sendall(f"{head}\r\n\r\n{body}".encode())
        with opened.stream("POST", "/file", params={"name": "rows.csv"}, content=table) as begun:
            next(begun.iter_bytes())
        assert opened.post("/predict", json={"text": "a"}).status_code == 200
        counted = opened.get("/metrics").text
    gc.collect()
    assert threading.active_count() <= threads
    assert sum(asked) < 1000 and list(tmp_path.iterdir()) == []
    assert 'status="500"' not in counted and caplog.text == ""
