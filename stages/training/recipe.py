"""What `auto` means in the section `train`: choices by the number of rows and tokens, the method and the main score."""

import math
from typing import Any

import numpy as np

from stages.training.params import Train

STEPS = 375
"""Optimizer steps of a run, two passes over 3,000 rows: few rows are seen many times, many rows at least once."""

STEPS_OF_CLASS = 10
"""Optimizer steps of a run for each class or label, where that makes more than `STEPS`: of many classes, each has few
rows in a pass."""

FEW_STEPS = 100
"""Optimizer steps of a run below which a warning is printed: the adapter hardly moves from its start."""

MAX_EPOCHS = 8
"""Passes over the rows, at most, unless `FEW_STEPS` take more: in many passes a model learns few rows by heart, and
their few validation rows hardly show it."""

TOKENS = 1_500_000
"""Tokens of a run, at most, to the nearest whole pass, unless one pass or `FEW_STEPS` take more: 100 steps on 16 rows
of 1,024 tokens, the longest that `encode.max_length: auto` reads, take about as many. 16 minutes at 1,604 tokens/s
(benchmarks/RESULTS.md)."""

LEARNING_RATES = {"full": 5e-5, "ia3": 8e-3, "adalora": 3e-3, "prompt": 0.3} | dict.fromkeys(
    ("vera", "ln_tuning", "head", "prefix", "p_tuning"), 1e-2
)
"""Peak learning rates by method, usual ones, not searched for; all others take `LORA_RATE`."""

LORA_RATE = 1e-3

MAX_EVALUATIONS = 8
"""Evaluations of the validation rows in a run, at most."""

ROWS_OF_EVALUATION = 5
"""Validation rows for each evaluation, at least: where few rows compare many weights, the best is chosen by chance."""

EVALUATION_SHARE = 0.1
"""Share of a run's time that its evaluations may take; the one at the end is always done."""


def resolve(options: Train, *, rows: int, tokens: int, classes: int, method: str, weighs: bool) -> Train:
    """The section with a value in place of every `auto`, and `seeds` as a list.

    Args:
        rows: of one pass, see `rows_of_pass`; tokens: in all of them; classes: or labels, 1 for numbers.
        method: `peft.method`; weighs: whether the main score weighs rare classes, see `Problem.weighs_rare_classes`.
    """
    chosen = {
        "epochs": epochs(steps_per_epoch(options, rows), tokens, classes),
        "lr": LEARNING_RATES.get(method, LORA_RATE),
        "balance": "weights" if weighs else None,
    }
    chosen = {key: value for key, value in chosen.items() if getattr(options, key) == "auto"}
    seeds = options.seeds if isinstance(options.seeds, list) else [options.seeds]
    return options.model_copy(update=chosen | {"seeds": seeds})


def rates(options: Train, lr: float) -> tuple[float, ...]:
    """Peak learning rates to try: `lr`; with `train.lr: auto` also a lower one, in case that one is too high.

    Args:
        options: the section `train` of params.yaml; lr: its learning rate, resolved.
    """
    return (lr, lr / 4) if options.lr == "auto" else (lr,)


def rows_of_pass(options: Train, labels: np.ndarray) -> np.ndarray:
    """The indices of the training rows that one pass reads, (indices,): all of them, and with `balance: sampling` those
    of rarer classes again, so that each class has as many as the most frequent one.

    Args:
        labels: of the training rows.
    """
    if options.balance != "sampling":
        return np.arange(len(labels))
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, classes))
    return np.concatenate([np.resize(indices, most) for indices in classes])


def steps_per_epoch(options: Train, rows: int) -> int:
    """Optimizer steps of one pass over so many rows."""
    return math.ceil(rows / (options.batch_size * options.gradient_accumulation))


def epochs(steps: int, tokens: int, classes: int) -> int:
    """Passes over the rows that make about `STEPS` steps, or `STEPS_OF_CLASS` for each class, or fewer where that is
    more than `MAX_EPOCHS` or `TOKENS`, but at least one, and as many as make `FEW_STEPS`.

    Args:
        steps, tokens: of one pass.
    """
    wanted = max(STEPS, STEPS_OF_CLASS * classes)
    return max(round(min(wanted / steps, MAX_EPOCHS, TOKENS / tokens)), math.ceil(FEW_STEPS / steps))


def too_few_steps(options: Train, rows: int) -> str | None:
    """A warning if a run with passes over so many rows has fewer than `FEW_STEPS` optimizer steps.

    Args:
        options: the section `train`, resolved.
    """
    per_epoch = steps_per_epoch(options, rows)
    if (steps := per_epoch * options.epochs) >= FEW_STEPS:
        return None
    enough = math.ceil(FEW_STEPS / per_epoch)
    return (
        f"train.epochs: {options.epochs} makes {steps} training steps, which are few; {enough} "
        f"would make {FEW_STEPS} or more, and so does a smaller train.batch_size"
    )


def evaluations(epochs: int, *, rows: int, validation_rows: int) -> int:
    """How often a run with passes over so many rows scores the validation rows, the end included.

    A row takes a third of the time that it takes in training, as there is no backward pass.
    """
    affordable = round(EVALUATION_SHARE * 3 * rows * epochs / validation_rows)
    return max(min(affordable, MAX_EVALUATIONS, validation_rows // ROWS_OF_EVALUATION), 1)


def described(metrics: dict[str, Any]) -> str:
    """What was chosen for a run, in a sentence.

    Args:
        metrics: what `trainer.fit` returns.
    """
    chosen, main = metrics["recipe"], metrics["main"]
    scores = ", ".join(f"{name} {found[main]:.4g}" for name, found in metrics["start"].items())
    return (
        f"head from {chosen['head_init']} (validation {main}: {scores}), epochs {chosen['epochs']}, "
        f"lr {chosen['lr']:g}, balance {chosen['balance'] or 'none'}; kept epoch {metrics['best_epoch']:g} "
        f"(validation {main} {metrics['validation'][main]:.4g})"
    )
