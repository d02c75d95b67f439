"""The table of posterior samplers: our numbers, and the published ones beside them.

A number of ours stands beside a published one where task, method, iterations and number of steps
are the same. Nothing is computed here.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from diem.report.tables import METRICS, Readable, card, metric_label, rounded

__all__ = ["METHOD_NAMES", "beside", "label", "method_name", "readable"]

METHOD_NAMES = {"mmps": "MMPS", "dps": "DPS", "pgdm": "PGDM", "tmpd": "TMPD", "diffpir": "DiffPIR"}

KEYS = ["task", "method", "iterations", "steps"]

WARNING = (
    "Numbers can be compared where images, tasks and prior are the same: other images are easier or"
    " harder to restore, whatever the method. Published LPIPS and ours need not be of one network."
)


def label(settings: str) -> str:
    """Returns a method's name from a row's settings, such as "MMPS (3)"."""
    method = json.loads(settings)["method"]
    iterations = f" ({method['iterations']})" if method["name"] == "mmps" else ""
    return METHOD_NAMES[method["name"]] + iterations


def method_name(published: str) -> str:
    """Returns a method's name as we write it, of the published capitals."""
    return {name.upper(): name for name in METHOD_NAMES.values()}.get(published, published)


def beside(rows: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Returns our numbers with the published ones beside them, and those that stand alone.

    Arguments:
        rows: The rows of a comparison, see :func:`diem.report.tables.read_rows` and
            :data:`diem.paper.restoration.COLUMNS`.
        path: The published numbers: ``method``, ``steps``, ``iterations``, ``task``, metrics and
            ``source``.

    Returns:
        A row for each task, method and number of steps: of each metric that we measured the value,
        its standard error and its card, and of each that was published the number as it is written.
    """
    published = pd.read_csv(path, dtype=str, keep_default_na=False)
    metrics = [name for name in METRICS if name in published]
    found: dict[tuple, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        method = json.loads(row["settings"])["method"]
        key = (row["observations"], row["run"], int(row["sampler_steps"]))
        entry = found.setdefault(
            key,
            {
                "task": row["observations"],
                "method": METHOD_NAMES[method["name"]],
                "iterations": str(method["iterations"]) if method["name"] == "mmps" else "",
                "steps": int(row["sampler_steps"]),
                "run": row["run"],
            },
        )
        metric = row["metric"]
        entry[metric] = row["value"]
        entry[f"{metric}_standard_error"] = row["standard_error"]
        entry[f"{metric}_card"] = card(row)
    ours = pd.DataFrame(list(found.values()))

    theirs = published.assign(
        method=published["method"].map(method_name),
        steps=published["steps"].map(int),
    ).rename(columns={name: f"{name}_published" for name in metrics})
    table = ours.merge(theirs, how="outer", on=KEYS, sort=False)

    tasks = list(dict.fromkeys([*ours["task"], *theirs["task"]]))
    methods = list(dict.fromkeys([*METHOD_NAMES.values(), *theirs["method"]]))
    order = table.assign(
        task=table["task"].map(tasks.index), method=table["method"].map(methods.index)
    ).sort_values(KEYS, kind="stable")
    columns = [*KEYS, "run"]
    for metric in (name for name in METRICS if name in ours or name in metrics):
        parts = (metric, f"{metric}_standard_error", f"{metric}_card", f"{metric}_published")
        columns += [name for name in parts if name in table]
    return table.loc[order.index, [*columns, "source"]].reset_index(drop=True)


def readable(table: pd.DataFrame, rows: pd.DataFrame) -> Readable:
    """Returns the table of :func:`beside` for the eye, with what made the numbers in notes.

    Arguments:
        table: The table.
        rows: The rows that it was made of.
    """
    extractor = next((name for name in rows["extractor"] if name), "")
    columns, header = [], [["Task"], ["Method"], ["Iterations"], ["Steps"]]
    for name, metric in METRICS.items():
        for column, whose in ((name, "ours"), (f"{name}_published", "published")):
            if column in table:
                columns.append(column)
                title = metric_label(name, extractor) if whose == "ours" else metric.name
                header.append([title, whose, *([metric.better] if metric.better else [])])
    table = table.astype(object).fillna("")
    body = []
    for row in table.to_dict("records"):
        cells = [row["task"].replace("_", " "), row["method"], row["iterations"], str(row["steps"])]
        for column in columns:
            value = row[column]
            cells.append(rounded(value) if isinstance(value, float) else value)
        body.append([cell or "-" for cell in cells])

    first = rows.iloc[0]
    prior, problems = json.loads(first["settings"])["prior"], {}
    for row in rows.to_dict("records"):
        task = json.loads(row["settings"])["task"]
        operator = ", ".join(f"{key} {value}" for key, value in task["operator"].items())
        problems[row["observations"]] = f"{operator}, sigma_y {task['sigma_y']}"
    tasks = "; ".join(f"{name}: {told}" for name, told in problems.items())
    notes = [
        f"Ours: {int(first['samples']):,} test images of {prior['data']} with"
        f" {prior['name']}, one sample each, {first['sampler']}, the same observations and noise"
        f" for every method; means. {tasks.replace('name ', '')}, where images span [-1, 1].",
        f"Seed {first['seed']}, diem {first['diem']}, PyTorch {first['torch']}.",
    ]
    sources = [source for source in table["source"].unique() if source]
    return Readable(header, body, 2, [*notes, f"Published: {'; '.join(sources)}.", WARNING])
