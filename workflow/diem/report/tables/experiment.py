"""The table of an experiment: floors, the last laps of the runs, and ceilings."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from diem.evaluation.metrics import Entries, Label, labels
from diem.evaluation.rows import errors_of, provenance, seed_count
from diem.report.tables.labels import (
    NO_LABELS,
    SUBJECTS,
    Ceilings,
    heading_of,
    label_of,
    metric_label,
)
from diem.report.tables.writing import (
    BOLD,
    NONE,
    Readable,
    best_cells,
    closing_note,
    names_by_text,
    notes_once,
    numeric_cell,
)

__all__ = ["readable_summary", "summary"]

STAGES = {"floor": " (fitted Gaussian)", "lap": "", "ceiling": " (clean data)"}
"""What stands behind the label of a prior, by its stage."""

SHORT = {"posterior": "of samples", "posterior_mean": "of means"}
"""How a heading tells the columns of one metric apart, by the subject."""


def summary(
    rows: pd.DataFrame,
    runs: Mapping[str, Mapping[str, str]],
    metrics: Entries = (),
    ceilings: Ceilings = NO_LABELS,
) -> pd.DataFrame:
    """Returns the table of an experiment at full precision, with the card of each number beside it.

    Each set of observations has its floor, the last lap of each run, and its ceilings, in this
    order. The samples that a lap was trained on (the subject ``e_step``) are left to the rows.

    Arguments:
        rows: The experiment's metric rows.
        runs: The ``label`` and ``covariance`` of each run.
        metrics: The experiment's ``evaluation.metrics``, for the labels of the user's own.
        ceilings: What ceilings are called, see :func:`diem.em.laps.ceiling_labels`.
    """
    table, known = [], labels(metrics)
    for prior in _priors(rows):
        first = prior.iloc[0]
        run = runs[first["run"]] if first["stage"] == "lap" else {}
        entry = {
            **{key: first[key] for key in ("experiment", "observations", "stage", "run")},
            "label": run.get("label") or _bound(first, ceilings),
            "covariance": run.get("covariance", ""),
            **{key: first[key] for key in ("lap", "optimizer_steps", "seed", "diem", "torch")},
        }
        for metric, subject in _columns(rows, known):
            label = metric_label(metric, _extractor(rows[rows["metric"] == metric]), known)
            name = f"{label} of {SUBJECTS.get(subject, subject)}"
            cell = prior[(prior["metric"] == metric) & (prior["subject"] == subject)]
            entry[name] = cell["value"].iloc[0] if len(cell) else None
            error = cell["standard_error"].iloc[0] if len(cell) else ""
            if error:
                entry[f"standard error of {name}"] = float(error)
            entry[f"card of {name}"] = provenance(cell.iloc[0]) if len(cell) else None
        table.append(entry)
    return pd.DataFrame(table)


def readable_summary(
    rows: pd.DataFrame,
    runs: Mapping[str, Mapping[str, str]],
    metrics: Entries = (),
    ceilings: Ceilings = NO_LABELS,
) -> Readable:
    """Returns the same table as :func:`summary` for the eye, its cards gathered in notes.

    Arguments:
        rows: The experiment's metric rows.
        runs: The ``label`` and ``covariance`` of each run.
        metrics: The experiment's ``evaluation.metrics``, for the labels of the user's own.
        ceilings: What ceilings are called, see :func:`diem.em.laps.ceiling_labels`.
    """
    full, known = summary(rows, runs, metrics, ceilings), labels(metrics)
    values = [name for name in full.columns if f"card of {name}" in full.columns]
    header = [["Observations"], ["Prior"], ["Covariance"], ["Lap"], ["Optimizer", "steps"]]
    for metric, subject in _columns(rows, known):
        several = sum(name == metric for name, _ in _columns(rows, known)) > 1
        header.append(heading_of(metric, known, SHORT.get(subject, subject) if several else ""))

    body = []
    for _, row in full.iterrows():
        lap = row["lap"] if row["stage"] == "lap" else NONE
        prior = f"{row['label']}{STAGES[row['stage']]}"
        words = [row["observations"], prior, row["covariance"] or NONE]
        numbers = [str(lap), f"{int(row['optimizer_steps']):,}"]
        body.append(words + numbers + [numeric_cell(row, name) for name in values])

    # Ceilings have seen clean data, and are no rivals.
    pairs = zip(full["observations"], full["stage"], strict=True)
    groups = [None if stage == "ceiling" else observations for observations, stage in pairs]
    arrows = [label_of(metric, known).better for metric, _ in _columns(rows, known)]
    directed = zip(values, arrows, strict=True)
    columns = dict(enumerate(directed, len(header) - len(values)))
    bold = best_cells(full, groups, columns, seed_count(full["seed"].iloc[0]))
    notes = [*([BOLD] if bold else []), *errors_of(full), *_notes(full, values)]
    notes.append(closing_note(full.iloc[0]))
    return Readable(header, body, 3, notes, bold)


def _bound(row: pd.Series, ceilings: Ceilings) -> str:
    """Returns what a floor or a ceiling is called."""
    return ceilings.get(row["observations"], {}).get(row["run"], row["stage"])


def _priors(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Returns the rows of each prior of the summary, in its order."""
    stages = list(STAGES)
    found: dict[Any, pd.DataFrame] = {}
    for key, group in rows.groupby(["observations", "stage", "run"], sort=False):
        found[key] = group[group["lap"] == group["lap"].max()]
    sets = list(rows["observations"].unique())
    # Sorting is stable: runs stay in the order of the rows.
    keys = sorted(found, key=lambda key: (sets.index(key[0]), stages.index(key[1])))
    return [found[key] for key in keys]


def _columns(rows: pd.DataFrame, known: Mapping[str, Label]) -> list[tuple[str, str]]:
    """Returns the pairs of metric and subject that the rows have, known metrics first."""
    every = dict.fromkeys(zip(rows["metric"], rows["subject"], strict=True))
    pairs = [
        (metric, subject)
        for metric, subject in every
        if subject != "e_step" and label_of(metric, known).summary
    ]
    order = list(known)
    return sorted(pairs, key=lambda p: order.index(p[0]) if p[0] in order else len(order))


def _notes(full: pd.DataFrame, values: Sequence[str]) -> list[str]:
    """Returns what made the numbers of a summary, said once for all columns that it is of."""
    of_columns = []
    for name in values:
        cards = zip(full["label"], full[f"card of {name}"], strict=True)
        labels_of = names_by_text((label, text) for label, text in cards if isinstance(text, str))
        if len(labels_of) == 1:
            note = next(iter(labels_of))
        else:
            note = "; ".join(f"{', '.join(labels)}: {text}" for text, labels in labels_of.items())
        of_columns.append((name, note))
    return notes_once(of_columns)


def _extractor(rows: pd.DataFrame) -> str:
    names = [name for name in rows["extractor"].unique() if name]
    return " and ".join(names)
