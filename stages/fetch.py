"""fetch: the pretrained model, pinned by its revision, as a plain transformers folder.

    python -m stages.fetch

Reads the source named by `model` in params.yaml (a `path:` source: models/raw). Writes models/base: config, weights in
safetensors, tokenizer, and `source.json`, written last: where the files came from, their sha256 and the licence that
the source states. A GGUF file is converted once, to float32.
"""

import json
import shutil
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from stages.common import errors, files, paths, progress
from stages.common.texts import shortened
from stages.params import Params
from stages.sources import fetched
from stages.sources.archive import digest, listing
from stages.sources.hub import MODEL_FILES
from stages.sources.params import Model

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
"""The file by which transformers and PEFT know that a folder holds an adapter."""

TOKENIZER = "tokenizer.json"
"""The file that holds a whole tokenizer; older ones have files of its parts."""


def main() -> None:
    model = Params.load().model
    progress.say(f"fetch: {model.source}")
    with files.replacing(paths.BASE_MODEL) as folder, files.scratch() as scratch:
        found = fetched.fetch(
            source=model.source, revision=model.pin, file=model.wanted, into=scratch, repo_type="model"
        )
        if found.path.suffix == ".gguf":
            convert_gguf(found.path, folder)
        elif (found.path / "config.json").is_file():
            copy_model(found.path, folder)
            refuse_remote_code(folder)
        else:
            raise errors.PipelineError(
                f"{model.source}: expected a .gguf file or a folder with config.json, found neither; "
                f"name one within it in model.file, which is {model.wanted or 'null'}"
            )
        check_weights(folder)
        check_tokens(folder, model.source)
        files.write_json(folder / "source.json", provenance(model, found, folder))
    size = sum(path.stat().st_size for path in paths.BASE_MODEL.iterdir()) / 1e6
    progress.say(f"fetch: {paths.BASE_MODEL}: {model.source}, {size:,.0f} MB, licence {found.license}")


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer to `folder` as safetensors (float32) and JSON.

    transformers marks the loaded model as quantized and refuses to save it, so its weights move to a new model.

    Raises:
        PipelineError: transformers cannot read the file.
    """
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    modeling_gguf_pytorch_utils.tqdm = partial(modeling_gguf_pytorch_utils.tqdm, leave=False, disable=None)  # no file's

    try:
        with files.scratch() as alone:  # beside it, transformers would read an adapter and a tokenizer's settings, too
            (alone / file.name).symlink_to(file.resolve())
            where = {"pretrained_model_name_or_path": alone, "gguf_file": file.name}
            config = AutoConfig.from_pretrained(**where)
            AutoTokenizer.from_pretrained(**where, config=config).save_pretrained(folder)
            loaded = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.float32)
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
    files.check_space(paths.BASE_MODEL, sum(part.nbytes for part in model.parameters()))
    model.save_pretrained(folder)


def copy_model(model: Path, folder: Path) -> None:
    """Copy the files of a saved transformers model from its folder, without the configuration of an adapter: with it,
    transformers would load the adapter, too.

    Raises:
        PipelineError: weights in safetensors are missing, incomplete or unreadable.
    """
    found = sorted(path.name for path in model.iterdir() if path.is_file())
    kept = [name for name in found if any(fnmatch(name, one) for one in MODEL_FILES) and name != ADAPTER_CONFIG]
    weights = {name for name in kept if name.endswith(".safetensors")}
    index = model / "model.safetensors.index.json"
    needed = named_in(index) if index.is_file() else {"model.safetensors"}
    if missing := sorted(needed - weights):
        raise errors.PipelineError(
            f"{model.name}: expected {listing(missing)}, found {listing(found)}; pickled weights are not loaded"
        )
    for name in sorted(weights):
        try:
            safe_open(model / name, "np")
        except SafetensorError as error:
            raise errors.PipelineError(
                f"{name}: expected weights in safetensors, found a truncated file or another format ({error}); "
                "fetch or copy it again"
            ) from None
    files.check_space(paths.BASE_MODEL, sum((model / name).stat().st_size for name in kept))
    for name in kept:
        shutil.copyfile(model / name, folder / name)


def named_in(index: Path) -> set[str]:
    """The names of the files over which an index says that the weights are spread.

    Raises:
        PipelineError: it names none.
    """
    places = read_json(index).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise errors.PipelineError(
            f"{index.name}: expected weight_map, an object with the file of each weight, found "
            f"{shortened(json.dumps(places), 100)}; fetch or copy it again"
        )
    return set(names)


def refuse_remote_code(folder: Path) -> None:
    """Remove references to a repository's own code (`auto_map`), where transformers itself supports the model.

    Nothing that reads the folder later can then be made to run that code.

    Raises:
        PipelineError: transformers itself has no such architecture or tokenizer.
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
                    f"{name}: it refers to custom code (auto_map), which is never run, and transformers does not "
                    f"support {config.get('model_type') or config.get('tokenizer_class')!r}; choose another model"
                ) from None


