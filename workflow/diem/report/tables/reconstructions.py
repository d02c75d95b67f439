"""The table of reconstructions: every prior on observations that it need not be trained on."""

from collections.abc import Mapping

import pandas as pd

from diem.evaluation.rows import errors_of, provenance, seed_count
from diem.report.tables.labels import METRICS, heading_of
from diem.report.tables.writing import (
    BOLD,
    NONE,
    Readable,
    best_cells,
    closing_note,
    notes_once,
    numeric_cell,
)

__all__ = ["readable_reconstructions", "reconstructions"]


def reconstructions(
    rows: pd.DataFrame, labels: Mapping[str, str], trained: Mapping[str, str]
) -> pd.DataFrame:
    """Returns the table of reconstructions at full precision, with the card of each number.

    Arguments:
        rows: The rows of :func:`diem.evaluation.reconstruct.reconstruct`, of several runs and
            observations.
        labels: The label of each run.
        trained: The observations that each run was trained on.

    Returns:
        A row for each set of observations, method and estimate: ``observations``, ``trained_on``
        (those that the method's prior was trained on, none for the adjoint), ``run``, ``method``,
        ``estimate``, ``lap``, and of each metric its value and ``card``.
    """
    table: dict[tuple, dict] = {}
    for row in rows.to_dict("records"):
        run, stage, subject = row["run"], row["stage"], row["subject"]
        if subject == "adjoint":
            # It is the same for every run.
            method, estimate, run = "adjoint (zero-filled)", "A' y", ""
        else:
            method = {"floor": "Gaussian prior", "lap": f"learned prior, {labels[run]}"}[stage]
            estimate = {"posterior": "one sample", "posterior_mean": "mean"}[subject]
        # The Gaussian is the same for every run that was trained on the same observations.
        of = trained[run] if stage == "floor" and run else run
        entry = table.setdefault(
            (row["observations"], method, of, estimate),
            {
                "observations": row["observations"],
                "trained_on": trained[run] if run else "",
                "run": run,
                "method": method,
                "estimate": estimate,
                "lap": row["lap"] if run else "",
                "seed": row["seed"],
                "diem": row["diem"],
                "torch": row["torch"],
            },
        )
        entry[row["metric"]] = row["value"]
        if row["standard_error"]:
            entry[f"standard error of {row['metric']}"] = float(row["standard_error"])
        entry[f"card of {row['metric']}"] = provenance(row)
    return pd.DataFrame(list(table.values()))


def readable_reconstructions(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`reconstructions` for the eye."""
    metrics = [name for name in METRICS if name in table]
    header = [["Observations"], ["Prior trained on"], ["Method"], ["Estimate"]]
    header += [heading_of(name) for name in metrics]
    body, cards = [], []
    for row in table.to_dict("records"):
        words = [row["observations"], row["trained_on"] or NONE, row["method"], row["estimate"]]
        body.append(words + [numeric_cell(row, name) for name in metrics])
        cards.append((f"{row['method']} ({row['estimate']})", row[f"card of {metrics[0]}"]))
    groups = list(zip(table["observations"], table["estimate"], strict=True))
    directed = ((name, METRICS[name].better) for name in metrics)
    seeds = seed_count(table["seed"].iloc[0])
    bold = best_cells(table, groups, dict(enumerate(directed, 4)), seeds)
    notes = [*([BOLD] if bold else []), *errors_of(table), *notes_once(cards)]
    notes.append(closing_note(table.iloc[0]))
    return Readable(header, body, 4, notes, bold)
