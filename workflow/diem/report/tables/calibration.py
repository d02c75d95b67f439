"""The table of calibration: every evaluated prior, and how far its error bars can be believed."""

from collections.abc import Mapping

import pandas as pd

from diem.errors import DiemError
from diem.evaluation.metrics.calibration import Calibration
from diem.evaluation.rows import errors_of, provenance
from diem.report.tables.labels import NO_LABELS, Ceilings, heading_of
from diem.report.tables.writing import (
    NONE,
    Readable,
    closing_note,
    notes_once,
    numeric_cell,
)

__all__ = ["calibration", "readable_calibration"]

NOTE = (
    "A perfect sampler covers what its intervals promise, has p-values of which one of twenty is"
    " below 0.05, or fewer of several seeds, and the lowest CRPS. Single values are those that no"
    " observation depends on, where there are such."
)


def calibration(
    rows: pd.DataFrame, labels: Mapping[str, str], ceilings: Ceilings = NO_LABELS
) -> pd.DataFrame:
    """Returns the calibration of every evaluated prior at full precision.

    Arguments:
        rows: The experiment's metric rows.
        labels: The label of each run.
        ceilings: What ceilings are called, see :func:`diem.em.laps.ceiling_labels`.

    Returns:
        A row a prior: ``observations``, ``stage``, ``run``, ``label``, ``lap``, of each number its
        value and ``standard error of`` it, and ``card``.
    """
    names = [name for name in Calibration.labels if (rows["metric"] == name).any()]
    if not names:
        raise DiemError(f"tables: there are no rows of {Calibration.name}.")
    rows = rows[rows["metric"].isin(names)]
    laps = rows[rows["stage"] == "lap"][["observations", "run"]].drop_duplicates()
    shared = laps.groupby(["observations", laps["run"].map(labels)])["run"].transform("size") > 1
    alike = {*zip(laps["observations"][shared], laps["run"][shared], strict=True)}
    table: dict[tuple, dict] = {}
    for row in rows.to_dict("records"):
        key = tuple(row[name] for name in ("observations", "stage", "run", "lap"))
        called = labels.get(row["run"], row["stage"])
        if row["stage"] == "ceiling":
            called = ceilings.get(row["observations"], {}).get(row["run"], "ceiling")
        elif (row["observations"], row["run"]) in alike:
            called = f"{row['run']} ({called})"
        entry = table.setdefault(
            key,
            {
                **{name: row[name] for name in ("observations", "stage", "run")},
                "label": called,
                "lap": row["lap"] if row["stage"] == "lap" else "",
                **{name: row[name] for name in ("seed", "diem", "torch")},
                "card": provenance(row),
            },
        )
        entry[row["metric"]] = row["value"]
        if row["standard_error"]:
            entry[f"standard error of {row['metric']}"] = float(row["standard_error"])
    found = pd.DataFrame(list(table.values()))
    order = {name: number for number, name in enumerate(found["observations"].unique())}
    return found.sort_values("observations", key=lambda x: x.map(order), kind="stable")


def readable_calibration(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`calibration` for the eye."""
    names = [name for name in Calibration.labels if name in table]
    header = [["Observations"], ["Prior"], ["Lap"], *map(heading_of, names)]
    body = []
    for row in table.to_dict("records"):
        numbers = [numeric_cell(row, name) for name in names]
        body.append([row["observations"], row["label"], str(row["lap"]) or NONE, *numbers])
    cards = [
        (f"{row['label']} {row['lap']}".strip(), row["card"]) for row in table.to_dict("records")
    ]
    notes = [NOTE, *errors_of(table), *notes_once(cards), closing_note(table.iloc[0])]
    return Readable(header, body, 3, notes)