def check_weights(folder: Path) -> None:
    """Check that the weights, of any precision, are finite; reads one tensor at a time.

    Raises:
        PipelineError: one is NaN or infinite.
    """
    import torch

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point() or not tensor.numel():
                    continue
                ends = (tensor.float() if tensor.element_size() == 1 else tensor).aminmax()  # NaN if there is any
                if not torch.stack(ends).isfinite().all():
                    raise errors.PipelineError(
                        f"{path.name}: expected finite weights, found NaN or infinity in {name}; fetch or copy it "
                        "again, or choose another model.source"
                    )


def check_tokens(folder: Path, source: str) -> None:
    """Check that the model has a tokenizer, and an embedding for every token that can occur.

    A special token occurs only where the tokenizer itself puts it around a text: a pad token without an embedding, for
    example, does no harm.

    Raises:
        PipelineError: it has not.
    """
    from transformers import AutoConfig

    try:
        embeddings = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().vocab_size
    except Exception:  # of many kinds; `encode`, which needs it, says what is wrong
        return
    tokenizer = load_tokenizer(folder, source)
    around = {*tokenizer("")["input_ids"], *tokenizer("", "")["input_ids"]}
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special} - around
    vocabulary = sorted((token, name) for name, token in tokenizer.get_vocab().items())
    if beyond := [name for token, name in vocabulary if token >= embeddings and token not in special]:
        raise errors.PipelineError(
            f"{source}: expected an embedding for each of the tokenizer's {len(vocabulary)} tokens, found {embeddings} "
            f"embeddings: {shortened(', '.join(beyond), 100)} {'have' if len(beyond) > 1 else 'has'} none; call the "
            "model's resize_token_embeddings(len(tokenizer)) and save it again, or save the tokenizer without them"
        )


def load_tokenizer(folder: Path, source: str) -> "PreTrainedTokenizerBase":
    """The model's tokenizer, of its own files: where there are none, transformers makes one that knows no words.

    Raises:
        PipelineError: there is none, or none that transformers can read as a fast one.
    """
    from transformers import AutoTokenizer

    there = [path.name for path in folder.iterdir()]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of many kinds
        found = f"{listing(there)}, of which: {shortened(' '.join(str(error).split()), 200)}"
    else:
        parts = {*type(tokenizer).vocab_files_names.values()} - {TOKENIZER}
        whole = TOKENIZER in there or parts <= {*there}
        if whole and tokenizer.is_fast:
            return tokenizer
        found = f"{type(tokenizer).__name__}, which is not fast" if whole else listing(there)
    raise errors.PipelineError(
        f"{source}: expected a fast tokenizer ({TOKENIZER}) beside the weights, found {found}; save it into the "
        "model's folder with the tokenizer's save_pretrained, or choose another model.source"
    )


def read_json(path: Path) -> dict:
    """The object that a JSON file holds.

    Raises:
        PipelineError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.PipelineError(f"{path.name}: expected JSON, found: {error}; fetch or copy it again") from None
    if not isinstance(value, dict):
        raise errors.PipelineError(f"{path.name}: expected a JSON object, found {type(value).__name__}")
    return value


def provenance(model: Model, found: fetched.Fetched, folder: Path) -> dict:
    """The contents of source.json."""
    return {
        "source": model.source,
        "revision": model.pin,
        "file": model.wanted,
        "license": found.license,
        "sha256": {path.name: digest(path) for path in sorted(folder.iterdir())},
    }


if __name__ == "__main__":
    errors.run_script(main, __doc__)
