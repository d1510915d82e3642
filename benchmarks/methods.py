"""Methods of PEFT on the pipeline's data: accuracy with its interval, gain, and how many parameters were trained.

    python -m benchmarks.methods              every method of SETTINGS
    python -m benchmarks.methods ia3 full     some of them

Each is a DVC experiment named method-NAME, run from the last commit in a folder of its own: the workspace stays as it
is, and a second run of the same settings takes its results from DVC's cache. Prints what
`python -m stages.experiments method- --by name` prints; `dvc exp apply method-NAME` makes one of them the workspace.
"""

import subprocess
import sys

from stages import experiments

SETTINGS = {
    "lora": {},
    "rslora": {"lora.use_rslora": "true"},
    "dora": {"lora.use_dora": "true"},
    "pissa": {"lora.init": "pissa"},
    "olora": {"lora.init": "olora"},
    "lora_plus": {"train.lora_plus_ratio": "16.0", "train.lr": "2e-4"},
    "adalora": {"train.lr": "3e-3"},
    "vera": {"lora.r": "256", "train.lr": "1e-2"},
    "ia3": {"train.lr": "8e-3"},
    "loha": {},
    "lokr": {},
    "oft": {},
    "boft": {},
    "prompt": {"train.lr": "0.3"},
    "prefix": {"train.lr": "1e-2"},
    "p_tuning": {"train.lr": "1e-2"},
    "ln_tuning": {"train.lr": "1e-2"},
    "head": {"train.lr": "1e-2"},
    "full": {"train.lr": "5e-5"},
}
"""What each needs apart from params.yaml: usual learning rates, not searched for."""

VARIANTS = ("rslora", "dora", "pissa", "olora", "lora_plus")
"""Those that are `peft.method: lora` with other settings."""

NAMED = "method-"


def main() -> None:
    chosen = sys.argv[1:] or list(SETTINGS)
    if unknown := set(chosen) - set(SETTINGS):
        sys.exit(f"expected methods among {', '.join(SETTINGS)}, found {', '.join(sorted(unknown))}")
    earlier = subprocess.check_output(["dvc", "exp", "list", "--name-only"], text=True).split()
    if replaced := [NAMED + name for name in chosen if NAMED + name in earlier]:
        subprocess.run(["dvc", "exp", "remove", *replaced], check=True)
    failed = [name for name in chosen if not run(name)]
    print(experiments.comparison(experiments.grouped(NAMED, "name"), "name"))
    if failed:
        sys.exit(f"failed, for the reasons above: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run one method as an experiment; whether it succeeded."""
    settings = {"peft.method": "lora" if name in VARIANTS else name} | SETTINGS[name]
    return experiments.run(NAMED + name, settings)


if __name__ == "__main__":
    main()
