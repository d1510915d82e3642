"""Models to serve whose answers are known: what they say of a text depends on its characters alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI

from stages.evidence.abstention import Abstention
from stages.problems.kinds import PROBLEMS
from stages.serving.answers import Classifier
from stages.web.models import Served

MARKUP = "<script>alert(1)</script>"

CLASSES = ["praise", MARKUP, "topic"]

SURE = Abstention(target=0.9, confidence=0.95, rows=100, threshold=0.6, set_threshold=0.2, run="")


def logits(inputs):
    """A text's logits: one for each class, from the number of its characters; a pair's, from both."""
    lengths = np.array([len(one) if isinstance(one, str) else 2 * len(one[0]) + len(one[1]) for one in inputs])
    return np.stack([np.sin(lengths), np.cos(lengths), np.sin(2 * lengths)], axis=1).astype(np.float32) * 2


def made(kind="single_label", *, name="default", columns=("text",), compute=logits, untouched=True, **options):
    """A model of a kind of problem, and beside it one that says the opposite."""
    problem = PROBLEMS[kind]
    names = ["number"] if problem.numeric else CLASSES

    def cut(inputs):
        return compute(inputs)[:, : len(names)]

    tuned = Classifier(logits=cut, problem=problem, names=names, **options)
    opposite = Classifier(logits=lambda inputs: -cut(inputs), problem=problem, names=names)
    facts = {
        "name": name,
        "run": "0123456789abcdef",
        "base": "hub:org/base",
        "method": "lora",
        "problem": kind,
        "classes": [] if problem.numeric else names,
        "texts": list(columns),
        "since": "2026-01-02T03:04:05Z",
        "parameters": {"trainable": 10, "total": 1000},
        "max_length": 64,
        "test": {"score": "accuracy", "percent": True, "value": 0.9, "low": 0.8, "high": 0.95},
    }
    roles = dict(zip(("text", "text_pair"), columns, strict=False))
    return Served(name=name, tuned=tuned, untouched=opposite if untouched else None, columns=roles, facts=facts)


@contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """Serve an application at a port of the loopback address; yields the port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()
