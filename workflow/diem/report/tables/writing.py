"""Tables for the eye: rounded text with notes, written as Markdown, LaTeX and HTML beside a CSV."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from diem.evaluation.rows import software
from diem.evaluation.standard_error import tie_margin
from diem.files.atomic import atomic
from diem.files.tables import write_csv

__all__ = [
    "BOLD",
    "NONE",
    "Readable",
    "best_cells",
    "closing_note",
    "decimals",
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
        bold: The cells that are bold, by row and column.
    """

    header: list[list[str]]
    body: list[list[str]]
    text_columns: int
    notes: list[str]
    bold: Set[tuple[int, int]] = frozenset()


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
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def with_error(value: float | None, error: float | None) -> str:
    """Returns a number and its standard error, rounded to the first digits of the error."""
    if value is None or error is None or not (math.isfinite(value) and 0 < error < math.inf):
        return rounded(value)
    digits = decimals(error)
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def decimals(error: float) -> int:
    """Returns how many decimals a number of a standard error has: to the error's first digits."""
    exponent = math.floor(math.log10(error))
    return max(0, 1 - exponent if error < 2 * 10**exponent else -exponent)


def numeric_cell(row: Mapping[Any, Any] | pd.Series, name: str) -> str:
    """Returns a number of a row, with the error that stands in the column ``standard error of``."""
    return with_error(row[name], row.get(f"standard error of {name}"))


BOLD = (
    "Bold: the best of those that are compared, and what is within two standard errors of their"
    " difference from it, where there are such; of few seeds by Student's t."
)


def best_cells(
    table: pd.DataFrame,
    groups: Sequence[Any],
    columns: Mapping[int, tuple[str, str]],
    seeds: int = 1,
) -> set[tuple[int, int]]:
    """Returns the cells of the best numbers, and of those that could be as good.

    Arguments:
        table: The table at full precision, with errors in columns ``standard error of`` ...
        groups: Of each row what it is compared with, the rows of the same group; a row of
            :py:`None` is not compared, and one alone is not the best.
        columns: By column of the readable table, that of the table, and where better values are,
            ``↓`` or ``↑``; those without a direction have no best.
        seeds: Over how many seeds the numbers are means.
    """
    found = set()
    members = {group: [i for i, g in enumerate(groups) if g == group] for group in set(groups)}
    members.pop(None, None)
    for column, (name, better) in columns.items():
        values = pd.to_numeric(table[name]).to_numpy() * (1 if better == "↓" else -1)
        told = table.get(f"standard error of {name}", pd.Series(0.0, table.index))
        errors = pd.to_numeric(told).fillna(0.0).to_numpy()
        for rows in members.values():
            known = [i for i in rows if math.isfinite(values[i])]
            if better and len(known) > 1:
                best = min(known, key=lambda i: values[i])
                for i in known:
                    if values[i] - values[best] <= tie_margin(errors[i], errors[best], seeds):
                        found.add((i, column))
    return found


def markdown(table: Readable) -> str:
    """Returns a table as Markdown, with its notes as a list below."""
    header = [" ".join(lines) for lines in table.header]
    rule = ["---" if i < table.text_columns else "---:" for i in range(len(header))]
    escaped = [[_plain(cell) for cell in row] for row in (header, *table.body)]
    for i, j in table.bold:
        escaped[i + 1][j] = f"**{escaped[i + 1][j]}**"
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
        cells = [
            rf"\textbf{{{_escaped(cell)}}}" if (i, j) in table.bold else _escaped(cell)
            for j, cell in enumerate(row)
        ]
        body.append(" & ".join(cells) + r" \\")
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
    body = [[escape(cell, quote=False) for cell in row] for row in shown.body]
    for i, j in shown.bold:
        body[i][j] = f"<b>{body[i][j]}</b>"
    columns = [escape(" ".join(lines), quote=False) for lines in shown.header]
    frame = pd.DataFrame(body, columns=columns)
    told = [escape(note, quote=False) for note in shown.notes]
    notes = pd.Series(told, name="How each number was made").to_frame()
    style = (
        "<style>body {font: 14px sans-serif; margin: 1em} table {border-collapse: collapse;"
        " margin-bottom: 2em} th, td {padding: 0.3em 0.7em; border-bottom: 1px solid #bbb;"
        " text-align: left; vertical-align: bottom}</style>"
    )
    tables = [table.to_html(index=False, border=0, escape=False) for table in (frame, notes)]
    return "\n".join(["<!doctype html>", '<meta charset="utf-8">', style, *tables, ""])


def _escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "±": r"$\pm$",
        "<": "$<$",
        ">": "$>$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)
