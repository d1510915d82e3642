"""What one of a team pushes, another pulls, and computes nothing; texts and answers may be in object storage.

`make remotes` installs what this needs.
"""

import contextlib
import gzip
import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, sentences

from stages.common import paths

pytest.importorskip("dvc_s3", reason="make remotes")
pytest.importorskip("dvc_ssh", reason="make remotes")
moto = pytest.importorskip("moto.server", reason="make remotes")

BUCKET = "team"
SECONDS = 300
"""The longest that a command may take when the other side is gone."""

Remote = Callable[[Project], None]
"""Adds a remote to a project, with what this machine needs to reach it."""


def add(project: Project, url: str, *, shared: dict[str, str], own: dict[str, str]) -> None:
    """Add the default remote: `shared` settings are for all of the team, `own` ones for this machine."""
    project.run("dvc", "remote", "add", "--default", "storage", url)
    for flag, settings in (("--project", shared), ("--local", own)):
        for key, value in settings.items():
            project.run("dvc", "remote", "modify", flag, "storage", key, value)


@pytest.fixture
def folder(tmp_path: Path) -> Remote:
    return lambda project: add(project, str(tmp_path / "shared"), shared={}, own={})


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Remote]:
    """An SSH server on this machine, which takes one key that was made for it."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if not server or os.getuid():
        pytest.skip("needs sshd, started by root")
    home = tmp_path / "ssh"
    home.mkdir(mode=0o700)
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    (home / "authorized").write_bytes((home / "user.pub").read_bytes())
    Path("/run/sshd").mkdir(exist_ok=True)
    port = 20_000 + os.getpid() % 20_000
    settings = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": home / "host", "StrictModes": "no"}
    settings |= {"AuthorizedKeysFile": home / "authorized", "PasswordAuthentication": "no", "PidFile": "none"}
    settings |= {"PermitRootLogin": "yes", "UsePAM": "no", "Subsystem": "sftp internal-sftp"}
    (home / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    process = subprocess.Popen([server, "-D", "-e", "-f", home / "config"], stderr=subprocess.DEVNULL)
    time.sleep(1)
    url = f"ssh://root@127.0.0.1:{port}{tmp_path}/shared"
    yield lambda project, key="user": add(project, url, shared={}, own={"keyfile": str(home / key)})
    process.kill()
    process.wait()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An S3 server on this machine with a bucket, which knows one key: the environment in which it is reached."""
    import boto3

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "first")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())

    def post(path: str, content: str) -> None:
        plain = ["-H", "Content-Type: text/plain", "-d", content]
        subprocess.run(
            ["curl", "--silent", "--fail", *plain, f"{url}/moto-api/{path}"], check=True, capture_output=True
        )

    post("reset", "")
    post("reset-auth", "inf")  # whoever asks, until the key is made
    client = {"endpoint_url": url, "region_name": "us-east-1"}
    boto3.client("s3", **client).create_bucket(Bucket=BUCKET)
    known = boto3.client("iam", **client)
    known.create_user(UserName="member")
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
    known.put_user_policy(UserName="member", PolicyName="all", PolicyDocument=policy)
    key = known.create_access_key(UserName="member")["AccessKey"]
    post("reset-auth", "0")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"} | keys
    server.stop()


@pytest.fixture
def s3(bucket: dict[str, str]) -> Remote:
    shared = {"endpointurl": bucket["AWS_ENDPOINT_URL"], "region": bucket["AWS_DEFAULT_REGION"]}
    return lambda project, secret=bucket["AWS_SECRET_ACCESS_KEY"]: add(
        project,
        f"s3://{BUCKET}/dvc",
        shared=shared,
        own={"access_key_id": bucket["AWS_ACCESS_KEY_ID"], "secret_access_key": secret},
    )


@pytest.fixture
def member(project: Project, tmp_path: Path) -> Callable[[str], Project]:
    """A function that makes the clone of a member of the team, with an empty cache."""

    def clone(name: str) -> Project:
        project.run("git", "clone", "--quiet", str(project.folder), str(tmp_path / name))
        return Project(tmp_path / name)

    return clone


