"""What came out of an experiment, in a sentence and a table: read from its metric rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from diem.em.laps import ceiling_of
from diem.evaluation.metrics import Fidelity, Label, by_quality, find_all, labels
from diem.evaluation.metrics.calibration import Calibration
from diem.evaluation.metrics.prediction import Prediction
from diem.evaluation.rows import errors_of, over_seeds, read_rows, seed_count
from diem.evaluation.selection import TIE, read_selection, selected
from diem.evaluation.standard_error import tie_margin
from diem.report.page.tables import Cell, Table
from diem.report.tables.labels import SUBJECTS, label_of, metric_label
from diem.report.tables.writing import NONE, with_error

__all__ = ["Mark", "Number", "Outcome", "compared", "of_experiment"]

BETTER, WORSE, TIED, UNKNOWN, ITSELF = "better", "worse", "tie", "unknown", "itself"

DIRECTIONS = {"↓": "lower is better", "↑": "higher is better"}


class Number(NamedTuple):
    """A number, its standard error where it has one, and over how many seeds it is a mean."""

    value: float
    error: float | None = None
    seeds: int = 1

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Number":
        """Returns the number of a metric row."""
        error = float(row["standard_error"]) if row["standard_error"] else None
        return cls(row["value"], error, seed_count(row["seed"]))

    def __str__(self) -> str:
        return with_error(self.value, self.error)


class Mark(NamedTuple):
    """A mark of a strip, on which better values stand further to the right.

    Attributes:
        kind: ``floor``, ``lap``, ``chosen`` or ``ceiling``.
        place: Its place, from 0 to 1.
        text: What it is.
    """

    kind: str
    place: float
    text: str


@dataclass(frozen=True)
class Outcome:
    """What came out of an entry of the configuration.

    Attributes:
        section: The entry's section.
        name: Its name.
        headline: The main result, in a sentence.
        table: The numbers behind it, if the sentence does not have them all.
        strips: The marks of each row of the table, if they can be drawn.
    """

    section: str
    name: str
    headline: str
    table: Table | None = None
    strips: list[list[Mark]] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """The numbers of one run, by the main metric."""

    title: str
    laps: dict[int, Number]
    chosen: int | None
    tied: list[int]
    floor: Number | None
    ceiling: Number | None
    coverage: Number | None

    @property
    def last(self) -> int:
        return max(self.laps)

    def at(self, lap: int) -> Number | None:
        """Returns the number of a lap; that of lap 0 is the floor's."""
        return self.laps.get(lap) if lap else self.floor

    @property
    def result(self) -> Number | None:
        """The number of the prior to use: that of the chosen lap, or without a choice the last."""
        return self.at(self.last if self.chosen is None else self.chosen)


def compared(one: Number, other: Number, better: str) -> str:
    """Returns what a number is beside another: ``better``, ``worse``, a ``tie``, or ``unknown``.

    They tie if they differ by less than twice the standard error of their difference, of few seeds
    as Student's t has it, as if they were independent, which numbers of the same observations are
    not: a tie is then said too often rather than too rarely. Numbers without standard errors tie
    only if they are equal. What is beside no number is unknown.

    Arguments:
        one: The number.
        other: The other.
        better: An arrow to where better values are: ``↓`` or ``↑``.
    """
    difference = one.value - other.value
    if math.isnan(difference):
        return UNKNOWN
    if abs(difference) <= tie_margin(one.error or 0.0, other.error or 0.0, one.seeds):
        return TIED
    return BETTER if (difference < 0) == (better == "↓") else WORSE


def of_experiment(
    name: str, entry: Mapping[str, Any], rows: str | Path, chosen: str | Path | None
) -> Outcome | None:
    """Returns what came out of an experiment; nothing if no metric tells better from worse.

    Arguments:
        name: The experiment.
        entry: Its resolved entry in the configuration.
        rows: The file of its metric rows.
        chosen: The table of chosen laps, if laps are chosen.
    """
    metrics = entry["evaluation"]["metrics"]
    found, known = over_seeds(read_rows([rows]), metrics), labels(metrics)
    main = _main(found, entry, known)
    if main is None:
        return None
    metric, subject = main
    selection = None if chosen is None else read_selection(chosen)
    of_main = found[(found["metric"] == metric) & (found["subject"] == subject)]
    told = (_run(run, entry, of_main, found, selection) for run in entry["runs"])
    runs = [run for run in told if run is not None]
    if not runs:
        return None
    label = label_of(metric, known)
    extractor = next((text for text in of_main["extractor"] if text), "")
    shown = f"{metric_label(metric, extractor, known)} of {SUBJECTS.get(subject, subject)}"
    table = _table(runs, label.better, selection is not None)
    table.notes.extend(_notes(runs, f"{shown}; {DIRECTIONS[label.better]}", of_main))
    tell = _told_of_one if len(runs) == 1 else _told_of_several
    headline = tell(runs, shown, label.better)
    return Outcome("experiments", name, headline, table, [_strip(r, label.better) for r in runs])


