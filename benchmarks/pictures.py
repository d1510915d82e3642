"""The pictures of RESULTS.md, except for the gauntlet's."""

from matplotlib.figure import Figure


def accuracy(parts: dict[str, dict]) -> Figure:
    """Seconds against test accuracy: first run and rerun of both sides, in every precision that was measured."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for part, precision, color in (("full", "float32", "C0"), ("bfloat16", "bfloat16", "C1")):
        if part not in parts:
            continue
        run = parts[part]["values"]
        shares, depths = run["accuracy"], run["depths"]
        points = {
            "plain script, first run": (run["first_run_s"]["plain"], shares["plain"], "s"),
            "plain script, rerun": (run["rerun_s"]["plain"], shares["plain"], "D"),
            "pipeline, first run": (run["first_run_s"]["pipeline"], shares["pipeline"], "o"),
            "pipeline, rerun": (run["rerun_s"]["pipeline"], shares["pipeline_rerun"], "^"),
        }
        for title, (seconds, share, marker) in points.items():
            axes.plot(seconds, 100 * share, marker, color=color, label=f"{title}, {precision}")
        numbers = ", ".join(str(found["top_layers"]) for found in depths)
        axes.plot(
            [found["rerun_s"] for found in depths],
            [100 * found["accuracy"] for found in depths],
            ".-",
            color=color,
            label=f"pipeline, rerun, adapters on {numbers} layers, {precision}",
        )
    axes.set(xlabel="seconds", ylabel="test accuracy, %", xlim=(0, None))
    axes.legend(fontsize="small")
    return figure


def growth(values: dict) -> Figure:
    """Seconds and memory against rows, both on logarithmic axes."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for title, measured in values.items():
        if next(iter(measured[0])) == "rows":
            rows = [row["rows"] for row in measured]
            time.plot(rows, [row["seconds"] for row in measured], "o-", label=title.removesuffix(", rows"))
            memory.plot(rows, [row["peak MiB"] for row in measured], "o-", label=title.removesuffix(", rows"))
    time.set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds")
    memory.set(xscale="log", yscale="log", xlabel="rows", ylabel="peak memory, MiB")
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
