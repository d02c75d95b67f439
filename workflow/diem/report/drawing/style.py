"""The style that all figures share: sizes, colours, captions, and how a figure is written."""

import textwrap
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from diem.files.atomic import atomic

__all__ = ["GREY", "MISSING", "WIDTH", "annotate", "colours", "save", "styled"]

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


def colours(images: np.ndarray) -> np.ndarray:
    """Returns images (..., C, H, W) in [-2, 2], NaN where missing, as colours (..., H, W, 3)."""
    x = np.moveaxis(np.clip((images + 2) / 4, 0, 1), -3, -1)
    x = np.broadcast_to(x, (*x.shape[:-1], 3))
    return np.where(np.isnan(x), MISSING, x)
