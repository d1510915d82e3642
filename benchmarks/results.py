"""The results of the benchmarks: saved as JSON, shown as Markdown and as pictures.

python -m benchmarks.results     write RESULTS.md and the pictures from what has been measured
"""

import json
import os
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks import gpu_results, pictures, standings
from stages.common import errors, files
from stages.params import Params
from stages.reporting.markdown import paragraphs, table

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "results"


def save(part: str, values: dict, conditions: dict | None = None) -> None:
    """Save what a part measured and the conditions: by default, those of this machine and of params.yaml."""
    files.write_json(FOLDER / f"{part}.json", (conditions or conditions_here()) | {"values": values})


def still_valid(part: str, **same: Any) -> dict:
    """The values of a part, if they were measured under the conditions of now and have the `same` ones; else none."""
    found = measured().get(part, {"values": {}})
    expected = found | conditions_here() | {"values": found["values"] | same}
    return found["values"] if found == expected else {}


def remove(part: str) -> None:
    """Forget what a part measured, if it did."""
    (FOLDER / f"{part}.json").unlink(missing_ok=True)


def conditions_here() -> dict:
    """The hardware, and the settings that time depends on most.

    What was measured with other settings besides, or by other code, has to be removed by hand.
    """
    has = torch.cpu.get_capabilities()
    units = "with AMX" if has.get("amx_tile") else "with BF16" if has.get("avx512_bf16") else ""
    hardware = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()} {units}".strip()
    if torch.cuda.is_available():
        hardware = f"{torch.cuda.get_device_name()}, {hardware}"
    params = Params.load()
    settings = {"model.layers": params.model.layers, "lora.top_layers": params.lora.top_layers}
    return {"hardware": hardware, "settings": settings}


def report() -> None:
    """Write RESULTS.md, and the pictures, from the parts that have been measured."""
    parts = measured()
    files.write_text(HERE / "RESULTS.md", document(parts))
    if "full" in parts:
        save_figure(pictures.accuracy(parts), "time_accuracy.png")
    if "growth" in parts:
        save_figure(pictures.growth(parts["growth"]["values"]), "growth.png")
    if "gauntlet" in parts:
        save_figure(standings.picture(parts["gauntlet"]["values"]), "gauntlet.png")


def save_figure(figure: Figure, name: str) -> None:
    """Write a picture, without the version of the program that drew it."""
    figure.savefig(HERE / name, dpi=120, metadata={"Software": None})


def measured() -> dict[str, dict]:
    """What each part measured last: its `values`, the `hardware` and the `settings`."""
    return {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


def document(parts: dict[str, dict]) -> str:
    """RESULTS.md."""
    sections = [
        paragraphs(SECTIONS[part](parts[part]["values"]), conditions(parts[part])) for part in SECTIONS if part in parts
    ]
    return paragraphs(HEAD, *sections, gpu_results.section(parts.get("gpu"))) + "\n"


def conditions(part: dict) -> str:
    """The hardware and the settings that a part was measured with."""
    settings = " and ".join(f"`{key}: {json.dumps(value)}`" for key, value in part["settings"].items())
    return f"Measured on {part['hardware']}, with {settings} where nothing else is said."


HEAD = """\
# Benchmarks

Printed by `make bench` (`python -m benchmarks.bench`, whose parts can be run one by one), no GPU, float32 where nothing
else is said. The *plain script* is `benchmarks/plain.py`: transformers' `Trainer` and PEFT's LoRA on the query and
value projections of all layers, dynamic padding, random batches. Both sides take the same base model, split, rows and
prompt, and train for one epoch, one after the other in the same run; in bfloat16, both by autocast (`precision` here,
`bf16` there). The pipeline's times include DVC and every process's start; the plain script's include its own start.
The pipeline also evaluates six rivals and the validation rows, which the plain script does not."""


def repeated(values: dict) -> str:
    """Several rounds on few rows."""
    rounds = values["rounds"]
    return paragraphs(
        f"## {values['rows']['train']:,} training rows, {values['rows']['test']:,} test rows, "
        f"medians of {len(rounds)} rounds",
        ratio_table({title: medians(rounds, key) for key, title in ROWS.items()}),
        memory_line(medians(rounds, "peak_mb")),
    )


def full(values: dict) -> str:
    """The default run compared with the plain script."""
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in values["stages_s"].items())
    return paragraphs(
        whole(values, "once"),
        f"The pipeline's first run by stage: {stages}; baseline is the evaluation before tuning, and five rivals more.",
        "![Seconds against test accuracy](time_accuracy.png)",
    )


def bfloat16(values: dict) -> str:
    """The same in 16 bits."""
    return whole(values, "once, both sides in bfloat16")


