"""How the tuned model stands among its rivals in the gauntlet: the numbers, the tables and the picture.

All scores are compared in percent, higher is better: a share is taken as it is; a mean absolute error is the part of
the error of always answering the median that a model avoids.
"""

from collections.abc import Iterable
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from stages.common import rivals
from stages.common.rivals import STRONGEST_RIVAL, TUNED
from stages.problems.main_score import SIGNIFICANT
from stages.reporting.markdown import paragraphs, table
from stages.reporting.verdict import evidence

CLASS_SCORES = {"accuracy": "accuracy", "f1_macro": "macro-F1", "log_loss": "log loss"}
NUMBER_SCORES = {"mae": "MAE", "pearson": "Pearson"}
NAMES = CLASS_SCORES | NUMBER_SCORES

TOLERANCE = 0.5
"""Points by which the tuned model may be below the strongest rival and still count as equally good."""

START = {
    "probe": rivals.LINEAR_PROBE,
    "label_words": rivals.ZERO_SHOT,
    "random": rivals.UNTRAINED,
    "saved": rivals.UNTRAINED,
}
"""The rival that is, nearly or exactly, the model before its first step, by the head from which it started. (The probe
from which a training starts is fitted on fewer rows than the rival.) No rival is like a probe of the first token
after it was taught."""

MARKS = {
    rivals.BAG_OF_WORDS: ("s", "C1"),
    rivals.BAG_OF_CHARACTERS: ("s", "C1"),
    rivals.LINEAR_PROBE: ("^", "C2"),
    rivals.ZERO_SHOT: ("D", "C4"),
    rivals.ZERO_SHOT_CALIBRATED: ("d", "C5"),
    rivals.UNTRAINED: ("x", "0.6"),
    rivals.MAJORITY: ("|", "0.6"),
    rivals.MEDIAN: ("|", "0.6"),
}
"""Marker and color of each rival in the picture."""

LOWEST, HIGHEST = -15, 20
"""The points shown in the picture; what lies outside is drawn at its edge."""


def summarized(found: Iterable[dict], *, tasks: Iterable[str], models: Iterable[str]) -> dict[str, list[dict]]:
    """The results as they are kept: those of `tasks`, in their order, and the gains of all others, the shuffled ones.

    Args:
        found: the files that `benchmarks.gauntlet` writes.
    """
    order = [(task, model) for task in tasks for model in models]
    by_setting = {(result["task"], result["model"]): result for result in found}
    shuffled = [by_setting[key] for key in sorted(set(by_setting) - set(order))]
    return {
        "settings": [setting(by_setting[key]) for key in order if key in by_setting],
        "shuffled": [claim(result) for result in shuffled],
    }


def completed(found: dict, earlier: dict, *, tasks: Iterable[str], models: Iterable[str]) -> dict[str, list[dict]]:
    """`found`, and of `earlier` what it lacks; both, and what is returned, are as `summarized` returns them."""
    settings = {(one["task"], one["model"]): one for one in (*earlier["settings"], *found["settings"])}
    shuffled = {one["task"]: one for one in (*earlier["shuffled"], *found["shuffled"])}
    order = [(task, model) for task in tasks for model in models]
    return {
        "settings": [settings[key] for key in order if key in settings],
        "shuffled": [shuffled[task] for task in sorted(shuffled)],
    }


def unmeasured(former: dict, found: dict) -> dict[str, list[dict]]:
    """What of `former` is not in `found`; both, and what is returned, are as `summarized` returns them."""
    measured = [(one["task"], one.get("model")) for part in found.values() for one in part]
    return {
        part: [one for one in every if (one["task"], one.get("model")) not in measured]
        for part, every in former.items()
    }


def setting(result: dict) -> dict[str, Any]:
    """One task with one model. Scores and gains are lists: value, low and high end of the 95 % interval."""
    return {
        **{key: result[key] for key in ("task", "model")},
        "rows": {split: result["data"]["rows"][split] for split in ("train", "validation", "test")},
        "main": next(iter(result["seeds"].values()))["train"]["main"],
        "rivals": {name: scores(metrics) for name, metrics in result["baseline"].items()},
        "seeds": {seed: of_seed(**measured) for seed, measured in result["seeds"].items()},
    }


def scores(metrics: dict) -> dict[str, list[float]]:
    """The scores that are kept."""
    return {
        key: rounded(metrics[key], metrics["interval"][key]["low"], metrics["interval"][key]["high"])
        for key in NAMES
        if key in metrics
    }


def of_seed(train: dict, evaluate: dict, seconds: dict) -> dict[str, Any]:
    """The tuned model of one seed."""
    gain = (evaluate[key][STRONGEST_RIVAL] for key in ("gain", "gain_low", "gain_high"))
    return {
        "scores": scores(evaluate),
        "gain": rounded(*gain),
        "p_value": float(f"{evaluate['p_value'][STRONGEST_RIVAL]:.3g}"),
        "start": train["recipe"]["head_init"],
        "best_epoch": train["best_epoch"],
        "train_s": round(seconds["train"]),
    }


