"""Which lap's prior to use, selected by validation observations alone.

Every prior predicts the same hidden halves of the same validation observations from the other
halves, with the same noise, see :mod:`diem.evaluation.metrics.prediction`. The Gaussian prior that
the first lap began with, lap 0, is a candidate as the others are. So the scores of two laps differ
by what the laps differ in, and the standard error of the mean difference tells whether it is more
than chance.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from diem.errors import DiemError
from diem.evaluation.metrics.prediction import Prediction
from diem.evaluation.rows import provenance, read_rows
from diem.files.hdf5 import Reader

__all__ = ["CHOSEN", "TIE", "select_laps", "selected_lap"]

CHOSEN, TIE = "chosen", "tie"
"""The verdicts: the lap whose mean score is the lowest, and a lap that could be as good."""

TIE_ERRORS = 2.0
"""A lap is a tie if it is less than so many standard errors above the selected one."""


class _Candidate(NamedTuple):
    """A prior's row of predictions, and the scores of each observation that it is the mean of."""

    row: dict[Any, Any]
    scores: np.ndarray


def select_laps(
    metrics: Sequence[str | Path], evaluations: Sequence[str | Path], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Compares the priors of every run by their predictions, and selects the best.

    Arguments:
        metrics: The files of metric rows of floors and laps.
        evaluations: Their files of arrays, in the same order.
        labels: The label of each run.

    Returns:
        A row for the Gaussian prior (lap 0) and for each lap that was evaluated: ``prediction``,
        its ``difference`` from the selected lap's with the ``standard_error`` of that difference,
        and the ``verdict``.
    """
    rows = read_rows(metrics)
    predictions = rows[rows["metric"] == Prediction.name].to_dict("records")
    candidates = []
    for row, path in zip(predictions, evaluations, strict=True):
        with Reader(path) as file:
            scores = file.read(f"{Prediction.name}/score", shape=())
        candidates.append(_Candidate(row, scores))
    runs = dict.fromkeys(c.row["run"] for c in candidates if c.row["stage"] == "lap")
    return pd.DataFrame([row for run in runs for row in _compared(run, candidates, labels[run])])


def _compared(run: str, candidates: Sequence[_Candidate], label: str) -> list[dict[str, Any]]:
    """Returns the rows of a run: its Gaussian prior, and its laps."""
    laps = [c for c in candidates if c.row["stage"] == "lap" and c.row["run"] == run]
    observations = laps[0].row["observations"]
    floors = [
        c for c in candidates if c.row["stage"] == "floor" and c.row["observations"] == observations
    ]
    compared = sorted([*floors, *laps], key=lambda candidate: candidate.row["lap"])
    best = min(compared, key=lambda candidate: candidate.row["value"])
    table = []
    for candidate in compared:
        row, above = candidate.row, candidate.scores - best.scores  # of the same observations
        error = above.std(ddof=1) / np.sqrt(len(above))
        verdict = ""
        if candidate is best:
            verdict = CHOSEN
        elif above.mean() < TIE_ERRORS * error:
            verdict = TIE
        table.append(
            {
                **{key: row[key] for key in ("experiment", "observations")},
                "run": run,
                "label": label,
                "lap": row["lap"],
                "prediction": row["value"],
                "difference": above.mean(),
                "standard_error": error,
                "verdict": verdict,
                "card": provenance(row),
                **{key: row[key] for key in ("optimizer_steps", "seed", "diem", "torch")},
            }
        )
    return table


def selected_lap(table: pd.DataFrame, run: str) -> int:
    """Returns the lap of a run that a table of :func:`select_laps` has selected, 0 the Gaussian."""
    chosen = table[(table["run"] == run) & (table["verdict"] == CHOSEN)]
    if len(chosen) != 1:
        raise DiemError(f"The table of chosen laps has {len(chosen)} chosen laps of run {run!r}.")
    return int(chosen["lap"].iloc[0])