def whole(values: dict, how: str) -> str:
    """All rows: both sides' seconds, accuracies and memory, and the reruns at other depths."""
    accuracy, plain = values["accuracy"], values["rerun_s"]["plain"]
    chosen = " and".join(  # of earlier results, whose head did not start from what `auto` chooses
        f" with `{section}.{key}={value}`"
        for section, keys in values.get("chosen", {}).items()
        for key, value in keys.items()
    )
    depths = [
        (
            str(found["top_layers"]),
            f"{found['rerun_s']:.0f}",
            f"{plain / found['rerun_s']:.1f}",
            f"{found['accuracy']:.1%}",
        )
        for found in values["depths"]
    ]
    return paragraphs(
        f"## {values['rows']['train']:,} training rows, {values['rows']['test']:,} test rows, {how}",
        ratio_table({title: values[key] for key, title in ROWS.items()}),
        f"Test accuracy: pipeline {accuracy['pipeline']:.1%} (after the changed rank "
        f"{accuracy['pipeline_rerun']:.1%}), plain script {accuracy['plain']:.1%}. The plain script trains on "
        f"{values['plain_train_tokens_per_s']:.0f} tokens/s.",
        memory_line(values["peak_mb"]),
        f"The rerun with adapters on other numbers of layers, by `lora.top_layers`{chosen}:",
        table(("`lora.top_layers`", "rerun, s", "times faster than the plain script", "test accuracy"), depths),
    )


def methods(values: dict) -> str:
    """Every method's accuracy and cost."""
    rows = [
        (
            name,
            f"{found['accuracy']:.1%} ({100 * found['low']:.1f} to {100 * found['high']:.1f})",
            f"{100 * found['gain']:+.1f}",
            f"{found['trainable_parameters']:,}",
            f"{found['seconds']:.0f}",
            f"{found['peak_mb']:,.0f}",
        )
        for name, found in values["methods"].items()
    ]
    return paragraphs(
        "## Methods",
        f"{values['rows']['train']:,} training rows, {values['rows']['test']:,} test rows, one epoch; `peft.method`, "
        "and what `benchmarks/methods.py` sets beside it: usual learning rates, not searched for. Gain: over the "
        "strongest rival. Seconds: train, evaluate and report, DVC included. Memory: of the largest process.",
        table(("", "accuracy (95 % interval)", "gain, points", "trained parameters", "seconds", "peak MiB"), rows),
    )


def labels(values: dict) -> str:
    """What is found where labels are wrong, and what dropping it regains."""
    found = [
        (
            f"{float(share):.0%}, {measured['flipped']:.0f} rows",
            *(f"{measured[key]:.1%}" for key in ("precision_first", "precision_flipped")),
            f"{measured['suspects']:.0f}",
            *(f"{measured[key]:.1%}" for key in ("precision", "recall")),
        )
        for share, measured in values["shares"].items()
    ]
    settings = ("flipped", "without_suspects", "without_flipped")
    accuracies = [
        (
            f"linear probe, {float(share):.0%} flipped",
            f"{values['clean']:.1%}",
            *(f"{measured[f'accuracy_{name}']:.1%}" for name in settings),
        )
        for share, measured in values["shares"].items()
    ]
    if tuned := values.get("tuned"):
        cells = (f"{tuned[name]:.1%}" for name in ("clean", "flipped", "without_suspects"))
        accuracies.append((f"tuned model, {float(list(values['shares'])[-1]):.0%} flipped, once", *cells, ""))
    first = values["first"]
    return paragraphs(
        "## Suspect labels",
        f"A random share of the {values['rows']:,} training rows gets a wrong label; means of {values['draws']} draws "
        "(`python -m benchmarks.labels`; with `--tuned` also the tuned model). Share of flipped labels: among the "
        f"{first} most suspect rows, among as many as were flipped, and among all suspects. Recall: the share of "
        "flipped labels that are suspect. Errors already in the data count as false alarms.",
        table(("flipped", f"first {first}", "as many as flipped", "suspects", "all suspects", "recall"), found),
        "Test accuracy after training on the labels as they are, on the flipped ones, on those of them that are not "
        "suspect, and on those that were not flipped:",
        table(("", "as they are", "flipped", "without suspects", "without flipped"), accuracies),
    )


def share(values: dict) -> str:
    """The rates of encode and train as shares of the machine's matmul rate, in every precision."""
    names = {"encode": "encode", "fused": "train, fused adapters", "peft": "train, PEFT's adapters"}
    rows = [
        (
            f"{title}, {precision}",
            f"{found['gflops'][name]:.0f}",
            f"{found['share'][name]:.0%}",
            f"{found['tokens_per_s'][name]:,.0f}",
        )
        for precision, found in values.items()
        for name, title in names.items()
    ]
    ceilings = [
        f"{found['gflops']['torch']:,.0f} and {found['gflops']['frozen']:,.0f} GFLOP/s in {precision}"
        for precision, found in values.items()
    ]
    return paragraphs(
        "## Share of the machine's matmul rate",
        "A large matrix product in the same run, by `torch.mm` and as the frozen layers compute it "
        f"(`stages/backbone/frozen_linear.py`): {', '.join(ceilings)}. Shares are of the faster.",
        table(("", "GFLOP/s", "share", "tokens/s"), rows),
    )