def _main(
    rows: pd.DataFrame, entry: Mapping[str, Any], known: Mapping[str, Label]
) -> tuple[str, str] | None:
    """Returns the metric and the subject that tell most of an experiment's priors."""
    metrics = entry["evaluation"]["metrics"]
    fidelities = [m.name for m in find_all(metrics) if issubclass(m, Fidelity)]
    pairs = [
        *((name, "prior") for name in by_quality(metrics)),
        *((name, "posterior_mean") for name in fidelities),
        (Prediction.name, "posterior"),
        *dict.fromkeys(zip(rows["metric"], rows["subject"], strict=True)),
    ]
    there = {*zip(rows["metric"], rows["subject"], strict=True)}
    told = (pair for pair in pairs if pair in there and label_of(pair[0], known).better)
    return next((pair for pair in told if pair[1] != "e_step"), None)


def _numbers(rows: pd.DataFrame) -> dict[int, Number]:
    """Returns the numbers of rows by their laps."""
    return {row["lap"]: Number.of(row) for row in rows.to_dict("records")}


def _run(
    run: str,
    entry: Mapping[str, Any],
    of_main: pd.DataFrame,
    rows: pd.DataFrame,
    selection: pd.DataFrame | None,
) -> _Run | None:
    """Returns the numbers of a run; nothing if there are none of it."""
    observations = entry["runs"][run]["observations"]

    def at(rows: pd.DataFrame, stage: str, named: str | None = None) -> dict[int, Number]:
        kept = (rows["stage"] == stage) & (rows["observations"] == observations)
        return _numbers(rows[kept & (rows["run"] == named)] if named else rows[kept])

    laps = at(of_main, "lap", run)
    if not laps:
        return None
    chosen, tied = None, []
    if selection is not None:
        chosen = int(selected(selection, run)["lap"])
        ties = selection[(selection["run"] == run) & (selection["verdict"] == TIE)]
        tied = [int(lap) for lap in ties["lap"]]
    lap = max(laps) if chosen is None else chosen
    coverage = None
    for name in (Calibration.name, Prediction.name):
        covered = rows[rows["metric"] == f"{name}_coverage_90"]
        if len(covered) and coverage is None:
            of_lap = at(covered, "lap", run) | {0: at(covered, "floor").get(0)}
            coverage = of_lap.get(lap)
    label = entry["runs"][run]["label"]
    sets = {each["observations"] for each in entry["runs"].values()}
    return _Run(
        label if len(sets) == 1 else f"{label}, {observations}",
        laps,
        chosen,
        tied,
        at(of_main, "floor").get(0),
        at(of_main, "ceiling", ceiling_of(entry, run)).get(0),
        coverage,
    )


def _told_of_one(runs: Sequence[_Run], shown: str, better: str) -> str:
    """Returns the main result of a single run in words."""
    (run,) = runs
    first, last = min(run.laps), run.last
    if first == last:
        told = f"{shown} is {run.laps[last]} in lap {last}"
    else:
        words = {
            BETTER: "and is better",
            WORSE: "and is worse",
            TIED: "which is a tie",
            UNKNOWN: "which cannot be compared",
        }
        verdict = words[compared(run.laps[last], run.laps[first], better)]
        told = f"{shown} goes from {run.laps[first]} in lap {first} to {run.laps[last]} in lap"
        told += f" {last}, {verdict}"
    if run.chosen == 0:
        told += f"; the Gaussian prior ({run.floor}) is chosen"
    elif run.floor is not None and run.result is not None:
        beside = {
            BETTER: "is better than",
            WORSE: "is worse than",
            TIED: "ties with",
            UNKNOWN: "cannot be compared with",
        }
        verdict = beside[compared(run.result, run.floor, better)]
        told += f"; the {_used(run)} lap's prior {verdict} the Gaussian prior ({run.floor})"
    return f"{told}."


