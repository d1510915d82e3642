"""fetch: the pretrained model, pinned by its revision, as a plain transformers folder.

    python -m stages.fetch

Reads the source named by `model` in params.yaml. Writes models/base: config, weights in safetensors, tokenizer, and
`source.json`, written last: where each file came from, its sha256 and the licence as the source states it.
A GGUF file is converted once, to float32.
"""

import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from stages.common import errors, output, paths, sources
from stages.common.params import Model, Params

KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""Endings that a model folder needs; pickled weights (.bin, .pt) are not among them."""


def main() -> None:
    model = Params.load().model
    with output.replacing(paths.BASE_MODEL) as folder, tempfile.TemporaryDirectory() as scratch:
        fetched = sources.fetch(source=model.source, revision=model.revision, file=model.file, into=Path(scratch))
        if fetched.path.suffix == ".gguf":
            convert_gguf(fetched.path, folder)
        elif (fetched.path / "config.json").is_file():
            copy_model(fetched.path, folder)
        else:
            raise errors.PipelineError(
                f"model.file: expected a .gguf file or a folder with config.json, found {model.file}"
            )
        output.write_json(folder / "source.json", provenance(model, fetched, folder))
    print(f"{paths.BASE_MODEL}: {model.source}, licence {fetched.license}")


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer to `folder` as safetensors (float32) and JSON.

    The loaded object itself refuses to be saved, being marked as quantized, so its weights move to a fresh one.
    """
    import gguf
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    # transformers opens the file, which takes seconds, once for each of config, tokenizer and weights
    with mock.patch.object(gguf, "GGUFReader", functools.cache(gguf.GGUFReader)):
        where["config"] = AutoConfig.from_pretrained(**where)
        AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    del loaded.config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(loaded.config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)


def copy_model(model: Path, folder: Path) -> None:
    """Copy the files of a saved transformers model from its folder.

    Raises:
        PipelineError: it has no weights in safetensors.
    """
    if not list(model.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in model.iterdir()))
        raise errors.PipelineError(
            f"{model.name}: expected *.safetensors weights, found {found}; pickles are not loaded"
        )
    for path in model.iterdir():
        if path.suffix in KEPT:
            shutil.copy(path, folder)


def provenance(model: Model, fetched: sources.Fetched, folder: Path) -> dict:
    """What source.json holds."""
    return {
        "source": model.source,
        "revision": model.revision,
        "file": model.file,
        "license": fetched.license,
        "sha256": {path.name: sources.digest(path) for path in sorted(folder.iterdir())},
    }


if __name__ == "__main__":
    errors.run(main)