def claim(result: dict) -> dict[str, Any]:
    """What the report says of a shuffled task with its first seed."""
    measured, *_ = result["seeds"].values()
    gain, _, _, p_value = evidence(measured["evaluate"])
    return {"task": result["task"], "gain": round(gain, 5), "p_value": float(f"{p_value:.3g}")}


def rounded(*values: float) -> list[float]:
    """Values with five digits after the point."""
    return [round(value, 5) for value in values]


def gauntlet(values: dict) -> str:
    """The defaults on many tasks."""
    settings = values["settings"]
    return paragraphs(
        "## The gauntlet",
        "Printed by `python -m benchmarks.gauntlet report` after `run` and `shuffled`: the defaults of `params.yaml`; "
        "nothing differs but the model and what describes the data: source, format, columns, template, and for numbers "
        f"`data.problem` (`benchmarks/tasks.py`). {counted(settings)}",
        "![Points above the strongest rival](gauntlet.png)",
        "\n".join(f"- {line}" for line in conclusions(settings)),
        shuffled_line(values["shuffled"]),
        "Tuned: the mean of the seeds. Gain: the tuned model minus the rival that is best in that score. Scores are in "
        "percent; for numbers the main score is the part of the median's mean absolute error that a model avoids, and "
        "Pearson's correlation takes the place of macro-F1. Significant: seeds with a gain over the strongest rival "
        f"and p < {SIGNIFICANT}. Below the start: seeds whose score is below the interval of the model before the "
        "first step, of those that start as a rival does (the linear probe or the zero-shot classifier).",
        standings_table(settings),
        "<details><summary>Every score of every model, with 95 % intervals</summary>",
        scores_table(settings, CLASS_SCORES),
        scores_table(settings, NUMBER_SCORES),
        "</details>",
    )


def former_gauntlet(values: dict) -> str:
    """Results with the settings before the last change, of tasks that have not been measured since."""
    return paragraphs(
        "### With former settings",
        "Tasks that have not been measured since the settings changed.",
        "\n".join(f"- {line}" for line in conclusions(values["settings"])),
        shuffled_line(values["shuffled"]),
        standings_table(values["settings"]),
    )


def counted(settings: list[dict]) -> str:
    """What was run."""
    tasks, models = (list(dict.fromkeys(one[key] for one in settings)) for key in ("task", "model"))
    seeds = dict.fromkeys(seed for one in settings for seed in one["seeds"])
    return f"Tasks: {len(tasks)}; models: {', '.join(models)}; seeds: {', '.join(seeds)}."


def conclusions(settings: list[dict]) -> list[str]:
    """What all settings say together."""
    if not settings:
        return []
    mains, seconds = ([gain(one, key(one)) for one in settings] for key in (main_of, second_of))
    enough = [sum(round(points, 3) >= -TOLERANCE for points in gains) for gains in (mains, seconds)]
    won, lost = (sum(2 * significant(one, sign) > len(one["seeds"]) for one in settings) for sign in (1, -1))
    every, starts = len(settings), [below_start(one) for one in settings]
    return [
        f"at least as good as the strongest rival minus {TOLERANCE} points: {enough[0]} of {every} pairs of task and "
        f"model by the main score, {enough[1]} of {every} by macro-F1 (numbers: Pearson)",
        f"mean gain over the strongest rival: {mean(mains):+.1f} points of the main score, {mean(seconds):+.1f} of "
        "macro-F1 (Pearson)",
        f"significantly better than every rival, with most of its seeds: {won} of {every} pairs; significantly worse "
        f"than the strongest: {lost} of {every}",
        f"below its start by more than the start's interval: {sum(below for below, _ in starts)} of "
        f"{sum(compared for _, compared in starts)} trainings that start as one of the rivals does",
    ]


def shuffled_line(shuffled: list[dict]) -> str:
    """How often a gain is claimed where there is nothing to learn."""
    if not shuffled:
        return ""
    claimed = sum(one["gain"] > 0 and one["p_value"] < SIGNIFICANT for one in shuffled)
    return f"Shuffled labels: a gain is claimed in {claimed} of {len(shuffled)} sets of rows."


def standings_table(settings: list[dict]) -> str:
    """A line for each task and model."""
    lines = []
    for one in settings:
        main = main_of(one)
        (name, best), (below, compared) = strongest(one, main), below_start(one)
        lines.append(
            (
                one["task"],
                one["model"],
                f"{NAMES[main]}: {name}",
                f"{one['rows']['train']:,}",
                f"{best:.1f}",
                f"{tuned(one, main):.1f}",
                f"{gain(one, main):+.1f}",
                f"{gain(one, second_of(one)):+.1f}",
                f"{significant(one)} of {len(one['seeds'])}",
                f"{below} of {compared}" if compared else "",
            )
        )
    columns = ("task", "model", "main score: strongest rival", "training rows", "strongest rival", "tuned", "gain")
    return table((*columns, "macro-F1 gain", "significant", "below the start"), lines, names=3)