def _told_of_several(runs: Sequence[_Run], shown: str, better: str) -> str:
    """Returns the main result of several runs in words."""
    verdicts = [_beside_gaussian(run, better) for run in runs]
    words = {
        BETTER: "better than the Gaussian prior",
        TIED: "a tie with the Gaussian prior",
        WORSE: "worse than the Gaussian prior",
        ITSELF: "the Gaussian prior itself",
        UNKNOWN: "not to be compared with the Gaussian prior",
    }
    counts = [f"{told} in {verdicts.count(v)}" for v, told in words.items() if v in verdicts]
    unknown = "" if _has_errors(runs) else " (by how much beyond chance is not known)"
    return (
        f"{shown}: the prior of the {_used(runs[0])} lap is {', '.join(counts)} of {len(runs)}"
        f" runs{unknown}."
    )


def _beside_gaussian(run: _Run, better: str) -> str:
    """Returns what the prior to use is beside the Gaussian, which it may be itself."""
    if run.chosen == 0:
        return ITSELF
    if run.result is None or run.floor is None:
        return UNKNOWN
    return compared(run.result, run.floor, better)


def _used(run: _Run) -> str:
    return "last" if run.chosen is None else "chosen"


def _has_errors(runs: Sequence[_Run]) -> bool:
    return any(number.error is not None for run in runs for number in run.laps.values())


def _table(runs: Sequence[_Run], better: str, selects: bool) -> Table:
    """Returns the numbers of all runs; columns that none of them has are left out."""
    several = any(len(run.laps) > 1 for run in runs)
    columns: dict[str, list[Any]] = {"Run": [run.title for run in runs]}
    if selects:
        columns["Lap to use"] = [_choice(run) for run in runs]
    columns["90 % intervals hold (%)"] = [run.coverage for run in runs]
    columns["Gaussian (floor)"] = [run.floor for run in runs]
    if several:
        columns["First lap"] = [run.laps[min(run.laps)] for run in runs]
    if selects:
        columns["Chosen lap"] = [run.result for run in runs]
    columns["Last lap"] = [run.laps[run.last] for run in runs]
    columns["Clean data (ceiling)"] = [run.ceiling for run in runs]
    if several:
        columns["First to last"] = [
            compared(run.laps[run.last], run.laps[min(run.laps)], better) for run in runs
        ]
    kept = {key: told for key, told in columns.items() if any(x is not None for x in told)}
    body = [
        [Cell(NONE if told[i] is None else str(told[i])) for told in kept.values()]
        for i in range(len(runs))
    ]
    return Table(list(kept), body)


def _notes(runs: Sequence[_Run], shown: str, rows: pd.DataFrame) -> Iterator[str]:
    """Yields what the numbers of a table are."""
    several = seed_count(rows["seed"].iloc[0]) > 1
    laps = "; ".join(dict.fromkeys(f"{min(r.laps)} and {r.last}" for r in runs))
    yield f"{shown}. First and last evaluated laps: {laps}."
    if runs[0].chosen is not None:
        first = " of the first seed" if several else ""
        yield (
            "The lap to use and those that could be as good are told by validation observations"
            f"{first}."
        )
    if _has_errors(runs):
        yield from errors_of(rows)
        few = ", of few seeds by Student's t," if several else ""
        yield f"Numbers within two standard errors of their difference{few} are a tie."
    else:
        yield (
            "This metric is one number of all samples and has no standard error: whether a small"
            " difference is more than chance is not known."
        )


def _choice(run: _Run) -> str:
    """Returns which lap is chosen, and which could be as good."""
    names = [str(lap) if lap else "Gaussian" for lap in [run.chosen or 0, *sorted(run.tied)]]
    return names[0] + (f" (tie: {', '.join(names[1:])})" if run.tied else "")


def _strip(run: _Run, better: str) -> list[Mark]:
    """Returns the marks of a run, if its values differ."""
    found = [("floor", run.floor, "Gaussian prior")]
    found += [("lap", number, f"lap {lap}") for lap, number in sorted(run.laps.items())]
    found.append(("ceiling", run.ceiling, "clean data"))
    if run.chosen:
        found.append(("chosen", run.at(run.chosen), f"lap {run.chosen}, chosen"))
    there = [(kind, n, text) for kind, n, text in found if n and math.isfinite(n.value)]
    values = [number.value for _, number, _ in there]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return []
    worst = high if better == "↓" else low
    return [
        Mark(kind, abs(number.value - worst) / (high - low), f"{text}: {number}")
        for kind, number, text in there
    ]
