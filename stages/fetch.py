"""fetch: the pretrained model, pinned by its revision, as a plain transformers folder.

    python -m stages.fetch

Reads the source named by `model` in params.yaml (path: from models/raw). Writes models/base: config, weights in
safetensors, tokenizer, and `source.json`, written last: where the files came from, their sha256 and the licence as the
source states it. A GGUF file is converted once, to float32.
"""

import functools
import json
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

from safetensors import SafetensorError, safe_open

from stages.common import errors, files, paths
from stages.params import Model, Params
from stages.sources import fetched
from stages.sources.archive import digest, listing
from stages.sources.hub import MODEL_FILES


def main() -> None:
    model = Params.load().model
    with files.replacing(paths.BASE_MODEL) as folder, tempfile.TemporaryDirectory() as scratch:
        found = fetched.fetch(
            source=model.source, revision=model.revision, file=model.file, into=Path(scratch), repo_type="model"
        )
        if found.path.suffix == ".gguf":
            convert_gguf(found.path, folder)
        elif (found.path / "config.json").is_file():
            copy_model(found.path, folder)
            refuse_remote_code(folder)
        else:
            raise errors.PipelineError(
                f"{model.source}: expected a .gguf file or a folder with config.json, found neither; "
                f"name one within it in model.file, which is {model.file or 'null'}"
            )
        files.write_json(folder / "source.json", provenance(model, found, folder))
    print(f"{paths.BASE_MODEL}: {model.source}, licence {found.license}")


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer to `folder` as safetensors (float32) and JSON.

    The loaded object itself refuses to be saved, being marked as quantized, so its weights move to a fresh one.

    Raises:
        PipelineError: transformers cannot read the file.
    """
    import gguf
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    # transformers opens the file, which takes seconds, once for each of config, tokenizer and weights
    try:
        with mock.patch.object(gguf, "GGUFReader", functools.cache(gguf.GGUFReader)):
            where["config"] = AutoConfig.from_pretrained(**where)
            AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
            loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except (ValueError, LookupError, NotImplementedError, OSError) as error:
        raise errors.PipelineError(
            f"{file.name}: expected a GGUF file of a language model that transformers reads, found: "
            f"{' '.join(str(error).split())}"
        ) from None
    del loaded.config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(loaded.config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)


def copy_model(model: Path, folder: Path) -> None:
    """Copy the files of a saved transformers model from its folder.

    Raises:
        PipelineError: it has no weights in safetensors, or not all of them, or they cannot be read.
    """
    found = sorted(path.name for path in model.iterdir() if path.is_file())
    kept = [name for name in found if any(fnmatch(name, pattern) for pattern in MODEL_FILES)]
    weights = {name for name in kept if name.endswith(".safetensors")}
    index = model / "model.safetensors.index.json"
    needed = set(read_json(index)["weight_map"].values()) if index.is_file() else weights or {"model.safetensors"}
    if missing := sorted(needed - weights):
        raise errors.PipelineError(
            f"{model.name}: expected {listing(missing)}, found {listing(found)}; pickled weights are not loaded"
        )
    for name in sorted(weights):
        try:
            safe_open(model / name, "np")
        except SafetensorError as error:
            raise errors.PipelineError(
                f"{name}: expected weights in safetensors, found a file cut short or of another format ({error}); "
                "fetch or copy it again"
            ) from None
    for name in kept:
        shutil.copyfile(model / name, folder / name)


def refuse_remote_code(folder: Path) -> None:
    """Take out what names a repository's own code (`auto_map`), where transformers does without it.

    So nothing that reads the folder later can be asked to run that code.

    Raises:
        PipelineError: transformers has no such architecture or tokenizer of its own.
    """
    for name, loader in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        config = read_json(folder / name) if (folder / name).is_file() else {}
        if config.pop("auto_map", None):
            import transformers

            files.write_json(folder / name, config)
            try:
                getattr(transformers, loader).from_pretrained(folder, trust_remote_code=False)
            except (ValueError, OSError):
                raise errors.PipelineError(
                    f"{name}: it names code of its own (auto_map), which is never run, and transformers has none for "
                    f"{config.get('model_type') or config.get('tokenizer_class')!r}; choose another model"
                ) from None


def read_json(path: Path) -> dict:
    """The object that a JSON file holds.

    Raises:
        PipelineError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise errors.PipelineError(f"{path.name}: expected JSON, found: {error}; fetch or copy it again") from None
    if not isinstance(value, dict):
        raise errors.PipelineError(f"{path.name}: expected a JSON object, found {type(value).__name__}")
    return value


def provenance(model: Model, found: fetched.Fetched, folder: Path) -> dict:
    """What source.json holds."""
    return {
        "source": model.source,
        "revision": model.revision,
        "file": model.file,
        "license": found.license,
        "sha256": {path.name: digest(path) for path in sorted(folder.iterdir())},
    }


if __name__ == "__main__":
    errors.run(main)
