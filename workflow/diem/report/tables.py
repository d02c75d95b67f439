"""Tables of metric rows: the summary of an experiment, as CSV, Markdown, LaTeX and HTML.

A row is one number with its card, see :data:`diem.evaluation.rows.CARD`. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from diem.evaluation.metrics import Label, labels
from diem.evaluation.rows import provenance as card
from diem.evaluation.rows import read_rows, write_rows
from diem.files.atomic import atomic

__all__ = [
    "METRICS",
    "SUBJECTS",
    "Readable",
    "card",
    "html",
    "latex",
    "markdown",
    "metric_label",
    "read_rows",
    "readable",
    "reconstructions",
    "reconstructions_readable",
    "rounded",
    "summary",
    "write",
    "write_rows",
]


METRICS = labels()
"""How metrics are presented, in the order of the tables' columns."""

STAGES = {"floor": "floor (fitted Gaussian)", "lap": "", "ceiling": "ceiling (clean data)"}
SUBJECTS = {
    "prior": "prior samples",
    "posterior": "posterior samples",
    "posterior_mean": "posterior means",
}
"""How the subjects of metrics are told."""

NONE = "-"


def metric_label(metric: str, extractor: str = "") -> str:
    """Returns a metric's name with its unit, for an axis or a column.

    Arguments:
        metric: The name in the rows; one that is not in :data:`METRICS` stands for itself.
        extractor: The name of the rows' feature extractor.
    """
    name, unit, *_ = METRICS.get(metric, Label(metric.replace("_", " ")))
    return f"{name} ({unit.format(extractor=extractor)})" if unit else name


