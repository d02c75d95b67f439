"""Tables for the eye, read back from the pages that :mod:`diem.report.tables.writing` writes."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from diem.errors import DiemError
from diem.files.atomic import REMEDY

__all__ = ["Cell", "Table", "read_table"]

NUMBER = re.compile(r"(< )?[-+−±.,\d\s%e]*\d[-+−±.,\d\s%e]*|-|NaN|inf", re.IGNORECASE)
"""What a cell of a column of numbers holds; a dash where there is none."""


class Cell(NamedTuple):
    """A cell.

    Attributes:
        text: What it says.
        best: Whether it is written in bold.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: The columns' names.
        body: The cells, row by row.
        notes: What made the numbers, a sentence each.
    """

    header: list[str]
    body: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        columns = zip(*self.body, strict=True) if self.body else ([] for _ in self.header)
        return [
            any(any(c.isdigit() for c in cell.text) for cell in column)
            and all(NUMBER.fullmatch(cell.text) for cell in column)
            for column in map(list, columns)
        ]


class _Tables(HTMLParser):
    """Collects the rows of all tables of a page: pairs of a tag and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, Cell]]]] = []
        self.cell: list[str] | None = None
        self.bold = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell, self.bold = [], False
        elif tag in ("b", "strong"):
            self.bold = True
        elif tag == "br" and self.cell is not None:
            self.cell.append(" ")

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            found = Cell(" ".join("".join(self.cell).split()), self.bold)
            self.tables[-1][-1].append((tag, found))
            self.cell = None


def read_table(path: str | Path) -> Table:
    """Reads a table, and the notes of the table below it.

    Raises:
        DiemError: If the file is missing, or holds no such tables.
    """
    parser = _Tables()
    try:
        parser.feed(Path(path).read_text(encoding="utf-8"))
        parser.close()
        table, notes = parser.tables
        header, *body = table
    except (OSError, ValueError, IndexError):
        raise DiemError(f"{path}: this is no table of this workflow: {REMEDY}.") from None
    cells = [[cell for _, cell in row] for row in body]
    if not header or any(len(row) != len(header) for row in cells):
        raise DiemError(f"{path}: this table is damaged: {REMEDY}.")
    told = [row[0][1].text for row in notes if row and row[0][0] == "td"]
    return Table([cell.text for _, cell in header], cells, told)