def scores_table(settings: list[dict], names: dict[str, str]) -> str:
    """A line for each model that answers; of the tuned model, the means of the seeds' scores and interval ends."""
    lines = []
    for one in settings:
        seeds = [seed["scores"] for seed in one["seeds"].values()]
        of_tuned = {key: [mean(ends) for ends in zip(*(seed[key] for seed in seeds), strict=True)] for key in seeds[0]}
        lines += [
            (one["task"], one["model"], name, *(cell(key, *found[key]) for key in names))
            for name, found in (one["rivals"] | {TUNED: of_tuned}).items()
            if set(names) <= set(found)
        ]
    return table(("task", "model", "", *names.values()), lines, names=3) if lines else ""


def cell(key: str, value: float, low: float, high: float) -> str:
    """A score with its interval."""
    if key in ("log_loss", "mae"):
        return f"{value:.3f} ({low:.3f} to {high:.3f})"
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main_of(setting: dict) -> str:
    """The key of the main score."""
    return setting["main"]


def second_of(setting: dict) -> str:
    """The key of the score that is looked at beside the main one."""
    return "pearson" if rivals.MEDIAN in setting["rivals"] else "f1_macro"


def percent(setting: dict, key: str, value: float) -> float:
    """A score in percent, higher is better."""
    return 100 * (1 - value / setting["rivals"][rivals.MEDIAN]["mae"][0] if key == "mae" else value)


def strongest(setting: dict, key: str) -> tuple[str, float]:
    """The rival that is best in a score, and its score in percent."""
    every = {name: percent(setting, key, found[key][0]) for name, found in setting["rivals"].items()}
    return max(every.items(), key=lambda item: item[1])


def tuned(setting: dict, key: str) -> float:
    """The mean score of the seeds in percent."""
    return mean(percent(setting, key, seed["scores"][key][0]) for seed in setting["seeds"].values())


def gain(setting: dict, key: str) -> float:
    """How far the tuned model, by the mean of its seeds, is above the strongest rival, in points."""
    return tuned(setting, key) - strongest(setting, key)[1]


def significant(setting: dict, sign: int = 1) -> int:
    """The number of seeds with a significant gain over the strongest rival in the main score; or loss, if `sign` is
    -1."""
    return sum(sign * seed["gain"][0] > 0 and seed["p_value"] < SIGNIFICANT for seed in setting["seeds"].values())


def below_start(setting: dict) -> tuple[int, int]:
    """The number of seeds whose main score is worse than the worse end of the interval of the model before training;
    and of how many, as not every start is a rival."""
    main, below, compared = main_of(setting), 0, 0
    for seed in setting["seeds"].values():
        if start := setting["rivals"].get(START.get(seed["start"])):
            worst = min(percent(setting, main, end) for end in start[main][1:])
            below += percent(setting, main, seed["scores"][main][0]) < worst
            compared += 1
    return below, compared


def gain_interval(setting: dict) -> tuple[float, float]:
    """The ends of the 95 % interval of the gain in the main score, in points; means over the seeds."""
    unit = setting["rivals"][rivals.MEDIAN]["mae"][0] if main_of(setting) == "mae" else 1
    return tuple(100 * mean(seed["gain"][end] for seed in setting["seeds"].values()) / unit for end in (1, 2))


def picture(values: dict) -> Figure:
    """A panel for each model, a row for each task: every rival, and the tuned model with the interval of its gain."""
    settings = values["settings"]
    tasks = list(dict.fromkeys(one["task"] for one in settings))
    models = list(dict.fromkeys(one["model"] for one in settings))
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(tasks)), layout="constrained")
    panels = figure.subplots(1, max(len(models), 1), sharey=True, squeeze=False)[0]
    drawn = {}
    for axes, model in zip(panels, models, strict=False):
        axes.axvline(0, color="0.4", linewidth=1)
        for one in (one for one in settings if one["model"] == model):
            draw(axes, one, row=tasks.index(one["task"]))
        axes.set(title=model, xlabel="points of the main score above the strongest rival")
        axes.set(xlim=(LOWEST - 1, HIGHEST + 5), xticks=range(LOWEST, HIGHEST + 1, 5))
        axes.grid(axis="y", color="0.9")
        drawn |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    panels[0].set(yticks=range(len(tasks)), yticklabels=tasks, ylim=(len(tasks) - 0.5, -0.5))
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    return figure


def draw(axes: Any, setting: dict, *, row: int) -> None:
    """One row of the picture; at its right end, the tuned model's main score."""
    main = main_of(setting)
    best = strongest(setting, main)[1]
    for name, found in setting["rivals"].items():
        mark, color = MARKS[name]
        place = max(percent(setting, main, found[main][0]) - best, LOWEST)
        axes.plot(place, row, mark, color=color, label=name, alpha=0.35 if place == LOWEST else 1)
    low, high = (min(max(end, LOWEST), HIGHEST) for end in gain_interval(setting))
    place = min(max(gain(setting, main), LOWEST), HIGHEST)
    axes.plot((low, high), (row, row), color="C0", linewidth=2)
    axes.plot(place, row, "o", color="C0", markersize=8, label=TUNED)
    axes.text(HIGHEST + 4.8, row, f"{tuned(setting, main):.1f} %", ha="right", va="center", fontsize="small")
