"""Splits that share no text: missing splits are cut from train, near-duplicates dropped, sizes limited.

Every function counts the rows that it drops, by reason, in its argument `dropped`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from stages.common import progress, texts
from stages.common.errors import PipelineError
from stages.common.paths import ALL_SPLITS
from stages.problems.kinds import PROBLEMS
from stages.problems.problem import Problem
from stages.rows.near import near_duplicates_in_earlier_groups
from stages.rows.params import Data

PRIORITY = ("test", "validation", "calibration", "train")
"""The order in which splits are cut, and keep their rows of which others have near-duplicates."""

MANY_ALIKE = 0.1
"""Share of a split's rows above which a warning says how many are left out for near-duplicates in others."""


def split(tables: dict[str, pd.DataFrame], data: Data) -> dict[str, pd.DataFrame]:
    """The ready splits, and the missing ones cut from train; each in an order of which every prefix is stratified.

    Raises:
        PipelineError: train has too few classes, or too few rows of one, to cut splits from it.
    """
    problem = PROBLEMS[data.problem]
    tables = {
        name: rows.iloc[stratified_order(problem.strata(rows["label"]), data.seed)] for name, rows in tables.items()
    }
    train = tables["train"]
    missing = [name for name in PRIORITY if name not in tables and getattr(data.split, name)]
    remedy = "; data.classes: null takes every label as a class" if data.classes else ""
    problem.check_enough_rows(train["label"], 1 + len(missing), remedy)
    start, cut = 0, {}
    for name in missing:
        end = start + round(len(train) * getattr(data.split, name))
        cut[name] = train[start:end]
        start = end
    return tables | with_every_class(cut | {"train": train[start:]}, problem)


def with_every_class(cut: dict[str, pd.DataFrame], problem: Problem) -> dict[str, pd.DataFrame]:
    """The splits cut from one table, each with a row of every class or label that it needs: a split without one gets
    the last row of the split that has most of them."""
    every = problem.names(pd.concat([rows["label"] for rows in cut.values()]))
    for name in problem.needed_in:
        for label in without(cut[name], every, problem) if name in cut else ():
            having = {other: rows[has(rows, label, problem)] for other, rows in cut.items()}
            if having[name].empty:
                donor = max(having, key=lambda other: len(having[other]))
                row = having[donor].tail(1)
                cut |= {donor: cut[donor].drop(row.index), name: pd.concat([cut[name], row])}
    return cut


def without(rows: pd.DataFrame, names: Iterable[str], problem: Problem) -> list[str]:
    """The classes or labels that no row has."""
    found = {*problem.names(rows["label"])}
    return [name for name in names if name not in found]


def has(rows: pd.DataFrame, name: str, problem: Problem) -> pd.Series:
    """Which rows have a class or label."""
    return rows["label"].isin([label for label in rows["label"].unique() if name in problem.names_in(label)])


