"""Which lap's prior to use, chosen by held-out observations alone.

Every prior predicts the same hidden halves of the same test observations from the other halves,
with the same noise, see :func:`diem.evaluation.evaluate.evaluate`. So the scores of two laps differ by what
the laps differ in, and the standard error of the mean difference tells whether it is more than
chance.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diem.errors import DiemError
from diem.files.hdf5 import Reader
from diem.report.tables import METRICS, NONE, Readable, card, metric_label, read_rows, rounded

__all__ = ["CHOSEN", "TIE", "choice", "chosen_lap", "readable"]

CHOSEN, TIE = "chosen", "tie"
"""The verdicts: the lap whose mean score is the lowest, and a lap that could be as good."""

RULE = (
    "Each prior predicts a hidden half of every test observation from its other half; the lap with"
    " the lowest mean score is chosen, and no clean data are looked at. Differences are of the same"
    " observations; a lap that is less than two standard errors above the chosen one is a tie."
)

TIE_ERRORS = 2.0
"""A lap is a tie if it is less than so many standard errors above the chosen one."""


def choice(
    metrics: Sequence[str | Path], evaluations: Sequence[str | Path], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Compares the laps of every run by their predictions, and chooses the best.

    Arguments:
        metrics: The files of metric rows of floors and laps.
        evaluations: Their files of arrays, in the same order.
        labels: The label of each run.

    Returns:
        A row for each lap that was evaluated, and for the Gaussian prior (lap 0, which is no
        candidate): ``prediction``, its ``difference`` from the chosen lap's with the
        ``standard_error`` of that difference, and the ``verdict``.
    """
    rows = read_rows(metrics)
    rows = rows[rows["metric"] == "prediction"].to_dict("records")
    entries = []
    for row, path in zip(rows, evaluations, strict=True):
        with Reader(path) as file:
            entries.append((row, file.read("prediction/score", shape=())))
    table = []
    for run in dict.fromkeys(row["run"] for row, _ in entries if row["stage"] == "lap"):
        laps = [(row, score) for row, score in entries if row["run"] == run]
        best, lowest = min(laps, key=lambda entry: entry[0]["value"])
        floors = [
            (row, score)
            for row, score in entries
            if row["stage"] == "floor" and row["observations"] == best["observations"]
        ]
        for row, score in sorted([*floors, *laps], key=lambda entry: entry[0]["lap"]):
            above = score - lowest  # of the same observations
            error = above.std(ddof=1) / np.sqrt(len(above))
            verdict = ""
            if row is best:
                verdict = CHOSEN
            elif row["stage"] == "lap" and above.mean() < TIE_ERRORS * error:
                verdict = TIE
            table.append(
                {
                    **{key: row[key] for key in ("experiment", "observations")},
                    "run": run,
                    "label": labels[run],
                    "lap": row["lap"],
                    "prediction": row["value"],
                    "difference": above.mean(),
                    "standard_error": error,
                    "verdict": verdict,
                    "card": card(row),
                    **{key: row[key] for key in ("optimizer_steps", "seed", "diem", "torch")},
                }
            )
    return pd.DataFrame(table)


def chosen_lap(table: pd.DataFrame, run: str) -> int:
    """Returns the lap that a table of :func:`choice` has chosen of a run."""
    chosen = table[(table["run"] == run) & (table["verdict"] == CHOSEN)]
    if len(chosen) != 1:
        raise DiemError(f"The table of chosen laps has {len(chosen)} chosen laps of run {run!r}.")
    return int(chosen["lap"].iloc[0])


def readable(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`choice` for the eye, with what it does not say as notes."""
    better = METRICS["prediction"].better
    header = [["Observations"], ["Prior"], ["Lap"], [metric_label("prediction"), better]]
    header += [["Above the", "chosen lap"], ["Standard error"], ["Verdict"]]
    body, notes, made = [], [], {}
    for run, rows in table.groupby("run", sort=False):
        label, chosen = rows["label"].iloc[0], chosen_lap(table, run)
        for row in rows.to_dict("records"):
            differs = row["verdict"] != CHOSEN
            name = str(row["lap"]) if row["lap"] else "0 (Gaussian)"
            words = [row["observations"], label, name]
            numbers = [f"{row['prediction']:.4f}"]
            for key in ("difference", "standard_error"):
                numbers.append(rounded(row[key]) if differs else NONE)
            body.append([*words, *numbers, row["verdict"] or NONE])
            made.setdefault(row["card"], []).append(f"{label} {name}")
        if rows["difference"].min() < 0:
            notes.append(f"{label}: the Gaussian prior predicts better than every lap.")
        elif chosen == rows["lap"].max():
            notes.append(f"{label}: the chosen lap is the last; more laps may be better still.")
    cards = [f"{', '.join(names)}: {text}." for text, names in made.items()]
    first = table.iloc[0]
    end = f"Seed {first['seed']}, diem {first['diem']}, PyTorch {first['torch']}."
    return Readable(header, body, 3, [RULE, *notes, *cards, end])
