"""What of data/encoded `dvc push` uploads again after a row has changed.

    python -m benchmarks.uploads                   states in files of the default size: one for each split
    python -m benchmarks.uploads --kilobytes 32    in smaller ones, as many as a million rows have

Made-up rows and a stub model whose states are 72 times smaller than the default model's; a remote in a scratch folder.
The rows are one file, from which `prepare` cuts the splits, or ready splits in files of their own. Prints a table.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth
from benchmarks.tasks import ROWS
from stages import encode, prepare
from stages.backbone import states
from stages.common import paths
from stages.reporting.markdown import table

SOURCES = {"ready splits": {"train": 2_000, "validation": 200, "test": 200}, "one file": {"train": 2_000}}
"""The rows of each file."""

ADDED, MIDDLE = 20, 1_000

CHANGES: dict[str, Callable[[list[str]], list[str]]] = {
    "none, the first push": lambda rows: rows[:-ADDED],
    "a text corrected": lambda rows: [*rows[:MIDDLE], f"{rows[MIDDLE]} indeed", *rows[MIDDLE + 1 : -ADDED]],
    f"{ADDED} rows added at the end": lambda rows: rows,
    "a row removed": lambda rows: rows[:MIDDLE] + rows[MIDDLE + 1 : -ADDED],
}
"""What becomes of the lines of the file with the training rows; each change is one of the first rows."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uploads", description="Uploads after small changes.")
    parser.add_argument("--kilobytes", type=int, default=states.MOST_BYTES // 1024, help="of states in a file, at most")
    states.MOST_BYTES = 1024 * parser.parse_args().kilobytes
    model, lines = Path.cwd() / paths.BASE_MODEL, []
    for source, counts in SOURCES.items():
        with tempfile.TemporaryDirectory() as scratch:
            stub = growth.make_stub(model, Path(scratch, "stub"))
            with contextlib.chdir(growth.workspace(Path(scratch, "work"), stub, counts, growth.WORDS)):
                lines += [(source, *line) for line in uploads()]
    print(table(("rows", "change", "files uploaded", "MB uploaded"), lines))


def uploads() -> list[tuple[str, str, str]]:
    """For each change what a push from the current folder uploads: the change, files and megabytes, of how many."""
    run("dvc", "init", "--no-scm", "--quiet")
    run("dvc", "remote", "add", "--default", "remote", "remote", "--quiet")
    rows, lines = ROWS / "train.csv", []
    header, *original = rows.read_text().splitlines()
    for change, changed in CHANGES.items():
        rows.write_text("".join(f"{row}\n" for row in (header, *changed(original))))
        before = stored()
        prepare.main()
        encode.main()
        run("dvc", "add", str(paths.ENCODED), "--quiet")
        run("dvc", "push", "--quiet")
        new = stored().keys() - before.keys()
        every = [path.stat().st_size for path in paths.ENCODED.rglob("*") if path.is_file()]
        sizes = [stored()[path] for path in new]
        lines.append((change, f"{len(sizes)} of {len(every)}", f"{sum(sizes) / 1e6:.1f} of {sum(every) / 1e6:.1f}"))
    return lines


def stored() -> dict[Path, int]:
    """The files in the remote, with their sizes."""
    return {path: path.stat().st_size for path in Path("remote").rglob("*") if path.is_file()}


def run(*command: str) -> None:
    """Run a command of the environment in which this runs."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
