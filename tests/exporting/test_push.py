"""An exported model goes to a repository on a hub, whole or not at all, and nobody sees it who was not meant to."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers import pipeline

from stages import export
from stages.common import paths
from stages.common.errors import PipelineError
from stages.exporting.push import push
from stages.sources import fetched

REPOSITORY = "models/org/tuned"


@pytest.fixture
def inside(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "run"))
    return monkeypatch


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    for name, content in {"README.md": b"# Tuned\n", "model.safetensors": bytes(range(256))}.items():
        (folder / name).write_bytes(content)
    return folder


def export_and_push(patch, *options, to="org/tuned"):
    patch.setattr(sys, "argv", ["export", "--push", to, *options])
    export.main()


def in_hub(hub):
    return hub.repositories[REPOSITORY][hub.refs[f"{REPOSITORY}@main"]]


def on_disk(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("options", "private"), [((), True), (("--public",), False)])
def test_a_merged_model_arrives_whole_and_only_the_public_one_is_public(
    inside, hub, capsys, tmp_path, options, private
):
    export_and_push(inside, *options)
    assert in_hub(hub) == on_disk(paths.MERGED)
    assert hub.private == {REPOSITORY: private}
    said = capsys.readouterr().out
    assert f"hub:org/tuned, {'private' if private else 'public: everyone may read it'}, will hold:" in said
    assert "MB  model.safetensors\n" in said and "\nclasses: negative, positive\n" in said
    commit = hub.refs[f"{REPOSITORY}@main"]
    assert said.endswith(f"{hub.url}/org/tuned/commit/{commit}\n")
    there = fetched.fetch(source="hub:org/tuned", revision=commit, file=None, into=tmp_path, repo_type="model").path
    (answer,) = pipeline("text-classification", str(there))("A warm and funny film.")
    assert answer["label"] in ("negative", "positive")


def test_the_card_of_a_pushed_model_names_the_repository(inside, hub):
    export_and_push(inside)
    assert 'pipeline("text-classification", "org/tuned")' in in_hub(hub)["README.md"].decode()
    export_and_push(inside, "--adapter")
    assert 'folder = snapshot_download("org/tuned")' in in_hub(hub)["README.md"].decode()


def test_pushed_again_only_what_changed_is_uploaded_and_what_others_added_stays(exported, hub):
    push(exported, "org/tuned", private=True)
    hub.add(REPOSITORY, in_hub(hub) | {"notes.md": b"ours"})
    (exported / "README.md").write_text("# Later\n")
    hub.requests.clear()
    push(exported, "org/tuned", private=True)
    assert in_hub(hub) == on_disk(exported) | {"notes.md": b"ours"}
    assert not [line for line in hub.requests if line.startswith("PUT")]


def test_a_dry_run_shows_everything_and_asks_the_hub_nothing(inside, hub, capsys):
    export_and_push(inside, "--adapter", "--dry-run")
    said = capsys.readouterr().out
    for name in on_disk(paths.PUBLISHED):
        assert f"MB  {name}\n" in said
    source = json.loads(Path(paths.PUBLISHED, "run.json").read_text())["params"]["data"]["source"]
    assert f"\ndata.source: {source}\n" in said
    assert said.endswith("nothing was uploaded (--dry-run)\n")
    assert not hub.requests


def test_a_public_repository_gets_nothing_that_shall_be_private_nor_the_reverse(exported, hub):
    hub.add(REPOSITORY, {"README.md": b"older"})
    with pytest.raises(PipelineError, match=r"^hub:org/tuned: expected a private repository, found a public one; take"):
        push(exported, "org/tuned", private=True)
    hub.private[REPOSITORY] = True
    with pytest.raises(PipelineError, match=r"expected a public repository, found a private one; make it public in"):
        push(exported, "org/tuned", private=False)
    assert in_hub(hub) == {"README.md": b"older"}
    assert not hub.uploaded


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("POST /api/repos/create", 403, "HTTP 403: this token may not write to it; set HF_TOKEN to one that may"),
        ("POST /api/models/org/tuned/commit", 403, "HTTP 403: this token may not write to it"),
        ("POST /api/models/org/tuned/commit", 500, "HTTP 500: the hub failed; run again later"),
        ("PUT /large/", 403, "HTTP 403: this token may not write to it"),
    ],
)
def test_a_refused_upload_leaves_nothing_and_says_why_in_a_line(exported, hub, line, status, message):
    hub.refuse(line, status)
    with pytest.raises(PipelineError) as caught:
        push(exported, "org/tuned", private=True)
    assert str(caught.value).startswith(f"hub:org/tuned: {message}")
    assert "\n" not in str(caught.value)
    assert all(not files for files in hub.repositories.get(REPOSITORY, {}).values())


def test_without_a_token_or_without_a_network_the_remedy_is_named(exported, hub, monkeypatch):
    hub.token = "secret"
    with pytest.raises(PipelineError, match="set HF_TOKEN to a token with access"):
        push(exported, "org/tuned", private=True)
    hub.token = None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PipelineError, match="HF_HUB_OFFLINE forbids an upload; unset it"):
        push(exported, "org/tuned", private=True)


@pytest.mark.parametrize("name", ["tuned", "a/b/c", "org/..", "org/tuned@main", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_written(inside, hub, name):
    with pytest.raises(PipelineError, match=r"--push: expected ORG/NAME, found '"):
        export_and_push(inside, to=name)
    assert not paths.MERGED.exists() and not hub.requests


@pytest.mark.parametrize("option", ["--public", "--dry-run"])
def test_an_option_of_push_alone_is_refused(inside, capsys, option):
    inside.setattr(sys, "argv", ["export", option])
    with pytest.raises(SystemExit):
        export.main()
    assert f"{option}: expected --push with it" in capsys.readouterr().err
