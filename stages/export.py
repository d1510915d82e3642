"""export: the tuned model as a folder to share, with its model card.

    python -m stages.export [--output FOLDER]            models/merged: the adapter merged into the base
    python -m stages.export --adapter [--output FOLDER]  models/published: the adapter alone
    python -m stages.export --onnx [--int8]              models/onnx: merged, in ONNX, for ONNX Runtime
    python -m stages.export --push ORG/NAME [--dry-run]  any of them: also to a repository on a Hugging Face hub

Reads models/base, models/adapter, models/abstention.json and metrics/{baseline,evaluate}.json; while another model is
being made, those of the last one that was evaluated, from DVC's cache. The thresholds of models/abstention.json, if
there are any, are written into the folder too. The merged folder loads by its path alone:
`transformers.pipeline("text-classification", "models/merged")`; call it with `truncation=True` where texts may be long.
In ONNX it needs neither this project nor torch (see its example.py). It is first compared with the adapter on the test
rows of data/prepared, which choose nothing, and refused where it does not answer alike, which `--tolerance` defines.
docs/onnx.md has more.

The adapter alone names its base model by repository and revision if `model.source` is a hub repository, and loads from
any place that reaches the hub; otherwise by the path models/base, which has to be in the working directory.

`--push` first prints all that the repository will show, which is private unless `--public` is given; with `--dry-run`
nothing leaves this machine. HF_TOKEN has to be a token that may write to it.
"""

import argparse
import math
import shutil
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoTokenizer

from stages.adapters import card
from stages.adapters.load import load
from stages.adapters.run import Run
from stages.backbone import base
from stages.common import errors, files, paths
from stages.evidence import abstention
from stages.evidence.abstention import Abstention
from stages.exporting import equivalence, push
from stages.reporting.tested_card import tested_card
from stages.reporting.verdict import verdict
from stages.serving import evaluated, onnx_model
from stages.serving.answers import Classifier


def main() -> None:
    options = parse_arguments()
    form = paths.ONNX if options.onnx else paths.PUBLISHED if options.adapter else paths.MERGED
    folder = options.output or form
    place = files.destination("--output", folder)
    base.quiet_transformers()
    with evaluated.model() as model, files.replacing(place) as fresh:
        run, tuned, found = Run.load(model.adapter), evaluated.scores(model), ""
        baseline = files.read_json(evaluated.belonging(paths.BASELINE_METRICS, model))
        if options.adapter:
            publish(model.adapter, fresh, run.base_model)
        else:
            run.save(fresh)
        if sure := Abstention.load(model.abstention, model.adapter):
            abstention.save(fresh / paths.ABSTENTION.name, sure)
        if options.onnx:
            found = in_onnx(model, fresh, run, int8=options.int8, tolerance=options.tolerance)
        elif not options.adapter:
            merge(model.adapter, fresh)
        about = {"folder": form, "repository": options.push, "further": found}
        files.write_text(fresh / "README.md", tested_card(run, tuned, verdict(baseline, tuned, run.main), **about))
    print(f"{folder}: its README.md says how to load it")
    if options.adapter and run.method != "full" and not card.hub_name(run.base_model["source"]):
        print(f"{folder}: its base model is not on a hub, so whoever loads it needs {paths.BASE_MODEL} beside it")
    if options.push:
        share(folder, options.push, run, [*tuned.get("classes", {})], public=options.public, dry_run=options.dry_run)


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m stages.export", description="Write the tuned model to share it.")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--adapter", action="store_true", help="the adapter alone instead of the merged model")
    forms.add_argument("--onnx", action="store_true", help="the merged model in ONNX, checked on the test rows")
    parser.add_argument("--int8", action="store_true", help="with --onnx: its weights in int8, for speed")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="with --onnx: the largest difference of a probability (default: {float32}), or with --int8 how much worse "
        "the main score may be ({int8})".format(**equivalence.TOLERANCE),
    )
    defaults = ", ".join(map(str, (paths.MERGED, paths.PUBLISHED))) + f" or {paths.ONNX}"
    parser.add_argument("--output", type=Path, help=f"the folder (default: {defaults})")
    parser.add_argument("--push", metavar="ORG/NAME", help="also upload it to this repository on the hub, private")
    parser.add_argument("--public", action="store_true", help="with --push: everyone may read the repository")
    parser.add_argument("--dry-run", action="store_true", help="with --push: print what would be uploaded, and stop")
    options = parser.parse_args()
    for name, needed in {"int8": "onnx", "tolerance": "onnx", "public": "push", "dry_run": "push"}.items():
        if getattr(options, name) not in (None, False) and not getattr(options, needed):
            parser.error(f"--{name.replace('_', '-')}: expected --{needed} with it")
    if options.tolerance is not None and not 0 <= options.tolerance < math.inf:
        parser.error(f"--tolerance: expected a number from 0 on, found {options.tolerance}")
    if options.push is not None:
        push.check(options.push)
    if options.onnx:
        onnx_model.require("onnxruntime", "onnx", "onnxscript")
    return options


def in_onnx(model: evaluated.Model, folder: Path, run: Run, *, int8: bool, tolerance: float | None) -> str:
    """Write the model in ONNX, and what became of its check; returns the latter as a part of the model card.

    Raises:
        PipelineError: the model cannot be exported, or answers otherwise than the adapter.
    """
    from stages.exporting import onnx_export  # here: it needs optional packages

    precision = "int8" if int8 else "float32"
    rows = equivalence.rows("test", model)
    onnx_export.write(model, folder, run, calibrate=equivalence.calibration() if int8 else None)
    check = equivalence.Check.of(
        run,
        rows,
        adapter=Classifier.tuned(model),
        exported=Classifier.tuned(evaluated.Model(adapter=folder, abstention=folder / paths.ABSTENTION.name)),
        about={
            "precision": precision,
            "tolerance": equivalence.TOLERANCE[precision] if tolerance is None else tolerance,
        },
    )
    check.refuse(run.main)
    check.save(folder)
    print(check.told(run.main))
    return check.section(run.main)


def publish(adapter: Path, folder: Path, base: dict) -> None:
    """Write the adapter; a base model that came from a hub is referred to by its name there."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    evaluated.name_base(folder, paths.BASE_MODEL)
    name = card.hub_name(base["source"])
    if name and (folder / "adapter_config.json").exists():
        config = files.load(folder, PeftConfig.from_pretrained)
        config.base_model_name_or_path, config.revision = name, base["revision"]
        config.save_pretrained(folder)


def merge(adapter: Path, folder: Path) -> None:
    """Write the base model with the adapter merged into it.

    Raises:
        PipelineError: the adapter consists of virtual tokens, which cannot be merged.
    """
    model = load(adapter)
    if isinstance(model, PeftModel):
        raise errors.PipelineError(
            f"{paths.ADAPTER}: expected an adapter that can be merged into the base model, found virtual tokens "
            f"({model.peft_type.value}); write it with --adapter"
        )
    model.save_pretrained(folder)
    base.pretrained(AutoTokenizer, adapter).save_pretrained(folder)


def share(folder: Path, repository: str, run: Run, names: list[str], *, public: bool, dry_run: bool) -> None:
    """Print what goes to the repository, and who may read it, and upload it."""
    print(f"hub:{repository}, {'public: everyone may read it' if public else 'private'}, will hold:")
    print(push.contents(folder, run, names))
    print("nothing was uploaded (--dry-run)" if dry_run else push.push(folder, repository, private=not public))


if __name__ == "__main__":
    errors.run(main)