@pytest.fixture
def owner(project: Project, member: Callable[[str], Project]) -> Project:
    """The member who has run the pipeline."""
    owner = member("owner")
    shutil.copytree(project.folder / ".dvc/cache", owner.folder / ".dvc/cache")
    return owner


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_what_was_pushed_makes_a_fresh_clone_whole_without_computing(kind, request, owner, member):
    remote = request.getfixturevalue(kind)
    remote(owner)
    owner.run("dvc", "push", "--run-cache")
    other = member("other")
    remote(other)
    other.run("dvc", "pull", "--run-cache")
    done = other.run("dvc", "repro")
    assert "Data and pipelines are up to date." in done.stdout
    assert other.files("models") == owner_files(owner)
    changed = other.folder / "params.yaml"
    changed.write_text(changed.read_text().replace("epochs: 12", "epochs: 1"))
    assert "Running stage 'train'" in other.run("dvc", "repro", "--dry").stdout


def owner_files(owner: Project) -> dict[str, str]:
    """The files of the owner's models."""
    owner.run("dvc", "checkout")
    return owner.files("models")


@pytest.mark.parametrize(("kind", "wrong"), [("ssh", "stranger"), ("s3", "wrong")])
def test_wrong_credentials_end_in_one_line_and_change_nothing(kind, wrong, request, owner):
    request.getfixturevalue(kind)(owner, wrong)
    before = owner.files(".dvc/cache")
    ends_clearly(owner.run("dvc", "push", check=False, timeout=SECONDS))
    assert owner.files(".dvc/cache") == before


def test_a_remote_that_cannot_be_reached_is_said_and_a_later_push_completes_it(folder, owner, member, tmp_path):
    folder(owner)
    (tmp_path / "shared").write_text("a file where the folder should be")
    ends_clearly(owner.run("dvc", "push", check=False, timeout=SECONDS))
    (tmp_path / "shared").unlink()
    other = member("other")
    folder(other)
    ends_clearly(other.run("dvc", "pull", check=False, timeout=SECONDS))
    owner.run("dvc", "push")
    other.run("dvc", "pull")
    assert other.files("models") == owner_files(owner)


