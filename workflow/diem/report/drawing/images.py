"""Samples side by side: rows of images, and columns of curves for what is no image."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diem.errors import DiemError
from diem.report.drawing.style import WIDTH, annotate, colours, fitted, shortened, styled

if TYPE_CHECKING:
    from diem.report.figures.base import Source

__all__ = ["Heading", "curve_columns", "image_rows", "labelled"]

CURVES = 6
"""The curves of a panel, at most: each has a colour."""


class Heading(NamedTuple):
    """The name of a row of images or a column of curves, and its place in all panels."""

    place: float
    name: str

    @classmethod
    def of(cls, stage: str, lap: int) -> "Heading":
        """Returns the heading of a floor, a lap or a ceiling."""
        return {
            "floor": cls(0, "Gaussian\n(lap 0)"),
            "lap": cls(lap, f"lap {lap}"),
            "ceiling": cls(math.inf, "ceiling"),
        }[stage]


@styled
def image_rows(panels: Mapping[str, Mapping[Heading, np.ndarray]], title: str, note: str) -> Figure:
    """Draws rows of images, a panel for each set of observations, side by side.

    Arguments:
        panels: By the panel's title and by the row's heading: images in [-2, 2], with shape
            (N, 1, H, W) in grey or (N, 3, H, W) in colour, NaN where a pixel is missing. All rows
            have equally many images; a panel may lack rows that another has.
        title: The title.
        note: What made the images.

    Raises:
        DiemError: If the arrays are no images.
    """
    rows = sorted({row for panel in panels.values() for row in panel})
    first = next(iter(next(iter(panels.values())).values()))
    for panel in panels.values():
        for images in panel.values():
            _check_images(images)
    count = len(first)
    cell = (WIDTH - 0.9) / (count * len(panels))
    height = cell * first.shape[2] / first.shape[3]
    room = cell * count  # of a title, which has three lines at most or about so many
    titles = [fitted(shortened(name, int(50 * room)), room, 8) for name in panels]
    more = 0.14 * max(title.count("\n") for title in titles)
    figure = Figure(figsize=(WIDTH, height * len(rows) + 0.75 + more))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, title_of_panel, panel in zip(axes, titles, panels.values(), strict=True):
        blank = np.full_like(first, 2.0)
        grid = [_strip(panel.get(row, blank)) for row in rows]
        ax.imshow(np.concatenate(grid), extent=(0, count, len(rows), 0), aspect="auto")
        ax.set_box_aspect(height * len(rows) / (cell * count))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title_of_panel)
    axes[0].set_yticks(np.arange(len(rows)) + 0.5, [row.name for row in rows])
    annotate(figure, title, note)
    return figure


@styled
def curve_columns(
    panels: Mapping[str, Mapping[Heading, np.ndarray]], title: str, note: str
) -> Figure:
    """Draws samples that are no images as curves over their components, a line for each title.

    Arguments:
        panels: By the line's title and by the column's heading: samples, with shape (N, *event).
            A line may lack columns that another has.
        title: The title.
        note: What made the samples.
    """
    columns = sorted({row for panel in panels.values() for row in panel})
    figure = Figure(figsize=(WIDTH, 1.5 * len(panels) + 0.9))
    shape = (len(panels), len(columns))
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for line, (name, panel) in zip(axes, panels.items(), strict=True):
        line[0].set_ylabel(f"{name}\nvalue")
        for ax, column in zip(line, columns, strict=True):
            if column not in panel:
                ax.set_axis_off()
                continue
            for i, x in enumerate(panel[column][:CURVES]):
                values = x.ravel()
                marker = "." if len(values) < 16 else ""
                ax.plot(values, color=f"C{i}", linewidth=0.8, linestyle="-", marker=marker)
    for ax, column in zip(axes[0], columns, strict=True):
        ax.set_title(column.name)
    axes[-1, 0].set_xlabel("component")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))  # panels may be many
    annotate(figure, title, note)
    return figure


def labelled(
    panels: Mapping[str, Mapping[Heading, np.ndarray]], source: "Source"
) -> dict[str, dict[Heading, np.ndarray]]:
    """Returns panels under the names of their runs, with no more images than can be seen.

    Arguments:
        panels: The panels by their sets of observations, see :func:`image_rows`.
        source: What they are of.
    """
    count = max(4, 24 // len(panels))
    runs = {each.observations: each.run for each in source.evaluations if each.stage == "lap"}
    fitted = {}
    for observations, panel in panels.items():
        label = source.labels[runs[observations]]
        name = observations if label == observations else f"{observations}, {label}"
        fitted[name] = {heading: x[:count] for heading, x in panel.items()}
    return fitted


def _check_images(x: np.ndarray) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DiemError(
            f"figures: images have one channel or three, and the data have shape {x.shape[1:]}."
        )


def _strip(images: np.ndarray) -> np.ndarray:
    """Returns images side by side in white frames, with shape (height, width, 3), in [0, 1]."""
    x = colours(images)
    # Small images are enlarged, so that a frame can be thinner than one of their pixels.
    zoom = max(1, round(48 / images.shape[-1]))
    x = x.repeat(zoom, axis=1).repeat(zoom, axis=2)
    frame = max(1, round(0.04 * x.shape[2]))
    x = np.pad(x, ((0, 0), (frame, frame), (frame, frame), (0, 0)), constant_values=1)
    return np.concatenate(x, axis=1)