def summary(rows: pd.DataFrame, runs: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Returns the table of an experiment at full precision, with the card of each number beside it.

    Each set of observations has its floor, the last lap of each run, and its ceiling, in this
    order. The samples that a lap was trained on (the subject ``e_step``) are left to the rows.

    Arguments:
        rows: The experiment's metric rows.
        runs: The ``label`` and ``covariance`` of each run.
    """
    table = []
    for prior in _priors(rows):
        first = prior.iloc[0]
        run = runs[first["run"]] if first["stage"] == "lap" else {}
        entry = {
            **{key: first[key] for key in ("experiment", "observations", "stage", "run")},
            "label": run.get("label", first["stage"]),
            "covariance": run.get("covariance", ""),
            **{key: first[key] for key in ("lap", "optimizer_steps", "seed", "diem", "torch")},
        }
        for metric, subject in _columns(rows):
            name = f"{metric_label(metric, _extractor(rows))} of {SUBJECTS.get(subject, subject)}"
            cell = prior[(prior["metric"] == metric) & (prior["subject"] == subject)]
            entry[name] = cell["value"].iloc[0] if len(cell) else None
            entry[f"card of {name}"] = card(cell.iloc[0]) if len(cell) else None
        table.append(entry)
    return pd.DataFrame(table)


@dataclass(frozen=True)
class Readable:
    """A table of rounded text.

    Attributes:
        header: The columns' names, each a list of lines.
        body: The cells, row by row.
        text_columns: The number of leading columns that hold words.
        notes: What made the numbers, a sentence each.
    """

    header: list[list[str]]
    body: list[list[str]]
    text_columns: int
    notes: list[str]


def write(files: Mapping[str, str], table: pd.DataFrame, made: Readable) -> None:
    """Writes a table at full precision and for the eye.

    Arguments:
        files: The paths by kind: ``csv``, ``markdown``, ``latex`` and ``html``.
        table: The table at full precision.
        made: The same for the eye.
    """
    texts = {
        "csv": table.to_csv(index=False),
        "markdown": markdown(made),
        "latex": latex(made),
        "html": html(made),
    }
    for kind, text in texts.items():
        with atomic(files[kind]) as temporary:
            temporary.write_text(text, encoding="utf-8")


def readable(rows: pd.DataFrame, runs: Mapping[str, Mapping[str, str]]) -> Readable:
    """Returns the same table as :func:`summary` for the eye, its cards gathered in notes.

    Arguments:
        rows: The experiment's metric rows.
        runs: The ``label`` and ``covariance`` of each run.
    """
    full = summary(rows, runs)
    values = [name for name in full.columns if f"card of {name}" in full.columns]
    header = [["Observations"], ["Prior"], ["Covariance"], ["Lap"], ["Optimizer", "steps"]]
    for metric, subject in _columns(rows):
        name, unit, better, _ = METRICS.get(metric, Label(metric.replace("_", " ")))
        unit = f"({unit.format(extractor=_extractor(rows))})" if unit else ""
        subject = f"of {SUBJECTS.get(subject, subject)} {better}".strip()
        header.append([line for line in (name, unit, subject) if line])

    body = []
    for _, row in full.iterrows():
        lap = row["lap"] if row["stage"] == "lap" else NONE
        prior = STAGES[row["stage"]] or row["label"]
        words = [row["observations"], prior, row["covariance"] or NONE]
        numbers = [str(lap), f"{int(row['optimizer_steps']):,}"]
        body.append(words + numbers + [rounded(row[name]) for name in values])

    first = full.iloc[0]
    end = f"Seed {first['seed']}, diem {first['diem']}, PyTorch {first['torch']}."
    return Readable(header, body, 3, [*_notes(full, values), end])


def reconstructions(
    rows: pd.DataFrame, labels: Mapping[str, str], trained: Mapping[str, str]
) -> pd.DataFrame:
    """Returns the table of reconstructions at full precision, with the card of each number.

    Arguments:
        rows: The rows of several :func:`diem.evaluation.reconstruct.reconstruct`.
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
        entry = table.setdefault(
            (row["observations"], method, run, estimate),
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
        entry[f"card of {row['metric']}"] = card(row)
    return pd.DataFrame(list(table.values()))


def reconstructions_readable(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`reconstructions` for the eye."""
    metrics = [name for name in METRICS if name in table]
    header = [["Observations"], ["Prior trained on"], ["Method"], ["Estimate"]]
    header += [[metric_label(name), METRICS[name].better] for name in metrics]
    body, made = [], {}
    for row in table.to_dict("records"):
        words = [row["observations"], row["trained_on"] or NONE, row["method"], row["estimate"]]
        body.append(words + [rounded(row[name]) for name in metrics])
        told = made.setdefault(row[f"card of {metrics[0]}"], [])
        name = f"{row['method']} ({row['estimate']})"
        if name not in told:
            told.append(name)
    first = table.iloc[0]
    notes = [f"{', '.join(names)}: {text}." for text, names in made.items()]
    end = f"Seed {first['seed']}, diem {first['diem']}, PyTorch {first['torch']}."
    return Readable(header, body, 4, [*notes, end])


def markdown(table: Readable) -> str:
    """Returns a table as Markdown, with its notes as a list below."""
    header = [" ".join(lines) for lines in table.header]
    rule = ["---" if i < table.text_columns else "---:" for i in range(len(header))]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, *table.body)]
    lines = [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def latex(table: Readable) -> str:
    """Returns a table as LaTeX that needs the package booktabs, with its notes below."""
    columns = "l" * table.text_columns + "r" * (len(table.header) - table.text_columns)
    header = []
    for kind, lines in zip(columns, table.header, strict=True):
        stacked = r"\\".join(_escaped(line) for line in lines)
        header.append(rf"\shortstack[{kind}]{{{stacked}}}")
    body = []
    for i, row in enumerate(table.body):
        if i and row[0] != table.body[i - 1][0]:
            body.append(r"\midrule")
        body.append(" & ".join(_escaped(cell) for cell in row) + r" \\")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip",
            r"{\footnotesize",
            *(rf"{_escaped(note)}\par" for note in table.notes),
            "}",
            "",
        ]
    )


def html(table: Readable) -> str:
    """Returns a table as a page of its own, for the report."""
    frame = pd.DataFrame(table.body, columns=[" ".join(lines) for lines in table.header])
    notes = pd.Series(table.notes, name="How each number was made").to_frame()
    style = (
        "<style>body {font: 14px sans-serif; margin: 1em} table {border-collapse: collapse;"
        " margin-bottom: 2em} th, td {padding: 0.3em 0.7em; border-bottom: 1px solid #bbb;"
        " text-align: left; vertical-align: bottom}</style>"
    )
    tables = [part.to_html(index=False, border=0) for part in (frame, notes)]
    return "\n".join(["<!doctype html>", '<meta charset="utf-8">', style, *tables, ""])


def _priors(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Returns the rows of each prior of the summary, in its order."""
    stages = list(STAGES)
    found = {}
    for key, group in rows.groupby(["observations", "stage", "run"], sort=False):
        found[key] = group[group["lap"] == group["lap"].max()]
    sets = list(rows["observations"].unique())
    # Sorting is stable: runs stay in the order of the rows.
    keys = sorted(found, key=lambda key: (sets.index(key[0]), stages.index(key[1])))
    return [found[key] for key in keys]


def _columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns the pairs of metric and subject that the rows have, known metrics first."""
    pairs = dict.fromkeys(zip(rows["metric"], rows["subject"], strict=True))
    pairs = [pair for pair in pairs if pair[1] != "e_step"]
    order = list(METRICS)
    return sorted(pairs, key=lambda p: order.index(p[0]) if p[0] in order else len(order))


def _notes(full: pd.DataFrame, values: Sequence[str]) -> list[str]:
    """Returns the cards of a summary, each told once for all numbers that it is of."""
    told: dict[str, list[str]] = {}
    for name in values:
        made: dict[str, list[str]] = {}
        for text, label in zip(full[f"card of {name}"], full["label"], strict=True):
            if isinstance(text, str) and label not in made.setdefault(text, []):
                made[text].append(label)
        if len(made) == 1:
            note = next(iter(made))
        else:
            note = "; ".join(f"{', '.join(labels)}: {text}" for text, labels in made.items())
        told.setdefault(note, []).append(name)
    return [f"{', '.join(names)}: {note}." for note, names in told.items()]


def _extractor(rows: pd.DataFrame) -> str:
    names = [name for name in rows["extractor"].unique() if name]
    return " and ".join(names)


def rounded(value: float | None) -> str:
    """Returns a number with three significant digits, or a dash where there is none."""
    if value is None or pd.isna(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)
