"""Which lap's prior to use, selected by validation observations alone.

Every prior predicts the same hidden halves of the same validation observations from the other
halves, with the same noise, see :mod:`diem.evaluation.metrics.prediction`. The Gaussian prior that
the first lap began with, lap 0, is a candidate as the others are. So the scores of two laps differ
by what the laps differ in, and the standard error of the mean difference tells whether it is more
than chance. So does that from the Gaussian prior, which tells whether a lap has learned what a
Gaussian does not know.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from diem.diffusion.prior import read_prior
from diem.errors import DiemError
from diem.evaluation.metrics.prediction import Prediction
from diem.evaluation.rows import provenance, read_rows
from diem.evaluation.standard_error import standard_error, tie_errors
from diem.files.hdf5 import Reader
from diem.files.tables import read_csv

__all__ = [
    "BETTER",
    "CHOSEN",
    "TIE",
    "read_selection",
    "select_laps",
    "selected",
    "selected_lap",
    "selection_told",
    "write_selected",
]

CHOSEN, TIE = "chosen", "tie"
"""The verdicts: the lap whose mean score is the lowest, and a lap that could be as good."""

BETTER, WORSE = "better", "worse"
"""What a lap is beside the Gaussian prior, if it is no :data:`TIE`."""

KEYS = ["observations", "stage", "run", "lap"]
"""What tells one prior's rows from another's."""


class _Candidate(NamedTuple):
    """A prior's row of predictions, and the scores of each observation that it is the mean of.

    Where observations form groups, ``groups`` has the number of each one's.
    """

    row: dict[Any, Any]
    scores: np.ndarray
    groups: np.ndarray | None
    path: str | Path

    @property
    def of(self) -> tuple[Any, ...]:
        """What is alike where the same halves are predicted by as many samples."""
        return self.row["samples"], len(self.scores)


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
        how often its 90 % intervals hold what was hidden (``coverage_90``, in percent), its
        ``difference`` from the selected lap's with the ``standard_error`` of that difference and
        the ``verdict``, and the same from the Gaussian prior's (``gaussian_difference``,
        ``gaussian_standard_error``, ``gaussian_verdict``).

    Raises:
        DiemError: If a file cannot be read, or the priors were evaluated with unlike settings.
    """
    rows = read_rows(metrics)
    covered = rows[rows["metric"] == f"{Prediction.name}_coverage_90"].set_index(KEYS)["value"]
    predictions = rows[rows["metric"] == Prediction.name].to_dict("records")
    candidates = []
    for row, path in zip(predictions, evaluations, strict=True):
        with Reader(path) as file:
            scores = file.read(f"{Prediction.name}/score", shape=())
            group = f"{Prediction.name}/group"
            groups = file.read(group, shape=()) if group in file else None
        row["coverage_90"] = covered.get(tuple(row[key] for key in KEYS), math.nan)
        candidates.append(_Candidate(row, scores, groups, path))
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
    for candidate in compared:
        if candidate.of != compared[0].of:
            raise DiemError(
                f"{candidate.path}: its predictions are not of the same hidden halves as those of"
                f" {compared[0].path}, since one of the two was made with other settings: remove"
                " both, and they are made anew."
            )
    best = min(compared, key=lambda candidate: candidate.row["value"])
    table = []
    for candidate in compared:
        row, gaussian = candidate.row, ""
        difference, error = _difference(candidate, best)
        errors = _tie_errors(candidate)
        verdict = TIE if difference <= errors * error else ""
        verdict = CHOSEN if candidate is best else verdict
        above_gaussian = _difference(candidate, compared[0])
        if candidate is not compared[0]:
            tied = abs(above_gaussian[0]) <= errors * above_gaussian[1]
            gaussian = TIE if tied else BETTER if above_gaussian[0] < 0 else WORSE
        table.append(
            {
                **{key: row[key] for key in ("experiment", "observations")},
                "run": run,
                "label": label,
                "lap": row["lap"],
                "prediction": row["value"],
                "coverage_90": row["coverage_90"],
                "difference": difference,
                "standard_error": error,
                "verdict": verdict,
                "gaussian_difference": above_gaussian[0],
                "gaussian_standard_error": above_gaussian[1],
                "gaussian_verdict": gaussian,
                "card": provenance(row),
                **{key: row[key] for key in ("optimizer_steps", "seed", "diem", "torch")},
            }
        )
    return table


