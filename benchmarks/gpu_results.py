"""The section of RESULTS.md on a GPU, from what `benchmarks/gpu.sh` measured."""

from stages.reporting.markdown import paragraphs, table

HEAD = """\
Measured by `benchmarks/gpu.sh` on one GPU. The models have the shapes of SmolLM2 and random weights; the texts are made
up, of 10 to 120 words that are one token each. Seconds end when the GPU is done. A share is that of the card's own rate
in a product of 8192 by 8192 matrices of the same precision; the counted work is that of the matrix products."""

MISSING = "Not measured: `./benchmarks/gpu.sh`, then `python -m benchmarks.gpu report`, on a machine with a GPU."


def section(measured: dict | None) -> str:
    """The section; `measured` is gpu.json, None where there is none."""
    if measured is None:
        return paragraphs("## On a GPU", MISSING)
    parts = measured["parts"]
    rates = [row for name, part in parts.items() if name.startswith("rates, ") for row in rate_rows(name, part)]
    sides = [compared_row(name, part) for name, part in parts.items() if "rerun_times_faster" in part]
    return paragraphs(
        "## On a GPU",
        HEAD,
        ceilings(parts.get("machine", {})),
        table(("", "rows/s", "tokens/s", "TFLOP/s", "share", "peak GiB"), rates),
        "encode, train and steps in bfloat16, predict in float32. *Model alone*: without writing the states. *Steps "
        "alone*: forward and backward passes of the fused model, on a batch that is already on the GPU; *train*: an "
        "epoch of the stage after its first.",
        "Beside the plain script, seconds, at its batch size of 16. Loading the model counts on both sides, but not in "
        "an epoch, and the start of Python on neither; the plain script's rerun lacks its evaluation before tuning.",
        table(COMPARED, sides),
        *(notes(name, part) for name, part in parts.items()),
        f"Measured on {measured['hardware']}.",
    )


COMPARED = (
    "",
    "encode",
    "train",
    "its epoch",
    "evaluate",
    "plain script, first run",
    "rerun",
    "its epoch",
    "first run, times faster",
    "rerun, times faster",
    "epoch, times faster",
    "peak GiB",
)


def ceilings(machine: dict) -> str:
    """The card's rates."""
    if "copies_gb_s" not in machine:
        return ""
    products = " and ".join(f"{rate:,.0f} TFLOP/s in {kind}" for kind, rate in machine["matmul_tflops"].items())
    copies = ", ".join(f"{name.replace('_', ' ')} {rate:.1f}" for name, rate in machine["copies_gb_s"].items())
    return f"Matrix products: {products}. Copies, GB/s: {copies}."


def rate_rows(name: str, part: dict) -> list[tuple[str, ...]]:
    """The rates of one shape."""
    return [
        (
            f"{name.removeprefix('rates, ')}: {what}",
            f"{found['rows_per_s']:,.0f}",
            f"{found['tokens_per_s']:,.0f}",
            f"{found['tflops']:.1f}",
            f"{found['share']:.0%}",
            gib(found["peak_gib"]),
        )
        for what, found in part.items()
        if isinstance(found, dict) and "share" in found
    ]


def compared_row(name: str, part: dict) -> tuple[str, ...]:
    """One comparison with the plain script."""
    ours, plain = part["pipeline"], part["plain"]
    seconds = [ours[key] for key in ("encode_s", "train_s", "epoch_s", "evaluate_s")]
    seconds += [plain[key] for key in ("first_run_s", "rerun_s", "epoch_s")]
    return (
        f"{name.removeprefix('compared, ')}, {part['rows'][0]:,} + {part['rows'][2]:,} rows",
        *(f"{value:.1f}" for value in seconds),
        *(f"{part[f'{what}_times_faster']:.1f}" for what in ("first_run", "rerun", "epoch")),
        f"{gib(ours['peak_gib'])} and {gib(plain['peak_gib'])}",
    )


def notes(name: str, part: dict) -> str:
    """A part's line of text: tests, QLoRA, and whatever ended early."""
    lines = []
    if "summary" in part:
        lines.append(f"{name}: {part['summary']}.")
    if "not_measured" in part:
        lines.append(f"{name}: not measured, {part['not_measured']}.")
    if "qlora" in part:
        one, other = part["lora"], part["qlora"]
        lines.append(
            f"QLoRA on all layers: train {other['train_s']:.1f} s and {gib(other['peak_gib'])} GiB, with LoRA "
            f"{one['train_s']:.1f} s and {gib(one['peak_gib'])} GiB."
        )
    if "error" in part:
        lines.append(f"{name} ended early: {part['error']}.")
    return " ".join(lines)


def gib(memory: float | None) -> str:
    """Memory, if it was measured."""
    return "-" if memory is None else f"{memory:.1f}"
