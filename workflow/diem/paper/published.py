"""The table of an experiment's published numbers, with our own beside them.

A file of ``workflow/published`` has a row a model, with its numbers in columns named as the metrics
are, and the ``source`` of each row. Nothing is computed here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from diem.errors import DiemError
from diem.evaluation.rows import provenance, software
from diem.report.tables.labels import METRICS
from diem.report.tables.writing import NONE, Readable, notes_once, rounded

__all__ = ["readable_published", "with_published"]

OURS = "ours"
"""The method's name of the rows that this workflow made."""

WARNING = (
    "Numbers can be compared where data, samples, reference and extractor are the same: a FID of"
    " fewer samples is higher, whatever the model."
)


def with_published(
    rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], path: str | Path
) -> pd.DataFrame:
    """Returns published numbers, each followed by the last laps of the runs that it speaks of.

    Arguments:
        rows: The experiment's metric rows, see :func:`diem.evaluation.rows.read_rows`.
        runs: Of each run its ``heuristic`` (the covariance) and ``corruption`` (the probability
            that a pixel misses, or :py:`None`).
        path: The published numbers: ``method``, ``heuristic``, ``corruption``, metrics, ``source``.

    Returns:
        The columns of the file, the published numbers as they are written, and our own ``run``,
        ``lap`` and ``samples``. The ``source`` of our numbers is what made them.

    Raises:
        DiemError: If no metric of the file was measured.
    """
    published = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    metrics = [name for name in METRICS if name in published[0]]
    measured = rows[
        (rows["stage"] == "lap") & (rows["subject"] == "prior") & rows["metric"].isin(metrics)
    ]
    if measured.empty:
        raise DiemError(
            f"published: {path} has {', '.join(metrics)}, of which evaluation.metrics has none."
        )
    ours: dict[tuple, list[dict]] = {}
    for run in measured["run"].unique():
        group = measured[measured["run"] == run]
        entry = _ours(run, runs[run], group[group["lap"] == group["lap"].max()], metrics)
        ours.setdefault(_model(entry), []).append(entry)

    table: list[dict[Any, Any]] = []
    for row in published:
        table.append({**row, "corruption": float(row["corruption"])})
        table += ours.pop(_model(table[-1]), [])
    for rest in ours.values():
        table += rest
    columns = ["method", "run", "heuristic", "corruption", "lap", "samples", *metrics, "source"]
    return pd.DataFrame(table, columns=columns, dtype=object).fillna("")


def _model(row: Mapping[Any, Any]) -> tuple:
    return row["heuristic"], row["corruption"]


def _ours(
    run: str, settings: Mapping[str, Any], last: pd.DataFrame, metrics: list[str]
) -> dict[str, Any]:
    found = {row["metric"]: row for row in last.to_dict("records")}
    first = next(iter(found.values()))
    cards = [
        f"{METRICS[name].name}: {provenance(found[name])}" for name in metrics if name in found
    ]
    training = f"{int(first['optimizer_steps']):,} optimizer steps, {software(first)}"
    return {
        "method": OURS,
        "run": run,
        **settings,
        "lap": first["lap"],
        "samples": int(first["samples"]),
        **{name: row["value"] for name, row in found.items()},
        "source": "; ".join([*cards, training]),
    }


def readable_published(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`with_published` for the eye, with its sources in notes."""
    metrics = [name for name in table.columns if name in METRICS]
    header = [["Method"], ["Covariance"], ["Corruption"], ["Lap"], ["Samples"]]
    for name in metrics:
        metric = METRICS[name]
        header.append([metric.name, metric.better])
    body: list[list[str]] = []
    sources: list[tuple[str, str]] = []
    for row in table.to_dict("records"):
        method = f"{OURS}, {row['run']}" if row["method"] == OURS else row["method"]
        corruption = f"{row['corruption']:.0%}" if row["corruption"] != "" else NONE
        samples = f"{row['samples']:,}" if row["samples"] else NONE
        numbers = [rounded(v) if isinstance(v, float) else v for v in (row[m] for m in metrics)]
        heuristic = row["heuristic"] or NONE
        body.append(
            [method, heuristic, corruption, str(row["lap"]) or NONE, samples]
            + [number or NONE for number in numbers]
        )
        name = ", ".join(word for word in (method, heuristic, corruption) if word != NONE)
        sources.append((name, row["source"]))
    return Readable(header, body, 2, [*notes_once(sources, "; "), WARNING])