def stratified_order(labels: pd.Series, seed: int) -> np.ndarray:
    """A shuffled order of the rows in which every slice has the classes in proportion, to within one row each.

    Each class is shuffled, then its rows are spread evenly over [0, 1); sorting by that place interleaves the classes.
    So a split is a slice, a limit is a prefix, and a smaller limit is a subset of a larger one.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    within = labels.iloc[shuffled].groupby(labels.iloc[shuffled])
    place = (within.cumcount() + 0.5) / within.transform("size")
    return shuffled[np.argsort(place.to_numpy(), kind="stable")]


def check_leak(splits: dict[str, pd.DataFrame], data: Data, spread: Callable[..., Iterator[Any]] = map) -> None:
    """Check that a ready test split shares few texts with the rows that train, choose or calibrate a model.

    Args:
        spread: see `stages.compute.engine.mapping`.

    Raises:
        PipelineError: the share of test rows with a near-duplicate in another split is over `data.max_leak`.
    """
    if not isinstance(data.file, dict) or "test" not in data.file:
        return
    test = splits["test"]
    seen = pd.concat([splits[name].assign(split=name) for name in ALL_SPLITS if name in splits and name != "test"])
    both = pd.concat([texts.joined(rows) for rows in (seen, test)]).array
    groups = np.repeat([0, 1], [len(seen), len(test)])
    earlier = near_duplicates_in_earlier_groups(both, groups, data.near_duplicate, spread)[len(seen) :]
    leaked = np.flatnonzero(earlier >= 0)
    if len(leaked) > data.max_leak * len(test):
        row, other = test.iloc[leaked[0]], seen.iloc[earlier[leaked[0]]]
        raise PipelineError(
            f"data.max_leak: expected at most {data.max_leak:.1%} of the test rows among the others, found "
            f"{len(leaked):,} of {len(test):,}, the first: row {row['row']} of test and row {other['row']} of "
            f"{other['split']} ({texts.shortened(row['text'], 60)!r}); correct data.file, or raise "
            "data.max_leak to drop them from the others"
        )


def drop_near_duplicates(
    splits: dict[str, pd.DataFrame], threshold: float, dropped: Counter, spread: Callable[..., Iterator[Any]] = map
) -> dict[str, pd.DataFrame]:
    """Drop rows with near-duplicates in splits that stand before theirs in `PRIORITY`; where these are more than
    `MANY_ALIKE` of a split, say so.

    Args:
        spread: see `stages.compute.engine.mapping`.
    """
    groups = [name for name in PRIORITY if name in splits]
    sizes = [len(splits[name]) for name in groups]
    together = pd.concat([texts.joined(splits[name]) for name in groups]).array
    earlier = near_duplicates_in_earlier_groups(together, np.repeat(range(len(groups)), sizes), threshold, spread)
    dropped["near_duplicate_across_splits"] += int((earlier >= 0).sum())
    numbers, of_row = pd.concat([splits[name]["row"] for name in groups]).to_numpy(), np.repeat(groups, sizes)
    for name, of_split in zip(groups, np.split(np.arange(len(numbers)), np.cumsum(sizes)[:-1]), strict=True):
        near = of_split[earlier[of_split] >= 0]
        if len(near) > MANY_ALIKE * len(of_split):
            first, other = near[0], earlier[near[0]]
            progress.say(
                f"warning: {len(near):,} of {len(of_split):,} rows of {name} are left out, too like one in another "
                f"split (row {numbers[first]} is like row {numbers[other]} of {of_row[other]}); if such texts differ "
                "in what matters, raise data.near_duplicate"
            )
    apart = dict(zip(groups, np.split(earlier < 0, np.cumsum(sizes)[:-1]), strict=True))
    return {name: splits[name][apart[name]] for name in ALL_SPLITS if name in splits}


def limit(splits: dict[str, pd.DataFrame], data: Data, dropped: Counter) -> dict[str, pd.DataFrame]:
    """The first rows of each split, at most as many as its limit, with the classes in proportion, but a row of each.

    A ready split for validation or test may lack a class, if it has two or more others; this is then said.

    Raises:
        PipelineError: a class has no row left in a split that must have some, a split has no rows, or all test rows
            have the same label.
    """
    problem, limits = PROBLEMS[data.problem], data.limit.model_dump()
    kept = {
        name: first_rows(rows, limits.get(name), problem, every=name in problem.needed_in)
        for name, rows in splits.items()
    }
    names = {*problem.names(pd.concat([rows["label"] for rows in splits.values()])), *label_columns(data)}
    for name, rows in kept.items():
        dropped[f"over_limit_{name}"] += len(splits[name]) - len(rows)
        found = problem.names(rows["label"])
        missing = names.difference(found) if name in problem.needed_in else set()
        if (
            missing
            and is_ready(name, data)
            and len(found) > 1
            and not missing & {*problem.names(splits[name]["label"])}
        ):
            progress.say(f"warning: split {name!r}: no row of {', '.join(sorted(missing))}; scored without")
            missing = set()
        if missing or rows.empty:
            which = (
                f"expected rows of every {problem.noun}, found none of {', '.join(sorted(missing))} among {len(rows)}"
            )
            near = dropped["near_duplicate_across_splits"]
            remedies = {
                f"raise data.near_duplicate, by which {near:,} rows were too like one in another split": near,
                **more_rows(name, data, limited=len(rows) < len(splits[name])),
                "take them out of data.label": missing & {*label_columns(data)},
                "add rows": True,
            }
            raise PipelineError(
                f"split {name!r}: {which if missing else 'expected rows, found none'}; {any_of(remedies)}"
            )
    problem.check_enough_rows(kept["train"]["label"], 1, "")
    if "test" in kept and kept["test"]["label"].nunique() == 1:
        remedies = more_rows("test", data, limited=len(kept["test"]) < len(splits["test"])) | {"add rows": True}
        raise PipelineError(
            "split 'test': expected rows with different labels, without which no score tells models apart, found "
            f"{problem.answer} {kept['test']['label'].iloc[0]} alone; {any_of(remedies)}"
        )
    return kept


def more_rows(name: str, data: Data, *, limited: bool) -> dict[str, bool]:
    """The settings that give a split more rows, and whether they can."""
    return {f"raise data.limit.{name}": limited, "raise data.split": name != "train" and not is_ready(name, data)}


def is_ready(name: str, data: Data) -> bool:
    """Whether a split for validation or test is named in `data.file`, and not cut from train."""
    return isinstance(data.file, dict) and name in data.file and name != "train"


def any_of(remedies: Mapping[str, Any]) -> str:
    """The remedies that help, as a choice."""
    return ", or ".join(remedy for remedy, helps in remedies.items() if helps)


def first_rows(rows: pd.DataFrame, most: int | None, problem: Problem, *, every: bool) -> pd.DataFrame:
    """The first `most` rows. Every: a class or label that only others have gets the place of the last row of the most
    frequent class, or of labels that are all frequent."""
    kept, rest = rows[:most], rows[most:] if most is not None else rows[:0]
    if rest.empty or not every:
        return kept
    first = rest["label"].drop_duplicates().map(problem.names_in).explode().drop_duplicates().dropna().sort_values()
    for row, name in first[first.isin(without(kept, first, problem))].items():
        frequency = of_rarest_label(kept, problem)
        if frequency.max() > 1 and not has(kept, name, problem).any():
            last = kept.index[frequency == frequency.max()][-1]
            kept = pd.concat([kept.drop(last), rest.loc[[row]]])
    return kept


def of_rarest_label(rows: pd.DataFrame, problem: Problem) -> pd.Series:
    """How many of the rows have each row's rarest class or label; rows without a label have one of their own."""
    parts = rows["label"].map(lambda label: problem.names_in(label) or [None])
    counts = Counter(chain.from_iterable(parts))
    return parts.map(lambda names: min(counts[name] for name in names))


def class_names(splits: dict[str, pd.DataFrame], data: Data) -> list[str]:
    """The classes or labels of the rows: first those that `data` names, in its order, then the others, sorted."""
    found = PROBLEMS[data.problem].names(splits["train"]["label"])
    ordered = [name for name in data.classes or label_columns(data) if name in found]
    return ordered + [name for name in found if name not in ordered]


def label_columns(data: Data) -> list[str]:
    """The columns that hold one label each, where `data.label` lists several."""
    return data.label if isinstance(data.label, list) else []
