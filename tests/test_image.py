"""The steps of the Dockerfile, carried out in a folder instead of an image, make a server that answers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import ONLINE, ROOT

pytestmark = [pytest.mark.real, pytest.mark.long]

TRIES = 120
"""How often the server is asked whether it is up, about a second apart."""

STEP = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


@pytest.fixture
def context(finished, tmp_path) -> Path:
    """What `docker build` sees of a workspace with a finished run: what .dockerignore keeps."""
    whole, kept = tmp_path / "workspace", tmp_path / "context"
    subprocess.run(["git", "clone", "--quiet", ROOT, whole], check=True)
    for name in ("metrics", "models"):
        shutil.copytree(finished / name, whole / name, dirs_exist_ok=True)
    patterns = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in (path for path in whole.rglob("*") if path.is_file() and ".git" not in path.parts):
        name = path.relative_to(whole)
        if any(fnmatch(str(part), pattern) for pattern in patterns for part in (name, *name.parents)):
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept / name)
    return kept


def test_the_steps_of_the_dockerfile_make_a_server_that_answers(context, tmp_path):
    image, tools, venv = tmp_path / "app", tmp_path / "tools", tmp_path / "venv"
    for folder in (image, tools):
        folder.mkdir()
    (tools / "useradd").write_text("#!/bin/sh\n")  # the image's user is no user of this machine
    (tools / "useradd").chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    environment = ONLINE | {"PATH": f"{venv / 'bin'}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}"}
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    for instruction, rest in STEP.findall(text):
        match instruction:
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    there = context / source
                    if there.is_dir():
                        shutil.copytree(there, image / target, dirs_exist_ok=True)
                    else:
                        shutil.copy(there, image / target)
            case "RUN":
                subprocess.run(rest, shell=True, cwd=image, env=environment, check=True, capture_output=True)
            case "ENV":
                environment |= dict(pair.split("=") for pair in rest.split())
            case "CMD":
                command = json.loads(rest)
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen([*command, "--port", port], cwd=image, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        healthy = [part.replace("8000", port) for part in json.loads(check)]
        for _ in range(TRIES):
            if not subprocess.run(healthy, env=environment, capture_output=True).returncode:
                break
            assert server.poll() is None, server.stderr.read()
            time.sleep(1)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            json.dumps({"texts": ["A wonderful film."]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked) as answer:
            (found,) = json.load(answer)["answers"]
        assert found["label"] in ("negative", "positive")
    finally:
        server.terminate()
        server.wait(timeout=60)
