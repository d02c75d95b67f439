"""The table of the laps to use, which :mod:`diem.evaluation.selection` selects."""

import pandas as pd

from diem.evaluation.selection import CHOSEN, TIE, selected_lap
from diem.report.tables.labels import METRICS, metric_label
from diem.report.tables.writing import NONE, Readable, closing_note, notes_once, rounded

__all__ = ["readable_selection"]

RULE = (
    "Each prior, the Gaussian too, predicts a hidden half of every validation observation from its"
    " other half; the lap with the lowest mean score is chosen, and neither clean data nor test"
    " observations are looked at. Differences are of the same observations; a lap that is less than"
    " two standard errors above the chosen one is a tie."
)


def readable_selection(table: pd.DataFrame) -> Readable:
    """Returns the table of selected laps for the eye, with what it does not say as notes."""
    better = METRICS["prediction"].better
    header = [["Observations"], ["Prior"], ["Lap"], [metric_label("prediction"), better]]
    header += [["Above the", "chosen lap"], ["Standard error"], ["Verdict"]]
    body, notes, cards = [], [], []
    for run, rows in table.groupby("run", sort=False):
        label, chosen = rows["label"].iloc[0], selected_lap(table, str(run))
        for row in rows.to_dict("records"):
            differs = row["verdict"] != CHOSEN
            name = str(row["lap"]) if row["lap"] else "0 (Gaussian)"
            words = [row["observations"], label, name]
            numbers = [f"{row['prediction']:.4f}"]
            for key in ("difference", "standard_error"):
                numbers.append(rounded(row[key]) if differs else NONE)
            body.append([*words, *numbers, row["verdict"] or NONE])
            cards.append((f"{label} {name}", row["card"]))
        if chosen == 0:
            notes.append(
                f"{label}: the Gaussian prior predicts better than every lap, and is chosen."
            )
        elif (rows.loc[rows["lap"] == 0, "verdict"] == TIE).any():
            notes.append(f"{label}: no lap is better than the Gaussian prior beyond chance.")
        elif chosen == rows["lap"].max():
            notes.append(f"{label}: the chosen lap is the last; more laps may be better still.")
    notes = [RULE, *notes, *notes_once(cards), closing_note(table.iloc[0])]
    return Readable(header, body, 3, notes)
