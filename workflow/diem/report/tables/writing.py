"""Tables for the eye: rounded text with notes, written as Markdown, LaTeX and HTML beside a CSV."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from diem.evaluation.rows import software
from diem.files.atomic import atomic
from diem.files.tables import write_csv

__all__ = [
    "NONE",
    "Readable",
    "closing_note",
    "html",
    "latex",
    "markdown",
    "names_by_text",
    "notes_once",
    "numeric_cell",
    "rounded",
    "with_error",
    "write_table",
]

NONE = "-"
"""What stands where there is nothing."""


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


def write_table(files: Mapping[str, str], table: pd.DataFrame, shown: Readable) -> None:
    """Writes a table at full precision and for the eye.

    Arguments:
        files: The paths by kind: ``csv``, ``markdown``, ``latex`` and ``html``.
        table: The table at full precision.
        shown: The same for the eye.
    """
    write_csv(files["csv"], table)
    texts = {
        "markdown": markdown(shown),
        "latex": latex(shown),
        "html": html(shown),
    }
    for kind, text in texts.items():
        with atomic(files[kind]) as temporary:
            temporary.write_text(text, encoding="utf-8")


def names_by_text(labelled: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Returns the names of each text, both in the order of their first appearance.

    Arguments:
        labelled: Pairs of a name and its text; a pair that repeats is left out.
    """
    names: dict[str, list[str]] = {}
    for name, text in dict.fromkeys(labelled):
        names.setdefault(text, []).append(name)
    return names


def notes_once(labelled: Iterable[tuple[str, str]], separator: str = ", ") -> list[str]:
    """Returns notes that each say a text once, after the names of all that it is of.

    Arguments:
        labelled: Pairs of a name and its text.
        separator: What stands between names.
    """
    by_text = names_by_text(labelled)
    return [f"{separator.join(names)}: {text}." for text, names in by_text.items()]


def closing_note(row: Mapping[Any, Any] | pd.Series) -> str:
    """Returns the last note of a table of metric rows: the seed and the versions of one of them."""
    text = software(row)
    return f"{text[0].upper()}{text[1:]}."


def rounded(value: float | None) -> str:
    """Returns a number with three significant digits, or a dash where there is none."""
    if value is None or pd.isna(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def with_error(value: float | None, error: float | None) -> str:
    """Returns a number and its standard error, rounded to the first digits of the error."""
    if value is None or error is None or not (math.isfinite(value) and 0 < error < math.inf):
        return rounded(value)
    exponent = math.floor(math.log10(error))
    digits = max(0, 1 - exponent if error < 2 * 10**exponent else -exponent)
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def numeric_cell(row: Mapping[Any, Any] | pd.Series, name: str) -> str:
    """Returns a number of a row, with the error that stands in the column ``standard error of``."""
    return with_error(row[name], row.get(f"standard error of {name}"))


def markdown(table: Readable) -> str:
    """Returns a table as Markdown, with its notes as a list below."""
    header = [" ".join(lines) for lines in table.header]
    rule = ["---" if i < table.text_columns else "---:" for i in range(len(header))]
    escaped = [[_plain(cell) for cell in row] for row in (header, *table.body)]
    lines = [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]
    return "\n".join([*lines, "", *(f"- {_plain(note)}" for note in table.notes), ""])


def _plain(text: str) -> str:
    """Returns text in which Markdown finds neither HTML nor the end of a cell."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|")


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


def html(shown: Readable) -> str:
    """Returns a table as a page of its own, for the report."""
    frame = pd.DataFrame(shown.body, columns=[" ".join(lines) for lines in shown.header])
    notes = pd.Series(shown.notes, name="How each number was made").to_frame()
    style = (
        "<style>body {font: 14px sans-serif; margin: 1em} table {border-collapse: collapse;"
        " margin-bottom: 2em} th, td {padding: 0.3em 0.7em; border-bottom: 1px solid #bbb;"
        " text-align: left; vertical-align: bottom}</style>"
    )
    tables = [table.to_html(index=False, border=0) for table in (frame, notes)]
    return "\n".join(["<!doctype html>", '<meta charset="utf-8">', style, *tables, ""])


def _escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "±": r"$\pm$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)
