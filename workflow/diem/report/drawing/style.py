"""The style that all figures share: sizes, colours, captions, and how a figure is written."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from diem.errors import DiemError
from diem.files.atomic import atomic

__all__ = [
    "GREY",
    "MISSING",
    "WIDTH",
    "annotate",
    "colours",
    "fitted",
    "legend_below",
    "save",
    "shortened",
    "styled",
    "text_width",
    "widely_scaled",
]

# The user's own settings of Matplotlib have no say.
styled = matplotlib.style.context(["default", Path(__file__).with_name("diem.mplstyle")])

WIDTH = 7.0
"""The width of a figure, in inches."""

MISSING = (0.90, 0.62, 0.0)
"""The colour of missing pixels, Okabe and Ito's orange, which no grey value is taken for."""

GREY = "0.4"
"""The colour of notes and of lines that only compare."""


@styled
def save(figure: Figure, path: str | Path, kind: str) -> None:
    """Writes a figure, whole or not at all; the same figure gives the same bytes.

    Arguments:
        figure: The figure.
        path: The file.
        kind: ``pdf`` or ``png``.

    Raises:
        DiemError: If it is no figure of Matplotlib, as that of a user's own may be.
    """
    if not hasattr(figure, "savefig"):
        raise DiemError(
            f"{path}: the figure's method draw returns {type(figure).__name__}, where a"
            " matplotlib.figure.Figure is needed."
        )
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    with atomic(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=metadata)


def annotate(figure: Figure, title: str, note: str, beside: float = 0.0) -> None:
    """Writes a title above a figure, and below it what made its numbers.

    Arguments:
        figure: The figure, which grows by the title's lines after the first.
        title: The title.
        note: The note, whose lines are broken where they are too long.
        beside: The width of what stands at the title's right, in inches.
    """
    width = 0.99 * figure.get_figwidth()
    columns = int(figure.get_figwidth() * 20)  # characters that fit the width in this size
    lines = [fitted(line, width, 7, columns=columns) for line in note.splitlines()]
    # Bold letters of pixels are a little wider than those of outlines.
    heading = fitted(title, 0.97 * width - beside, 9, "bold")
    figure.set_figheight(figure.get_figheight() + 0.15 * heading.count("\n"))
    figure.suptitle(heading, x=0.01, ha="left")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", color=GREY)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Returns the width of a line of text in inches.

    Arguments:
        text: The text.
        size: The size of the font, in points.
        weight: The weight of the font.
    """
    if not text.strip():  # it has no outlines
        return 0.0
    path = TextPath((0, 0), text, prop=FontProperties(size=size, weight=weight))
    return float(path.get_extents().x1) / 72


def fitted(
    text: str, width: float, size: float, weight: str = "normal", columns: int | None = None
) -> str:
    """Breaks a text into lines that fit a width, at spaces where that is possible.

    Arguments:
        text: The text, whose dollars are escaped.
        width: The width, in inches.
        size: The size of the font, in points.
        weight: The weight of the font.
        columns: The characters of a line, at most.
    """
    plain = text.replace(r"\$", "$")  # an escaped dollar must not be broken
    columns = columns or len(plain) or 1
    while True:
        lines = [line.replace("$", r"\$") for line in textwrap.wrap(plain, columns)]
        widest = max((text_width(line, size, weight) for line in lines), default=0.0)
        if widest <= width or columns == 1:
            return "\n".join(lines)
        columns = max(1, min(columns - 1, int(columns * width / widest)))


def shortened(text: str, count: int) -> str:
    """Returns a text of at most so many characters: what is too long has its middle left out.

    Names of runs often differ at their end only.

    Arguments:
        text: The text, whose dollars are escaped.
        count: The number of characters, three or more.
    """
    plain = text.replace(r"\$", "$")
    if len(plain) <= count:
        return text
    end = (count - 1) // 2
    return f"{plain[: count - 1 - end]}…{plain[-end:]}".replace("$", r"\$")


def legend_below(figure: Figure, lines: Mapping[str, Mapping[str, Any]]) -> SubFigure:
    """Adds a legend of lines below all panels, and returns the part of the figure to draw these in.

    Arguments:
        figure: The figure, which grows by the legend.
        lines: The style of each line, by its name.
    """
    names = [shortened(name, 60) for name in lines]
    columns = int(0.97 * WIDTH / (0.55 + max(text_width(name, 7) for name in names)))
    columns = max(1, min(columns, len(names)))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(names) // columns) + 0.1)
    # In a part of its own the legend stands above the figure's note.
    part: Any = figure.subfigures()
    handles = [Line2D([], [], **style) for style in lines.values()]
    settings: dict[str, Any] = {"ncols": columns, "fontsize": 7, "frameon": False}
    part.legend(handles, names, loc="outside lower left", handlelength=3.5, **settings)
    return part


def widely_scaled(ax: Axes, values: np.ndarray | pd.Series) -> bool:
    """Makes the vertical axis logarithmic where values span a wide range, and tells whether it is.

    Arguments:
        ax: The axes.
        values: The values that it shows.
    """
    finite = values[np.isfinite(values)]
    wide = bool(len(finite) and finite.min() > 0 and finite.max() > 4 * finite.min())
    if wide:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    return wide


def colours(images: np.ndarray) -> np.ndarray:
    """Returns images (..., C, H, W) in [-2, 2], NaN where missing, as colours (..., H, W, 3)."""
    x = np.moveaxis(np.clip((images + 2) / 4, 0, 1), -3, -1)
    x = np.broadcast_to(x, (*x.shape[:-1], 3))
    return np.where(np.isnan(x), MISSING, x)
