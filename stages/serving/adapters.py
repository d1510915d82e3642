"""Several adapters of one base model, which is in memory once: weights that are equal, byte for byte, are shared."""

import argparse
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from stages.adapters.run import FILE
from stages.backbone.device import device
from stages.common import paths
from stages.common.errors import PipelineError
from stages.serving import evaluated
from stages.serving.answers import BATCH_SIZE, Classifier

LEAST_SHARED = 0.5
"""The share of its weights that a further model has in common with those before it, at least."""


class NamedFolder(argparse.Action):
    """Collects the folders of arguments NAME=FOLDER by their names."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, given: str, *_: object) -> None:
        before = getattr(namespace, self.dest)
        name, _, folder = given.partition("=")
        if not name or not folder or name in before:
            parser.error(f"--adapter: expected NAME=FOLDER, each with a name of its own, found {given}")
        setattr(namespace, self.dest, before | {name: Path(folder)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the models that answer; `chosen` takes what they say."""
    parser.add_argument(
        "--adapter",
        action=NamedFolder,
        default={},
        metavar="NAME=FOLDER",
        help="an adapter instead of models/adapter; repeatable, for adapters of one base model",
    )
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="a model that stages.export wrote, such as models/onnx"
    )


@contextmanager
def chosen(adapters: Mapping[str, Path], exported: Path | None) -> Iterator[dict[str, evaluated.Model]]:
    """Yield the models that answer, by their names; one that was given none has an empty name.

    Raises:
        PipelineError: a part of one is missing.
    """
    if adapters:
        with ExitStack() as opened:
            yield {name: opened.enter_context(of_folder(name, folder)) for name, folder in adapters.items()}
    else:
        with evaluated.model(exported) as model:
            yield {"": model}


def loaded(
    models: Mapping[str, evaluated.Model], *, untouched: bool, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[str, Classifier, Classifier | None]]:
    """The name of each model, what it is after tuning and, if asked for, before.

    Raises:
        PipelineError: a model shares too little with those before it, or its base model is not here.
    """
    memory, one = Memory(), len(models) == 1 and not untouched
    for number, (name, model) in enumerate(models.items()):
        if untouched and model.base is None:
            raise PipelineError(
                f"--adapter {name}: expected its base model beside it or in {paths.BASE_MODEL}, to compare with, found "
                "none with the weights of its training; put it there"
            )
        tuned = Classifier.tuned(model, batch_size=batch_size)
        shared = 0.0 if one or tuned.network is None else memory.share(tuned.network)
        if number and shared < LEAST_SHARED:
            raise PipelineError(
                f"--adapter {name}: expected an adapter of the same base model as {next(iter(models))!r}, of whose "
                f"layers it changes the top ones alone (lora.top_layers), found {shared:.0%} of its weights in common; "
                "run it by itself"
            )
        before = Classifier.untouched(model, batch_size=batch_size) if untouched else None
        if before:
            memory.share(before.network)
        yield name, tuned, before


class Memory:
    """The weights that are in memory, by their content."""

    def __init__(self) -> None:
        self.kept: dict[tuple, torch.Tensor] = {}

    def share(self, model: nn.Module) -> float:
        """Have the model's weights that are in memory already be that memory; returns their share of its bytes."""
        model.to(device())  # here: later it would part what is shared
        total = known = 0
        for weight in {id(weight): weight for weight in [*model.parameters(), *model.buffers()]}.values():
            content = weight.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy()
            key = (weight.dtype, weight.shape, hashlib.sha256(content).digest())
            total += weight.nbytes
            known += weight.nbytes if key in self.kept else 0
            weight.data = self.kept.setdefault(key, weight.data)
        return known / total


def of_folder(name: str, folder: Path) -> AbstractContextManager[evaluated.Model]:
    """The model whose adapter is in a folder: models/adapter, one of models/seeds, or an exported one.

    Raises:
        PipelineError: a part of it is missing.
    """
    if not (folder / FILE).is_file():
        raise PipelineError(f"--adapter {name}: expected a folder with {FILE}, like {paths.ADAPTER}, found {folder}")
    return evaluated.saved(f"--adapter {name}", folder)
