"""serve: the tuned model as a page and as an API.

    python -m stages.serve                                        http://127.0.0.1:8000
    python -m stages.serve --port 8080 --host 0.0.0.0             for other machines, too
    python -m stages.serve --adapter movies=models/adapter --adapter mails=../mails/models/adapter
    python -m stages.serve --model models/merged                  what export wrote

    curl http://127.0.0.1:8000/predict --json '{"texts": ["A warm, funny and wise film.", "Dull."]}'

Needs the packages of requirements-serve.txt. Reads models/base, models/adapter, models/abstention.json and
metrics/evaluate.json; while another model is being made, those of the last one that was evaluated, from DVC's cache.
Adapters of one base have it in memory once. docs/serve.md describes the page, the API and what is refused.
"""

import argparse
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

from stages.backbone import base
from stages.common import errors, progress
from stages.common.errors import PipelineError
from stages.serving import adapters
from stages.web import models
from stages.web.batching import CAPACITY

if TYPE_CHECKING:
    from fastapi import FastAPI

PATIENCE = 30
"""Seconds in which requests that have begun are answered after a signal."""


def main() -> None:
    options = parse_arguments()
    try:
        from stages.web import server
    except ModuleNotFoundError as error:
        raise PipelineError(
            f"serve: expected the packages of requirements-serve.txt, found no {error.name}; install them with: "
            "pip install -r requirements-serve.txt -c requirements.lock"
        ) from None
    limits = server.Limits(texts=options.max_texts, characters=options.max_characters, megabytes=options.max_megabytes)
    with bound(options.host, options.port) as place:
        app = server.create(load(options), limits=limits, hosts=tuple(options.name))
        host, port = place.getsockname()[:2]
        progress.say(f"serve: http://{f'[{host}]' if ':' in host else host}:{port}")
        serve(app, place)


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m stages.serve", description="Serve the model as a page and an API.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--name", action="append", default=[], help="a host name by which requests come, besides localhost; repeatable"
    )
    adapters.add_arguments(parser)
    for name, value, unit in (("texts", 256, "texts per request"), ("characters", 20_000, "characters per text")):
        parser.add_argument(f"--max-{name}", type=int, default=value, help=f"most {unit} (default: %(default)s)")
    parser.add_argument("--max-megabytes", type=int, default=32, help="largest request (default: %(default)s)")
    options = parser.parse_args()
    if options.adapter and options.model:
        parser.error("expected --adapter or --model, found both")
    if not 0 <= options.port < 1 << 16:
        parser.error(f"--port: expected 0 to 65535, found {options.port}")
    for name in ("texts", "characters", "megabytes"):
        if (value := getattr(options, f"max_{name}")) < 1:
            parser.error(f"--max-{name}: expected 1 or more, found {value}")
    if options.max_texts > (most := CAPACITY // 2):
        parser.error(f"--max-texts: expected at most {most}, which may wait for two models, found {options.max_texts}")
    return options


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, before anything is loaded: who comes early waits.

    Raises:
        PipelineError: the address is another program's or none of this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
        place.listen()
        return place
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", error)
        raise PipelineError(f"--host {host} --port {port}: expected a free address, found: {why}; name one") from None


def load(options: argparse.Namespace) -> dict[str, models.Served]:
    """The models that the arguments name."""
    base.quiet_transformers()
    with adapters.chosen(options.adapter, options.model) as wanted:
        by_name = {name or models.DEFAULT: model for name, model in wanted.items()}
        return models.load(by_name, tested=not options.adapter and not options.model, untouched=not options.model)


def serve(app: "FastAPI", place: socket.socket) -> None:
    """Serve until a signal comes, answer what has begun, and pass the signal on."""
    import uvicorn

    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=PATIENCE))
    hung_up = []

    def hang_up(number: int, frame: FrameType | None) -> None:
        hung_up.append(number)
        running.should_exit = True

    former = signal.getsignal(signal.SIGHUP)  # uvicorn itself handles the other ones of `errors.ENDING`
    if former is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)
    running.run(sockets=[place])
    signal.signal(signal.SIGHUP, former)
    for number in hung_up:
        signal.raise_signal(number)


if __name__ == "__main__":
    errors.run(main)
