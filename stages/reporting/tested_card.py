"""The adapter's model card with the results on the test rows; `stages.adapters.card` writes it without them."""

from pathlib import Path

from stages.adapters.card import model_card
from stages.adapters.run import Run
from stages.common import paths
from stages.reporting.markdown import paragraphs, table
from stages.reporting.verdict import abstention_line
from stages.reporting.wording import METRICS, ON_CARD, further_metrics


def tested_card(
    run: Run,
    tuned: dict,
    verdict: str,
    *,
    folder: Path = paths.ADAPTER,
    repository: str | None = None,
    further: str = "",
) -> str:
    """The card with the test rows' scores and the report's verdict.

    Args:
        tuned: metrics/evaluate.json.
        folder, repository: what the card describes, see `model_card`.
        further: what else was found on the test rows, as Markdown.
    """
    main = run.main.key
    names = {key: METRICS[key].name for key in (main, *further_metrics(ON_CARD, tuned, main))}
    rows = [(name, f"{tuned[key]:.4f}", reach(tuned["interval"].get(key))) for key, name in names.items()]
    column = f"tuned, seed {run.seed}" if "seeds" in tuned else "tuned"  # the verdict is then about all seeds
    parts = verdict, table(("", column, "95 % interval"), rows), abstention_line(tuned)
    results = paragraphs("## On the test rows", *parts, further, "## Use")
    scores = {key: (name, tuned[key]) for key, name in names.items()}
    names = list(tuned.get("classes", {}))
    return model_card(run, names, results=results, scores=scores, folder=folder, repository=repository)


def reach(interval: dict[str, float] | None) -> str:
    """An interval in words; nothing where there is none."""
    return "{low:.4f} to {high:.4f}".format(**interval) if interval else ""
