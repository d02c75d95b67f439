"""The table of the laps to use, which :mod:`diem.evaluation.selection` selects."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from diem.evaluation.selection import CHOSEN, TIE, read_selection, selected, selection_told
from diem.report.tables.labels import heading_of
from diem.report.tables.writing import (
    NONE,
    Readable,
    closing_note,
    decimals,
    notes_once,
    rounded,
)

__all__ = ["readable_selection", "told_selections"]

RULE = (
    "Each prior, the Gaussian too, predicts hidden halves of the same validation observations from"
    " their other halves; the lap with the lowest mean score is chosen, and neither clean data nor"
    " test observations are looked at. Differences are of the same observations, with their"
    " standard errors (of groups, where the file tells them); what is within two of them, of few"
    " groups by Student's t, is a tie."
)


def readable_selection(table: pd.DataFrame) -> Readable:
    """Returns the table of selected laps for the eye, with what it does not say as notes."""
    header = [["Observations"], ["Prior"], ["Lap"], heading_of("prediction")]
    header += [["90 % intervals", "hold (%)"]]
    header += [["Above the", "chosen lap"], ["Above the", "Gaussian"], ["Verdict"]]
    body, notes, cards = [], [], []
    alike = table.groupby(["observations", "label"])["run"].transform("nunique") > 1
    for run, rows in table.groupby("run", sort=False):
        label, chosen = rows["label"].iloc[0], selected(table, str(run))
        # Several runs may have one label.
        called = label if label == run else f"{run} ({label})"
        label = called if alike[rows.index[0]] else label
        errors = [error for error in rows["standard_error"] if 0 < error < math.inf]
        digits = decimals(min(errors)) if errors else 4
        for row in rows.to_dict("records"):
            name = str(row["lap"]) if row["lap"] else "0 (Gaussian)"
            words = [row["observations"], label, name]
            numbers = [f"{row['prediction']:,.{digits}f}", rounded(row["coverage_90"])]
            for of, same in (("", row["verdict"] == CHOSEN), ("gaussian_", row["lap"] == 0)):
                difference, error = (row[of + key] for key in ("difference", "standard_error"))
                told = "unknown" if math.isinf(error) else rounded(error)
                numbers.append(NONE if same else f"{rounded(difference)} ± {told}")
            verdict = row["verdict"]
            if row["lap"] and verdict == CHOSEN and row["gaussian_verdict"] == TIE:
                verdict += ", tie with the Gaussian"
            body.append([*words, *numbers, verdict or NONE])
            cards.append((f"{label} {name}", row["card"]))
        notes.append(f"{called}: {selection_told(chosen)}")
        if chosen["lap"] == rows["lap"].max():
            notes.append(f"{called}: the chosen lap is the last; more laps may be better still.")
    notes = [RULE, *notes, *notes_once(cards), closing_note(table.iloc[0])]
    return Readable(header, body, 3, notes)


def told_selections(path: str | Path) -> Iterator[str]:
    """Yields a sentence on each run of a table of selected laps, given its file."""
    table = read_selection(path)
    for run in table["run"].unique():
        row = selected(table, run)
        yield f"{row['experiment']}/{run}: {selection_told(row)}"
