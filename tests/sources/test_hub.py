"""A hub's files arrive whole and checked; each way to fail is one line with the cause and the remedy."""

import hashlib
import re

import pytest
from conftest import build_tar
from huggingface_hub import constants

from stages.common.errors import PipelineError
from stages.sources import fetched

MODEL = {
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
    "config.json": b'{"model_type": "gpt2"}',
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer.json": b"{}",
    "merges.txt": b"a b\n",
}
OTHERS = {
    ".gitattributes": b"",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"again",
    "onnx/config.json": b"{}",
    "onnx/model.safetensors": b"again",
    "modeling.py": b"code",
}
REPOSITORY = "models/org/tiny"
BAD = "0" * 40


def fetch(tmp_path, commit, *, file=None, source="hub:org/tiny", repo_type="model"):
    into = tmp_path / "into"
    into.mkdir(exist_ok=True)
    return fetched.fetch(source=source, revision=commit, file=file, into=into, repo_type=repo_type)


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def failure(tmp_path, commit, **options):
    """The one line in which a fetch ends."""
    with pytest.raises(PipelineError) as caught:
        fetch(tmp_path, commit, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_arrives_without_what_is_not_read_of_it(hub, tmp_path):
    fetched = fetch(tmp_path, hub.add(REPOSITORY, MODEL | OTHERS))
    assert names(fetched.path) == set(MODEL)
    assert {name: (fetched.path / name).read_bytes() for name in MODEL} == MODEL
    assert fetched.license == "mit"
    assert {line.rsplit("/", 1)[1] for line in hub.requests if line.startswith("GET /org")} == set(MODEL)


def test_a_folder_of_a_model_repository_arrives_alone(hub, tmp_path):
    files = {f"small/{name}": content for name, content in (MODEL | OTHERS).items()} | MODEL
    fetched = fetch(tmp_path, hub.add(REPOSITORY, files), file="small/")
    assert names(fetched.path) == set(MODEL) - {"README.md"}
    assert fetched.license == "mit"


def test_one_gguf_file_of_many_arrives(hub, tmp_path):
    commit = hub.add(REPOSITORY, {"a.Q4.gguf": b"four", "a.Q8.gguf": b"eight", "README.md": b"---\n[\n---\n"})
    fetched = fetch(tmp_path, commit, file="a.Q4.gguf")
    assert fetched.path.read_bytes() == b"four"
    assert not [line for line in hub.requests if "Q8" in line]
    assert fetched.license == "not stated"


def test_a_second_fetch_asks_the_hub_nothing(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    fetch(tmp_path, commit)
    hub.requests.clear()
    fetch(tmp_path, commit)
    assert hub.requests == []


def test_offline_the_cache_serves_what_it_has_and_a_lack_is_said(hub, tmp_path, monkeypatch):
    commit = hub.add(REPOSITORY, MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = failure(tmp_path, commit)
    assert re.search(
        r"^hub:org/tiny: missing or incomplete in the hub's cache, and HF_HUB_OFFLINE forbids a download; unset it",
        message,
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetch(tmp_path, commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert names(fetch(tmp_path, commit).path) == set(MODEL)
    (tmp_path / "cache/models--org--tiny/snapshots" / commit / "config.json").unlink()
    assert "missing or incomplete in the hub's cache" in failure(tmp_path, commit)
    assert hub.requests == []


def test_a_token_is_sent(hub, tmp_path, monkeypatch):
    commit = hub.add(REPOSITORY, MODEL)
    hub.token = "hf_secret"
    assert "no such repository, or a private one; check the name, or set HF_TOKEN" in failure(tmp_path, commit)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert names(fetch(tmp_path, commit).path) == set(MODEL)


@pytest.mark.parametrize(
    ("line", "status", "headers", "message"),
    [
        (
            "/resolve/",
            401,
            {"X_Error_Code": "GatedRepo"},
            "gated; accept its terms on its page on the hub, and set HF_TOKEN",
        ),
        ("/resolve/", 403, {"X_Error_Code": "GatedRepo"}, "gated; accept its terms"),
        ("/tree/", 404, {"X_Error_Code": "RepoNotFound"}, "no such repository, or a private one; check the name"),
        (
            "/tree/",
            401,
            {"X_Error_Message": "Invalid credentials in Authorization header"},
            "HTTP 401: .* correct HF_TOKEN",
        ),
        ("/tree/", 403, {}, "HTTP 403: this token may not read it; set HF_TOKEN"),
        ("/tree/", 429, {}, "HTTP 429: too many requests in every attempt; wait some minutes, or set HF_TOKEN"),
        ("/tree/", 200, {}, r"the download failed \(Expecting value.*\); check the network and HF_ENDPOINT"),
        ("HEAD .*safetensors", 429, {}, "HTTP 429: too many requests"),
        ("GET .*safetensors", 429, {}, "HTTP 429: too many requests"),
        ("/tree/", 503, {}, "HTTP 503: the hub failed; run again later"),
        ("HEAD .*safetensors", 500, {}, "HTTP 500: the hub failed; run again later"),
        ("GET .*safetensors", 502, {}, "HTTP 502: the hub failed; run again later, what arrived is kept"),
    ],
)
def test_a_refusal_is_one_line_with_its_remedy(hub, tmp_path, line, status, headers, message):
    commit = hub.add(REPOSITORY, MODEL)
    hub.refuse(line, status, **headers)
    assert re.search(f"^hub:org/tiny: {message}", failure(tmp_path, commit))


@pytest.mark.parametrize(
    ("line", "status"), [("/tree/", 429), ("/tree/", 503), ("HEAD .*safe", 500), ("GET .*safe", 429)]
)
def test_a_passing_refusal_is_retried(hub, tmp_path, line, status):
    commit = hub.add(REPOSITORY, MODEL)
    hub.refuse(line, status, times=3)
    assert names(fetch(tmp_path, commit).path) == set(MODEL)
    assert len([asked for asked in hub.requests if re.search(line, asked)]) == 4


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    commit = hub.add(REPOSITORY, MODEL)
    hub.cut["model.safetensors"] = [5000]
    assert (fetch(tmp_path, commit).path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert f"GET /org/tiny/resolve/{commit}/model.safetensors bytes=5000-" in hub.requests


def test_a_transfer_that_breaks_off_every_time_is_one_line(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    hub.cut["model.safetensors"] = [0] * 20
    message = failure(tmp_path, commit)
    assert re.search(r"the download failed \(.+\); check the network and HF_ENDPOINT, and run again: what", message)
    assert len(hub.cut["model.safetensors"]) < 19, "it was tried again"


def test_what_arrived_before_a_failure_is_not_downloaded_again(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    hub.refuse("GET .*safetensors", 502, times=1)
    failure(tmp_path, commit)
    arrived = names(tmp_path / "cache/models--org--tiny/snapshots" / commit)
    assert arrived
    hub.requests.clear()
    assert names(fetch(tmp_path, commit).path) == set(MODEL)
    assert {line.rsplit("/", 1)[1] for line in hub.requests if line.startswith("GET")} == set(MODEL) - arrived


def test_a_file_of_another_size_is_refused_and_fetched_again(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    hub.served["model.safetensors"] = b"short"
    message = failure(tmp_path, commit)
    assert "the download failed (Consistency check failed: file should be of size 10240 but has size 5" in message
    hub.served.clear()
    assert (fetch(tmp_path, commit).path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


def test_a_file_of_another_hash_is_refused_and_fetched_again(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    other = hub.served["model.safetensors"] = bytes(10240)
    hashes = [hashlib.sha256(content).hexdigest() for content in (MODEL["model.safetensors"], other)]
    assert f"model.safetensors: expected sha256 {hashes[0]}, found {hashes[1]}; the damaged" in failure(
        tmp_path, commit
    )
    hub.served.clear()
    assert (fetch(tmp_path, commit).path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


def test_a_hub_out_of_reach_is_one_line(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = failure(tmp_path, BAD)
    assert re.search(r"^hub:org/tiny: the download failed \(.+\); check the network and HF_ENDPOINT", message)


def test_a_branch_is_refused_with_the_commit_to_pin(hub, tmp_path):
    commit = hub.add(REPOSITORY, MODEL)
    message = failure(tmp_path, "main")
    assert message == (
        "hub:org/tiny: expected a revision of 40 hex digits (a commit), found 'main', "
        f"which is today {commit}; pin that"
    )
    assert failure(tmp_path, "0" * 64).endswith(f"found '{'0' * 64}', and its main branch is today {commit}; pin that")
    hub.refuse("", 503)
    unknown = failure(tmp_path, "v1", source="hub:org/other")
    assert unknown.endswith("found 'v1'; pin a commit of its history")


def test_a_commit_that_does_not_exist_is_said(hub, tmp_path):
    hub.add(REPOSITORY, MODEL)
    assert failure(tmp_path, BAD) == f"hub:org/tiny: it has no commit {BAD}; correct the revision"


def test_a_name_that_is_none_is_said(hub, tmp_path):
    assert failure(tmp_path, BAD, source="hub:a/b/c") == "hub:a/b/c: expected hub:ORG/NAME"


@pytest.mark.parametrize(("file", "folder"), [(None, ""), ("small", "small/")])
def test_a_repository_with_pickles_only_is_refused_with_the_reason(hub, tmp_path, file, folder):
    commit = hub.add(REPOSITORY, {f"{folder}config.json": b"{}", f"{folder}pytorch_model.bin": b"pickle"})
    message = failure(tmp_path, commit, file=file)
    assert f"expected model.safetensors, found pickled weights ({folder}pytorch_model.bin), which can run" in message
    assert not [line for line in hub.requests if "resolve" in line and "pytorch_model.bin" in line]


def test_a_repository_without_the_wanted_weights_says_what_it_holds(hub, tmp_path):
    commit = hub.add(REPOSITORY, {"a.Q4.gguf": b"4", "README.md": b""})
    for file in (None, "absent.gguf", "absent"):
        message = failure(tmp_path, commit, file=file)
        assert "name its folder or the .gguf file in model.file; it holds: README.md, a.Q4.gguf" in message


DATA = {
    "README.md": b"---\nlicense: [cc-by-4.0, mit]\n---\n",
    "plain/train-0.parquet": b"0",
    "plain/train-1.parquet": b"1",
    "plain/test-0.parquet": b"2",
    "other/train-0.parquet": b"3",
    "rows.csv": b"text,label\n",
}


@pytest.mark.parametrize(
    ("file", "arrived"),
    [
        ("plain/*.parquet", {"test-0.parquet", "train-0.parquet", "train-1.parquet"}),
        ("plain/train-*.parquet", {"train-0.parquet", "train-1.parquet"}),
        ("plain", {"test-0.parquet", "train-0.parquet", "train-1.parquet"}),
        ("plain/**/test-*.parquet", {"test-0.parquet"}),
    ],
)
def test_the_wanted_files_of_a_dataset_arrive_and_no_others(hub, tmp_path, file, arrived):
    commit = hub.add("datasets/org/rows", DATA)
    fetch(tmp_path, commit, source="hub:org/rows", repo_type="dataset", file="rows.csv")
    hub.requests.clear()
    fetched = fetch(tmp_path, commit, source="hub:org/rows", repo_type="dataset", file=file)
    assert fetched.path == tmp_path / "into/plain"
    assert names(fetched.path) == arrived
    assert {line.rsplit("/", 1)[1] for line in hub.requests if line.startswith("GET")} == arrived
    assert fetched.license == "cc-by-4.0, mit"


def test_one_file_of_a_dataset_arrives_and_a_member_of_one_that_is_an_archive(hub, tmp_path):
    files = DATA | {"rows.tar.gz": build_tar({"deep/rows.txt": b"one\n"}), "wow!.csv": b"wow\n"}
    options = {"commit": hub.add("datasets/org/rows", files), "source": "hub:org/rows", "repo_type": "dataset"}
    assert fetch(tmp_path, file="rows.csv", **options).path.read_bytes() == DATA["rows.csv"]
    assert fetch(tmp_path, file="rows.tar.gz!deep/rows.txt", **options).path.read_bytes() == b"one\n"
    assert fetch(tmp_path, file="wow!.csv", **options).path.read_bytes() == b"wow\n"
    message = failure(tmp_path, file="absent.csv", **options)
    assert "hub:org/rows: expected 'absent.csv', found none; it holds: README.md, other/train-0.parquet" in message