def inference(values: dict) -> str:
    """`stages.predict` compared with transformers' pipeline."""
    rates = values["rows_per_s"]
    return paragraphs(
        f"## Inference, {values['texts']:,} texts",
        f"`stages.predict` {rates['predict']:.1f} rows/s, transformers' `pipeline` with its default settings "
        f"{rates['pipeline']:.1f} rows/s: {values['ratio']:.2f} times, {values['same_label']:.1%} same labels.",
    )


def startup(values: dict) -> str:
    """Fixed costs."""
    rows = [(name, f"{seconds:.1f}") for name, seconds in values.items()]
    return paragraphs("## Fixed costs", table(("", "seconds"), rows))


def growth(values: dict) -> str:
    """Cost against rows and length."""
    parts = ["## Growth", "![Seconds and memory against rows](growth.png)"]
    for title, measurements in values.items():
        rows = [[f"{value:,}" for value in measurement.values()] for measurement in measurements]
        parts += [f"### {title}", table(list(measurements[0]), rows, names=0)]
    return paragraphs(*parts)


def variants(values: dict) -> str:
    """What other settings would give, on rows that are not the test rows."""
    rows = [
        (
            name,
            " ".join(f"`{key}={value}`" for key, value in found["changes"].items()),
            f"{100 * found['validation']:.1f}",
            f"{100 * found['probe']:.1f}",
            f"{100 * found['accuracy']:.1f} ({100 * found['interval']['low']:.1f} to "
            f"{100 * found['interval']['high']:.1f})",
            f"{100 * (found['accuracy'] - found['probe']):+.1f}",
            f"{found['log_loss']:.3f}",
        )
        for name, found in values["variants"].items()
    ]
    columns = ("", "changes", "validation", "linear probe", "tuned (95 % interval)", "gain", "log loss")
    return paragraphs(
        "## Other settings on the default data",
        "Printed by `python -m benchmarks.variants`: the default model trained on the default run's "
        f"{values['rows']['train']:,} rows. The test rows are not read: accuracies, in percent, are those of "
        f"{values['rows']['test']:,} training rows that the default run leaves out.",
        table(columns, rows, names=2),
    )


def abstention(values: dict) -> str:
    """Whether the promised accuracy is kept on other rows than those that chose the threshold."""
    rows = []
    for seed, found in values["splits"].items():
        accuracy, holds = "", "yes"  # where nothing is answered, nothing can be wrong
        if "accuracy" in found:
            accuracy = f"{found['accuracy']:.1%} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
            holds = "yes" if found["high"] >= values["target"] else "no"
        rows.append(
            (seed, f"{found['rows']:,}", f"{found['threshold']:.3f}", f"{found['answered']:.1%}", accuracy, holds)
        )
    columns = ("seed of the split", "rows for the threshold", "threshold", "answered", "accuracy (95 % interval)")
    return paragraphs(
        "## Answers only when sure",
        "Printed by `python -m benchmarks.abstention`: all-MiniLM-L6-v2 on the default data, with "
        f"`evaluate.target_accuracy: {values['target']:g}` and `data.split.calibration: 0.15`; share and accuracy of "
        "the test rows that are answered. The promise holds where the interval reaches the target.",
        table((*columns, "holds"), rows),
    )


SECTIONS = {
    part.__name__: part
    for part in (
        *(repeated, full, bfloat16, methods, labels, share, inference, startup, growth),
        *(standings.gauntlet, standings.former_gauntlet, variants, abstention),
    )
}

ROWS = {
    "first_run_s": "first full run (encode to comparison; with its evaluation before tuning)",
    "rerun_s": "rerun after a changed `lora.r` (train and evaluate)",
}


def ratio_table(times: dict[str, dict[str, float]]) -> str:
    """Seconds of both sides and their ratio."""
    rows = [
        (title, f"{pair['pipeline']:.0f}", f"{pair['plain']:.0f}", f"{pair['plain'] / pair['pipeline']:.1f}")
        for title, pair in times.items()
    ]
    return table(("", "pipeline, s", "plain script, s", "ratio"), rows)


def medians(rounds: list[dict], key: str) -> dict[str, float]:
    """The median of each side."""
    return {side: median(one[key][side] for one in rounds) for side in ("pipeline", "plain")}


def memory_line(peak: dict[str, float]) -> str:
    """Peak memory of both sides."""
    return f"Peak memory of a process: pipeline {peak['pipeline']:,.0f} MiB, plain script {peak['plain']:,.0f} MiB."


if __name__ == "__main__":
    errors.run_script(report, __doc__)