def _difference(one: _Candidate, other: _Candidate) -> tuple[float, float]:
    """Returns the mean difference of scores of the same observations, and its standard error."""
    above = one.scores - other.scores
    error = standard_error(above, one.groups)
    # Of a single group nothing tells how much it differs from others, so that all are ties.
    return float(above.mean()), math.inf if error is None else error


def _tie_errors(candidate: _Candidate) -> float:
    """Returns how many standard errors make a tie: of few scores, as many as Student's t has it.

    Where observations form groups, it is the groups that count.
    """
    counted = candidate.scores if candidate.groups is None else np.unique(candidate.groups)
    return tie_errors(len(counted) - 1)


def read_selection(path: str | Path) -> pd.DataFrame:
    """Reads a table of :func:`select_laps`, in which names are text, whatever they look like.

    Arguments:
        path: The file.

    Raises:
        DiemError: If the file is missing, damaged or was edited.
    """
    table = read_csv(path, dtype=str, keep_default_na=False).astype({"lap": int})
    shown = (name for name in SHOWN if name in table)
    numbers = [name for name in shown if name != "lap" and not name.endswith("verdict")]
    # Not pandas' own parser of numbers, which may miss the last digit.
    return table.assign(**{name: table[name].replace("", "nan").astype(float) for name in numbers})


def selected(table: pd.DataFrame, run: str) -> dict[Any, Any]:
    """Returns the row of a run that a table of :func:`select_laps` has selected."""
    chosen = table[(table["run"] == run) & (table["verdict"] == CHOSEN)].to_dict("records")
    if len(chosen) != 1:
        raise DiemError(f"The table of chosen laps has {len(chosen)} chosen laps of run {run!r}.")
    return chosen[0]


def selected_lap(table: pd.DataFrame, run: str) -> int:
    """Returns the lap of a run that a table of :func:`select_laps` has selected, 0 the Gaussian."""
    return int(selected(table, run)["lap"])


def selection_told(row: Mapping[Any, Any]) -> str:
    """Returns in a sentence what was selected of a run, given its row of :func:`selected`."""
    if row["lap"] == 0:
        return "the Gaussian prior predicts better than every lap, and is chosen."
    difference, error = row["gaussian_difference"], row["gaussian_standard_error"]
    if row["gaussian_verdict"] == TIE:
        beside = "a tie with the Gaussian prior"
    else:
        beside = "which predicts better than the Gaussian prior"
    told = "unknown, of one group" if math.isinf(error) else f"{error:.2g}"
    return f"lap {row['lap']} is chosen, {beside} (by {-difference:.2g}, standard error {told})."


SHOWN = (
    *("lap", "prediction", "coverage_90", "difference", "standard_error", "verdict"),
    *("gaussian_difference", "gaussian_standard_error", "gaussian_verdict"),
)
"""The columns of the table of a run's laps that the card of the chosen prior keeps."""


def write_selected(
    output: str | Path, table: pd.DataFrame, source: str, run: str, priors: Sequence[str | Path]
) -> None:
    """Writes the prior of the lap that was selected, with the selection in its card.

    Arguments:
        output: The prior to write.
        table: A table of :func:`select_laps`.
        source: The table's file, for the card.
        run: The run.
        priors: The priors of the run's laps that were compared, the Gaussian one too.

    Raises:
        DiemError: If a prior cannot be read.
    """
    chosen = selected(table, run)
    by_lap = {prior.card["lap"]: prior for prior in map(read_prior, priors)}
    prior = by_lap[chosen["lap"]]
    prior.card["run"] = run  # the Gaussian is of several
    compared = table.loc[table["run"] == run, [*SHOWN]]
    compared = compared.where(compared != "", None)
    prior.card["chosen_by"] = {
        "metric": Prediction.name,
        "laps": sorted(by_lap),
        "table": source,
        "rows": json.loads(compared.to_json(orient="records", double_precision=15)),
        "told": selection_told(chosen),
    }
    prior.save(output)
