"""The style that all figures share: sizes, colours, captions, and how a figure is written."""

import textwrap
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from diem.files.atomic import atomic

__all__ = ["GREY", "MISSING", "WIDTH", "annotate", "colours", "save", "styled", "widely_scaled"]

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
    """
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    with atomic(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=metadata)


def annotate(figure: Figure, title: str, note: str) -> None:
    """Writes a title above a figure, and below it what made its numbers."""
    columns = int(figure.get_figwidth() * 20)  # characters that fit the width in this size
    lines = [textwrap.fill(line, columns) for line in note.splitlines()]
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", color=GREY)


def widely_scaled(ax: Axes, values: np.ndarray | pd.Series) -> bool:
    """Makes the vertical axis logarithmic where values span a wide range, and tells whether it is.

    Arguments:
        ax: The axes.
        values: The values that it shows.
    """
    wide = bool(values.min() > 0 and values.max() > 4 * values.min())
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
