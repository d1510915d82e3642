"""Which model answers: the one in the workspace or, while a new one is being made, the last that was evaluated.

DVC removes the outputs of a stage before it runs the stage, so models/adapter is gone during a training and after one
that failed, and a new one has yet to be evaluated. Until it is, dvc.lock names by hash what `evaluate` last read and
wrote, and DVC's cache has it. What brings dvc.lock back, such as `git checkout`, brings its model back too.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.adapters.run import FILE, Run
from stages.common import files, paths, progress
from stages.common.errors import PipelineError
from stages.evidence.abstention import fingerprint

CONFIG, SOURCE = "adapter_config.json", "source.json"
"""PEFT's file in an adapter's folder, and the file in a base model's that says where it came from."""

PARTS = (paths.ADAPTER, paths.BASE_MODEL, paths.ABSTENTION)
"""What a model consists of, in the workspace."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Where the parts of a model are."""

    adapter: Path = paths.ADAPTER
    base: Path | None = paths.BASE_MODEL
    """None: that of a whole model, which answers without it, is not here."""
    abstention: Path = paths.ABSTENTION
    evaluation: "Evaluated | None" = field(default=None, compare=False)
    """What its evaluation read and wrote; None: that is not known."""

    @property
    def marks(self) -> tuple[Path, ...]:
        """The files that tell a model from all others: run.json records what made the adapter, source.json the base
        model's hashes."""
        return self.adapter / FILE, *([self.base / SOURCE] if self.base else []), self.abstention


@contextmanager
def model(folder: Path | None = None) -> Iterator[Model]:
    """Yield the model of the workspace or, if that is not the last evaluated one and DVC's cache has that, the latter.

    A printed line says so.

    Args:
        folder: yield the model in this folder instead, which `stages.export` wrote.

    Raises:
        PipelineError: the folder has no model.
    """
    if folder:
        if not (folder / FILE).is_file():
            raise PipelineError(
                f"--model: expected a folder that `python -m stages.export` wrote, found {folder} without {FILE}; "
                "write one with that command"
            )
        with saved("--model", folder) as found:
            yield found
        return
    kept = Evaluated.load()
    other = [path for path in Model().marks if not kept.has(path)] if kept else []
    if not other:
        yield Model(evaluation=kept)
        return
    with files.scratch() as scratch:
        found = kept.linked(scratch.absolute())
        why = "is not the evaluated one" if other[0].exists() else "is missing"
        progress.say(f"{other[0]} {why} (see dvc status): using the last evaluated model, {described(found)}")
        yield found


@contextmanager
def saved(option: str, folder: Path) -> Iterator[Model]:
    """Yield the model that a folder with run.json holds, or whose adapter it holds.

    Its base model is the first of these that has the weights of its training: the one that an adapter names, the one
    beside the folder, models/base.

    Args:
        option: that named the folder, for an error.

    Raises:
        PipelineError: it holds an adapter, and none of them has these weights.
    """
    config, wanted = folder / CONFIG, Run.load(folder).base_model
    named = [Path(files.read_json(config)["base_model_name_or_path"])] if config.exists() else []
    known = dict.fromkeys((*named, folder.parent / paths.BASE_MODEL.name, paths.BASE_MODEL))
    sources = {one: files.read_json(one / SOURCE) for one in known if (one / SOURCE).is_file()}
    base = next((one for one, source in sources.items() if weights(source) == weights(wanted)), None)
    if named and base is None:
        raise PipelineError(
            f"{option}: expected its base model, {wanted['source']} with the weights of its training, in "
            f"{' or '.join(map(str, known))}, found none; put it there"
        )
    if not named or base in named:
        yield Model(adapter=folder, base=base, abstention=thresholds(folder))
        return
    with files.scratch() as scratch:
        for path in folder.iterdir():
            (scratch / path.name).symlink_to(path.absolute())
        name_base(scratch, base)
        yield Model(adapter=scratch, base=base, abstention=thresholds(folder))


def thresholds(folder: Path) -> Path:
    """The file with the thresholds of the model in a folder: in it, where `stages.export` puts them, or beside a
    project's models/adapter, where `evaluate` does."""
    home = folder.resolve()
    inside, beside = folder / paths.ABSTENTION.name, home.with_name(paths.ABSTENTION.name)
    return beside if home.name == paths.ADAPTER.name and not inside.exists() else inside


def weights(source: dict[str, Any]) -> dict[str, str]:
    """The sha256 of each file of a base model's weights, by the content of its source.json."""
    return {name: digest for name, digest in source.get("sha256", {}).items() if name.endswith(".safetensors")}


