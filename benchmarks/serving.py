"""The latency of `stages.serve`, and what it answers to 32 clients at once, beside direct calls in the same run.

    python -m benchmarks.serving

Reads models/base, models/adapter and data/prepared, and needs requirements-serve.txt. One client asks for test texts
one by one, in turn with direct calls of the classifier; then 32 clients ask, each for texts of its own, and every
answer is compared with the classifier's. Prints one line of JSON: milliseconds, texts per second, what was lost or
wrong, and the size of the weights in memory, for one adapter and for two.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from benchmarks.screenshot import server
from stages.common import errors, paths
from stages.serving import evaluated
from stages.serving.answers import Classifier
from stages.web import models

CLIENTS, TEXTS = 32, 320

WARM, SINGLE = 5, 50
"""Texts before the first that is timed, and texts that are asked for one by one."""


def main() -> None:
    texts = pq.read_table(paths.PREPARED / "test.parquet")["text"].to_pylist()[:TEXTS]
    tuned = Classifier.tuned(evaluated.Model())
    with server() as url, httpx2.Client(base_url=url, timeout=600) as client:
        single = alternating(texts[: WARM + SINGLE], {"rest": by_rest(client), "direct": by_call(tuned)})
        begin = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            answered = list(pool.map(by_rest(client), texts))
        load = len(texts) / (time.perf_counter() - begin)
    begin = time.perf_counter()
    expected = tuned.answers(texts).to_dict("records")
    direct = len(texts) / (time.perf_counter() - begin)
    wrong = sum(not same(one, other) for one, other in zip(answered, expected, strict=True))
    result = {
        "milliseconds": single,
        "ratio_p50": single["rest"]["p50"] / single["direct"]["p50"],
        "clients": CLIENTS,
        "texts": len(texts),
        "lost": sum(one is None for one in answered),
        "wrong": wrong,
        "texts_per_s": {"32_clients": load, "direct": direct},
    }
    print(json.dumps(result | {"weights_mib": weights()}))


def weights() -> dict[str, float]:
    """The weights of one adapter with its untouched model, and of two adapters with theirs, in MiB."""
    with tempfile.TemporaryDirectory() as home:
        other = Path(shutil.copytree(paths.ADAPTER, Path(home, "other"), copy_function=shutil.copyfile))
        file = other / "adapter_model.safetensors"
        save_file({name: value / 2 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
        found = models.load(
            {"one": evaluated.Model(), "two": evaluated.Model(adapter=other, abstention=other / "none")}
        )
    result, places = {}, {}
    for name, served in found.items():
        for classifier in (served.tuned, served.untouched):
            places |= {weight.data_ptr(): weight.nbytes for weight in classifier.network.parameters()}
        result[f"up to {name}"] = sum(places.values()) / (1 << 20)
    return result


def alternating(texts: list[str], ways: dict[str, Callable[[str], Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds to the answer to a single text, median and 95th percentile, by way of asking, taken in turn."""
    seconds = {name: [] for name in ways}
    for text in texts:
        for name, ask in ways.items():
            begin = time.perf_counter()
            ask(text)
            seconds[name].append(time.perf_counter() - begin)
    shown = {"p50": 50, "p95": 95}
    return {
        name: {key: 1000 * float(np.percentile(values[WARM:], share)) for key, share in shown.items()}
        for name, values in seconds.items()
    }


def by_rest(client: httpx2.Client) -> Callable[[str], dict | None]:
    """Ask the server for a text; None: it gave no answer."""

    def ask(text: str) -> dict | None:
        response = client.post("/predict", json={"text": text})
        return response.json()["answers"][0] if response.status_code == 200 else None

    return ask


def by_call(classifier: Classifier) -> Callable[[str], Any]:
    """Ask the classifier itself."""
    return lambda text: classifier.answers([text])


def same(answer: dict | None, row: dict) -> bool:
    """Whether an answer is the row's; probabilities of other batches differ in the last bits."""
    if answer is None:
        return False
    near = all(abs(value - row[name]) < 1e-4 for name, value in answer["probabilities"].items())
    return near and answer["label"] == row["label"]


if __name__ == "__main__":
    errors.run_script(main, __doc__)
