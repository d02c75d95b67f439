"""What came out of a comparison of posterior samplers, in a sentence and a table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diem.evaluation.metrics import labels
from diem.evaluation.rows import over_seeds, read_rows
from diem.paper.restoration.table import method_of, told_apart
from diem.report.page.outcomes import TIED, Number, Outcome, compared
from diem.report.page.tables import Cell, Table
from diem.report.tables.labels import metric_label
from diem.report.tables.writing import NONE

__all__ = ["of_restoration"]


def of_restoration(name: str, entry: Mapping[str, Any], path: str | Path) -> Outcome | None:
    """Returns the best method of each task and number of steps, by the first metric.

    Methods tie with the best one as :func:`diem.report.page.outcomes.compared` says.

    Arguments:
        name: The comparison's name.
        entry: Its resolved entry in the configuration.
        path: The file of its metric rows.

    Returns:
        The outcome; nothing if no metric tells better from worse.
    """
    rows = over_seeds(read_rows([path]))
    known = labels(entry["metrics"])
    there = [metric for metric in known if (rows["metric"] == metric).any()]
    metric = next((metric for metric in there if known[metric].better), None)
    if metric is None:
        return None
    rows = rows[rows["metric"] == metric]
    apart = rows["run"].map(told_apart(rows))
    rows = rows.assign(title=rows["settings"].map(lambda text: method_of(text).label) + apart)
    better = known[metric].better
    shown = metric_label(metric, next((text for text in rows["extractor"] if text), ""), known)
    steps = sorted({int(text) for text in rows["sampler_steps"]})
    wins: dict[str, int] = dict.fromkeys(rows["title"], 0)
    body = []
    for task, of_task in rows.groupby("observations", sort=False):
        line = [Cell(str(task).replace("_", " "))]
        for count in steps:
            best = _best(of_task[of_task["sampler_steps"].map(int) == count], better)
            for title, _ in best:
                wins[title] += 1
            line.append(Cell(_told(best)))
        body.append(line)
    header = ["Task", *(f"{count} steps" for count in steps)]
    counts = sorted(wins.items(), key=lambda item: -item[1])
    told = ", ".join(f"{title} in {count}" for title, count in counts if count)
    note = (
        f"The best {shown}, with all whose difference from it is within two standard errors (of few"
        " seeds by Student's t), as if they were of other images: of the same ones, too many are"
        " called a tie, not too few."
    )
    headline = f"Best mean {shown}, or a tie with it: {told} of {len(body) * len(steps)} cases."
    return Outcome("restoration", name, headline, Table(header, body, [note]))


def _best(rows: pd.DataFrame, better: str) -> list[tuple[str, Number]]:
    """Returns the best method of some rows, and those that tie with it; of lost images none is."""
    found = [(row["title"], Number.of(row)) for row in rows.to_dict("records")]
    found = [(title, number) for title, number in found if math.isfinite(number.value)]
    if not found:
        return []
    sign = 1 if better == "↓" else -1
    found.sort(key=lambda pair: sign * pair[1].value)
    first, *others = found
    return [first, *(pair for pair in others if compared(pair[1], first[1], better) == TIED)]


def _told(best: Sequence[tuple[str, Number]]) -> str:
    if not best:
        return NONE
    (title, number), *others = best
    tied = f" (tie: {', '.join(title for title, _ in others)})" if others else ""
    return f"{title} {number}{tied}"