def test_a_push_to_a_full_remote_is_said_and_completed_once_there_is_room(folder, owner, member, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", shared], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        folder(owner)
        ends_clearly(owner.run("dvc", "push", check=False, timeout=SECONDS))
        subprocess.run(["mount", "-o", "remount,size=64m", shared], check=True)
        owner.run("dvc", "push")
        other = member("other")
        folder(other)
        other.run("dvc", "pull")
        assert other.files("models") == owner_files(owner)
    finally:
        subprocess.run(["umount", "--lazy", shared], check=True)


def test_a_server_that_is_cut_off_during_a_push_is_said_and_the_next_push_completes_it(ssh, owner, member):
    ssh(owner)
    pushing = subprocess.Popen(["dvc", "push"], cwd=owner.folder, stderr=subprocess.PIPE, text=True)
    stored = owner.folder.parent / "shared/files/md5"
    while not any(stored.glob("??/*")) and pushing.poll() is None:
        time.sleep(0.02)
    subprocess.run(["pkill", "-KILL", "-f", "^sshd: root"], check=False)  # the connections, not the server
    _, told = pushing.communicate(timeout=SECONDS)
    ends_clearly(subprocess.CompletedProcess([], pushing.returncode, "", told))
    owner.run("dvc", "push", timeout=SECONDS)
    other = member("other")
    ssh(other)
    other.run("dvc", "pull")
    assert other.files("models") == owner_files(owner)


def test_two_members_who_push_at_once_leave_the_remote_whole(folder, owner, member, tmp_path):
    folder(owner)
    second = Project(shutil.copytree(owner.folder, tmp_path / "second"))
    pushing = [subprocess.Popen(["dvc", "push", "--quiet"], cwd=one.folder) for one in (owner, second)]
    assert [process.wait(SECONDS) for process in pushing] == [0, 0]
    other = member("other")
    folder(other)
    other.run("dvc", "pull")
    assert other.files("models") == owner_files(owner)


@pytest.fixture
def inside(bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    """The file system of the bucket, which this process and those that it starts reach."""
    import s3fs

    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem.clear_instance_cache()


ROWS = [f'"{text}",{"positive" if rating > 0 else "negative"}\n' for text, rating in sentences(60)]


def test_predict_reads_and_writes_object_storage(inside, project, tmp_path):
    (tmp_path / "here").mkdir()
    for part in range(3):
        rows = "".join(["text,label\n", *ROWS[20 * part : 20 * part + 20], *(["odd\n"] if part == 1 else [])])
        packed = gzip.compress(rows.encode())
        (tmp_path / f"here/{part}.csv.gz").write_bytes(packed)
        inside.pipe_file(f"{BUCKET}/in/{part}.csv.gz", packed)
    project.stage("predict", "--input", f"{tmp_path}/here/*.gz", "--output", f"{tmp_path}/answers.csv")
    project.stage("predict", "--input", f"s3://{BUCKET}/in/*.gz", "--output", f"s3://{BUCKET}/out/answers.csv")
    assert inside.cat(f"{BUCKET}/out/answers.csv") == (tmp_path / "answers.csv").read_bytes()
    assert f"s3://{BUCKET}/in/1.csv.gz,22," in inside.cat(f"{BUCKET}/out/answers.rejects.csv").decode()
    assert len(inside.find(f"{BUCKET}/out")) == 2
    assert inside.list_multipart_uploads(BUCKET) == []
    assert project.files(str(paths.SCRATCH)) == {}


@pytest.mark.parametrize(
    ("given", "output", "environment", "said"),
    [
        ("s3://absent/a.csv", "", {}, "found nothing of that name (The specified bucket does not exist)"),
        ("s3://team/b.csv", "", {}, "found nothing of that name (team/b.csv)"),
        ("s3://team/*.tsv", "", {}, "expected files that match s3://team/*.tsv, found none"),
        (
            "s3://team/a.csv",
            "s3://absent/a.csv",
            {},
            "found nothing of that name (The specified bucket does not exist)",
        ),
        ("s3://team/a.csv", "", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "found no permission (Forbidden)"),
        ("s3://team/*.csv", "", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "found no permission (The request signature"),
        ("s3://team/a.csv", "", {"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None}, "Unable to locate cred"),
        ("s3://team/a.csv", "", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
        ("s3://team/a.csv", "", {"AWS_ENDPOINT_URL": "cut off"}, "(Response payload is not completed"),
    ],
    ids=["bucket", "file", "glob", "output", "permission", "glob, permission", "credentials", "server", "cut off"],
)
def test_object_storage_that_cannot_be_used_is_said_in_one_line(
    given, output, environment, said, inside, project, monkeypatch, cut_off
):
    inside.pipe_file(f"{BUCKET}/a.csv", b"text\n" + b"Good.\n" * 100_000)
    type(inside).clear_instance_cache()
    for name, value in environment.items():
        monkeypatch.setenv(name, cut_off if value == "cut off" else value) if value else monkeypatch.delenv(name)
    done = project.call("predict", "--input", given, *(["--output", output] if output else []), check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert project.files(str(paths.SCRATCH)) == {}


@pytest.fixture
def cut_off(bucket: dict[str, str]) -> Iterator[str]:
    """The address of the server by a connection that is cut after some bytes of each answer."""
    host, port = bucket["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")

    def forward(source: socket.socket, target: socket.socket, most: float) -> None:
        with contextlib.suppress(OSError):  # either side may be gone
            while most > 0 and (piece := source.recv(1 << 14)):
                target.sendall(piece)
                most -= len(piece)
            target.shutdown(socket.SHUT_RDWR)

    class Forwarding(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as server:
                threading.Thread(target=forward, args=(self.request, server, float("inf")), daemon=True).start()
                forward(server, self.request, 1 << 16)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forwarding) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "http://{}:{}".format(*server.server_address)
        server.shutdown()


def test_a_dataset_in_object_storage_is_imported_and_updated_by_dvc(inside, member):
    inside.pipe_file(f"{BUCKET}/raw/reviews.csv", "".join(["text,label\n", *ROWS]).encode())
    member = member("importer")
    member.run("dvc", "import-url", f"s3://{BUCKET}/raw/reviews.csv", "data/raw/reviews.csv")
    null = {f"data.{key}": "null" for key in ("file", "format", "columns", "classes", "revision")}
    settings = {"data.source": "path:data/raw/reviews.csv", "data.label": "label", "encode.template": "null"} | null
    member.run("dvc", "exp", "run", *(f"-S{key}={value}" for key, value in settings.items()), "prepare")
    assert "data/raw/reviews.csv.dvc" in member.run("git", "status", "--short").stdout
    assert "Running stage 'prepare'" not in member.run("dvc", "repro", "--dry", "prepare").stdout
    inside.pipe_file(f"{BUCKET}/raw/reviews.csv", "".join(["text,label\n", *ROWS, "One more.,positive\n"]).encode())
    member.run("dvc", "update", "data/raw/reviews.csv.dvc")
    assert "Running stage 'prepare'" in member.run("dvc", "repro", "--dry", "prepare").stdout


def ends_clearly(done: subprocess.CompletedProcess) -> None:
    """A command of DVC failed with a line that says so."""
    print(done.stderr)
    assert done.returncode
    assert "ERROR" in done.stderr
    assert "Traceback" not in done.stderr
