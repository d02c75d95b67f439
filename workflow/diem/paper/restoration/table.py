"""The table of posterior samplers: our numbers, and the published ones beside them.

A number of ours stands beside a published one where task, method, iterations and number of steps
are the same. Nothing is computed here.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from diem.evaluation.rows import errors_of, over_seeds, provenance, seed_count
from diem.paper.methods import METHODS, Method
from diem.report.tables.labels import METRICS, heading_of
from diem.report.tables.writing import (
    BOLD,
    NONE,
    Readable,
    best_cells,
    closing_note,
    with_error,
)

__all__ = [
    "means_over_seeds",
    "method_of",
    "published_title",
    "readable_restoration",
    "restoration_table",
    "told_apart",
]

KEYS = ["task", "method", "iterations", "steps"]

WARNING = (
    "Numbers can be compared where images, tasks and prior are the same: other images are easier or"
    " harder to restore, whatever the method. Published LPIPS and ours need not be of one network."
)


def method_of(settings: str) -> Method:
    """Returns the method that made a row, from its ``settings``."""
    return METHODS.parse(json.loads(settings)["method"])


def means_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the means over the seeds, whose settings name the priors of all seeds.

    Arguments:
        rows: The rows of a comparison at all of its seeds, see
            :func:`diem.evaluation.rows.over_seeds`.
    """
    priors = dict.fromkeys(json.loads(settings)["prior"]["name"] for settings in rows["settings"])

    def naming_all(settings: str) -> str:
        known = json.loads(settings)
        return json.dumps({**known, "prior": {**known["prior"], "name": " and ".join(priors)}})

    means = over_seeds(rows)
    return means.assign(settings=means["settings"].map(naming_all)) if len(priors) > 1 else means


def told_apart(rows: pd.DataFrame) -> dict[str, str]:
    """Returns what follows the name of each entry's method: its own where several are called alike.

    Arguments:
        rows: The rows of a comparison.
    """
    first = rows.drop_duplicates("run").set_index("run")["settings"]
    labels = first.map(lambda settings: method_of(settings).label)
    counts = Counter(labels)
    return {str(run): f", {run}" if counts[label] > 1 else "" for run, label in labels.items()}


def published_title(published: str) -> str:
    """Returns a method's name as we write it, of the published capitals."""
    titles = (method.title for method in METHODS.all().values())
    return {title.upper(): title for title in titles}.get(published, published)


def restoration_table(rows: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Returns our numbers with the published ones beside them, and those that stand alone.

    Arguments:
        rows: The rows of a comparison, see :func:`diem.evaluation.rows.read_rows` and
            :data:`diem.paper.restoration.restore.COLUMNS`.
        path: The published numbers: ``method``, ``steps``, ``iterations``, ``task``, metrics and
            ``source``.

    Returns:
        A row for each task, method and number of steps: of each metric that we measured the value,
        its standard error and its card, and of each that was published the number as it is written.
    """
    published = pd.read_csv(path, dtype=str, keep_default_na=False)
    metrics = [name for name in METRICS if name in published]
    ours = _ours(rows)
    theirs = published.assign(
        method=published["method"].map(published_title), steps=published["steps"].map(int)
    ).rename(columns={name: f"{name}_published" for name in metrics})
    table = ours.merge(theirs, how="outer", on=KEYS, sort=False)

    # In the order of the configuration, and then of the publication.
    ranks = {
        key: list(dict.fromkeys([*ours[key], *theirs[key]])).index for key in ("task", "method")
    }
    order = table.assign(**{key: table[key].map(rank) for key, rank in ranks.items()})
    order = order.sort_values(KEYS, kind="stable")
    columns = [*KEYS, "run"]
    for metric in (name for name in METRICS if name in ours or name in metrics):
        found = (metric, f"{metric}_standard_error", f"{metric}_card", f"{metric}_published")
        columns += [name for name in found if name in table]
    return table.loc[order.index, [*columns, "source"]].reset_index(drop=True)


def _ours(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each task, method's entry and number of steps, its metrics in columns."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        task, run, steps = row["observations"], row["run"], int(row["sampler_steps"])
        if (task, run, steps) not in found:
            method = method_of(row["settings"])
            found[task, run, steps] = {
                "task": task,
                "method": method.title,
                "iterations": method.iterations_shown,
                "steps": steps,
                "run": run,
            }
        metric = row["metric"]
        found[task, run, steps] |= {
            metric: row["value"],
            f"{metric}_standard_error": row["standard_error"],
            f"{metric}_card": provenance(row),
        }
    return pd.DataFrame(list(found.values()))


def readable_restoration(table: pd.DataFrame, rows: pd.DataFrame) -> Readable:
    """Returns the table of :func:`restoration_table` for the eye, with what made it in notes.

    Arguments:
        table: The table.
        rows: The rows that it was made of.
    """
    columns, header = [], [["Task"], ["Method"], ["Iterations"], ["Steps"]]
    for name in METRICS:
        for column, whose in ((name, "ours"), (f"{name}_published", "published")):
            if column in table:
                columns.append(column)
                header.append(heading_of(name, last=whose))
    groups = list(zip(table["task"], table["steps"], strict=True))
    directed = {
        4 + i: (name, METRICS[name].better) for i, name in enumerate(columns) if name in METRICS
    }
    named = {f"{name}_standard_error": f"standard error of {name}" for name in METRICS}
    seeds = seed_count(rows["seed"].iloc[0])
    bold = best_cells(table.rename(columns=named), groups, directed, seeds)
    table = table.astype(object).fillna("")
    apart, body = told_apart(rows), []
    for row in table.to_dict("records"):
        task, method = row["task"].replace("_", " "), row["method"] + apart.get(row["run"], "")
        cells = [task, method, row["iterations"], str(row["steps"])]
        for column in columns:
            value, error = row[column], row.get(f"{column}_standard_error") or None
            number = isinstance(value, float)
            cells.append(with_error(value, error and float(error)) if number else value)
        body.append([cell or NONE for cell in cells])
    sources = [source for source in table["source"].unique() if source]
    published = f"Published: {'; '.join(sources)}."
    notes = [*([BOLD] if bold else []), *_notes(rows), published, WARNING]
    return Readable(header, body, 2, notes, bold)


def _notes(rows: pd.DataFrame) -> list[str]:
    """Returns what made our numbers, a sentence each."""
    first = rows.iloc[0]
    prior, tasks = json.loads(first["settings"])["prior"], {}
    for row in rows.to_dict("records"):
        task = json.loads(row["settings"])["task"]
        options = dict(task["operator"])
        operator = ", ".join(
            [options.pop("name"), *(f"{key} {value}" for key, value in options.items())]
        )
        tasks[row["observations"]] = f"{operator}, sigma_y {task['sigma_y']}"
    described = "; ".join(f"{name}: {task}" for name, task in tasks.items())
    return [
        f"Ours: {int(first['samples']):,} test images of {prior['data']} with"
        f" {prior['name']}, one sample each, {first['sampler']}, the same observations and noise"
        f" for every method; means. {described}, where images span [-1, 1].",
        *(
            f"{METRICS[metric].name}: by features of {extractor}."
            for metric, extractor in dict.fromkeys(
                zip(rows["metric"], rows["extractor"], strict=True)
            )
            if extractor
        ),
        *errors_of(rows),
        closing_note(first),
    ]
