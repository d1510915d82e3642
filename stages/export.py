"""export: the tuned model as one folder, adapter merged into the base.

    python -m stages.export [--output models/merged]

Reads models/base and models/adapter. The folder loads by its path alone:
`transformers.pipeline("text-classification", "models/merged")`; call it with `truncation=True` where texts may be long.
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from stages.common import classifier, errors, output, paths


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.export", description="Merge the adapter into the base model."
    )
    parser.add_argument("--output", type=Path, default=paths.MERGED, help="the folder to write (default: %(default)s)")
    folder = parser.parse_args().output
    if folder.exists() and (not (folder / "config.json").exists() or folder.samefile(paths.BASE_MODEL)):
        raise errors.PipelineError(f"--output: expected a new folder or an earlier export, found {folder}")
    model = classifier.load_adapter(paths.ADAPTER)
    with output.replacing(folder) as fresh:
        model.save_pretrained(fresh)
        AutoTokenizer.from_pretrained(paths.ADAPTER).save_pretrained(fresh)
    print(f"{folder}: load it with pipeline('text-classification', '{folder}')")


if __name__ == "__main__":
    errors.run(main)
