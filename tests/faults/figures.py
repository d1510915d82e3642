"""What the tests of this folder found, as tables for docs/reliability.md."""

from collections import Counter
from collections.abc import Iterable

import pytest


def tables(reports: Iterable[pytest.TestReport]) -> str:
    """The figures of the tests' reports, as Markdown."""
    found: dict[str, list[tuple[dict, bool]]] = {"kill": [], "disk": [], "input": []}
    for report in reports:
        for kind, values in report.user_properties:
            if kind in found:
                found[kind].append((values, report.passed))
    parts = [about_kills(found["kill"])] if found["kill"] else []
    parts += [about_cases("full disks and refused permissions", found["disk"])] if found["disk"] else []
    parts += [about_cases("bad inputs", found["input"])] if found["input"] else []
    return "\n\n".join(("", *parts, ""))


def about_kills(found: list[tuple[dict, bool]]) -> str:
    """How many kills there were, of what and by what, and after how many of them all was well."""
    header = (
        "| killed | kills | the next run ended well, with the same bytes and nothing left over |\n| --- | --- | --- |"
    )
    lines = [
        line_of(name, [passed for values, passed in found if values[key] == name])
        for key in ("work", "signal")
        for name in sorted({values[key] for values, _ in found})
    ]
    total = line_of("**all**", [passed for _, passed in found])
    counts = Counter(key for values, _ in found for key, value in values.items() if value is True)
    facts = {
        "too late": "the run had ended before the signal came",
        "outlived DVC": "a process outlived DVC, and the next run began beside it",
        "lock mended": "`.dvc/tmp/rwlock` was cut off, which `make` mends",
        "went on": "the training went on from a checkpoint, or `predict` with the next chunk",
    }
    told = [f"- {text}: {counts[key]} of {len(found)}" for key, text in facts.items()]
    return "\n".join((header, *lines, total, "", *told))


def about_cases(name: str, found: list[tuple[dict, bool]]) -> str:
    """How many cases there were of each kind, and how many ended in the one line that they must give."""
    header = f"| {name} | cases | one line, no traceback, nothing changed |\n| --- | --- | --- |"
    lines = [
        line_of(where, [passed for values, passed in found if values["where"] == where])
        for where in sorted({values["where"] for values, _ in found})
    ]
    return "\n".join((header, *lines, line_of("**all**", [passed for _, passed in found])))


def line_of(name: str, passed: list[bool]) -> str:
    """A row of a table."""
    return f"| {name} | {len(passed)} | {sum(passed)} |"