def scores(model: Model) -> dict[str, Any]:
    """The content of the metrics/evaluate.json that belongs to a model.

    Raises:
        PipelineError: it is lost, or the file is another model's.
    """
    found = files.read_json(belonging(paths.EVALUATE_METRICS, model))
    if found.get("run") != fingerprint(model.adapter):
        raise PipelineError(
            f"{paths.EVALUATE_METRICS}: expected the scores of the model in {paths.ADAPTER}, found those of another "
            "one; make them with: dvc repro"
        )
    return found


def belonging(path: Path, model: Model) -> Path:
    """Where the file is that `evaluate` read or wrote at a path for a model; if that is not known, the workspace's.

    Raises:
        PipelineError: it is lost.
    """
    kept = model.evaluation
    place = path if kept is None or kept.has(path) else kept.object(path)
    if kept and not (place and place.exists()):
        raise PipelineError(
            f"{path}: expected that of the last evaluated model, found another; make it with: dvc repro"
        )
    return place


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What the last evaluation read and wrote."""

    hashes: dict[Path, str]
    """The md5 of each file, by its path in the workspace."""
    cache: Path
    """Where DVC keeps files, by their md5."""

    @classmethod
    def load(cls) -> Self | None:
        """What dvc.lock names; None: there was no evaluation, or the cache lacks a file of the model."""
        try:
            stages = YAML(typ="safe", pure=True).load(paths.LOCK.read_text(encoding="utf-8"))["stages"]
            found = cls(hashes=hashes_of(stages), cache=cache())
            for folder in (paths.ADAPTER, paths.BASE_MODEL):
                listed = json.loads(found.object(folder).read_text(encoding="utf-8"))
                del found.hashes[folder]
                found.hashes.update({folder / one["relpath"]: one["md5"] for one in listed})
        except (OSError, ValueError, YAMLError, KeyError, TypeError):  # no run yet, or a conflict of a merge
            return None
        return found if all(found.object(path).exists() for path in found.parts()) else None

    def parts(self) -> list[Path]:
        """The files of the model."""
        return [path for path in self.hashes if any(path.is_relative_to(part) for part in PARTS)]

    def object(self, path: Path) -> Path | None:
        """The file in the cache with the content that a path had; None: the evaluation had no such path."""
        md5 = self.hashes.get(path)
        return self.cache / md5[:2] / md5[2:] if md5 else None

    def has(self, path: Path) -> bool:
        """Whether the workspace's file is that of the evaluation."""
        return path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() == self.hashes.get(path)

    def linked(self, folder: Path) -> Model:
        """The model in a folder, of links to the files in the cache."""
        adapter, base, abstention = (folder / part for part in PARTS)
        found = Model(adapter=adapter, base=base, abstention=abstention, evaluation=self)
        for path in self.parts():
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.object(path).absolute())
        name_base(found.adapter, found.base)
        return found


def hashes_of(stages: dict[str, Any]) -> dict[Path, str]:
    """The md5 of all that `evaluate` read and wrote, by path, and of the rivals' metrics, if `baseline` was not run
    again since.

    Args:
        stages: of dvc.lock.
    """
    found = {
        (stage, Path(one["path"])): one["md5"]
        for stage in ("baseline", "evaluate")
        for group in ("deps", "outs")
        for one in stages[stage][group]
    }
    hashes = {path: md5 for (stage, path), md5 in found.items() if stage == "evaluate"}
    if found["baseline", paths.BASELINE_PREDICTIONS] == hashes[paths.BASELINE_PREDICTIONS]:
        hashes[paths.BASELINE_METRICS] = found["baseline", paths.BASELINE_METRICS]
    return hashes


def cache() -> Path:
    """DVC's folder of files."""
    from dvc.config import Config  # here: what is not asked for a model needs no DVC

    return Path(Config(".dvc")["cache"].get("dir") or ".dvc/cache", "files/md5")


def described(model: Model) -> str:
    """Since when a model is here and, unless that is lost, its score on the test rows."""
    run = Run.load(model.adapter)
    since = time.strftime("here since %Y-%m-%d %H:%M", time.localtime((model.adapter / FILE).stat().st_mtime))
    try:
        return f"{since}, {run.main.name} {scores(model)[run.main.key]:.4g} on the test rows"
    except PipelineError:
        return since


def name_base(adapter: Path, base: Path) -> None:
    """Have PEFT load the base model of an adapter from a folder; a whole model, which is no adapter, has none."""
    path = adapter / CONFIG
    if path.exists():
        files.write_json(path, files.read_json(path) | {"base_model_name_or_path": str(base)})
