"""Marginals of vectors: densities of pairs of coordinates, and of each coordinate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from diem.errors import DiemError
from diem.files.hdf5 import HasRows, row_parts
from diem.report.drawing.style import WIDTH, annotate, styled

__all__ = [
    "BINS",
    "MODEL_COLORS",
    "TRUTH",
    "TRUTH_COLORS",
    "color_norm",
    "corner",
    "pair_density",
    "pairs_by_column",
    "show_density",
]

LIMIT, BINS = 3.0, 64
"""Histograms have this many bins on ``[-LIMIT, LIMIT]``, as in the paper."""

TICKS = (-2, 0, 2)

TRUTH = "truth"
"""The name of the column of clean data."""

MODEL_COLORS, TRUTH_COLORS = "Blues", "Greys"
"""The scales of colours of samples of a model, and of the truth."""


@styled
def pairs_by_column(samples: Mapping[str, HasRows], title: str, note: str) -> Figure:
    r"""Draws the marginals of the first three pairs of neighbours :math:`(x_i, x_{i+1})`.

    Arguments:
        samples: The samples by the name of their column, each with shape :math:`(N, D)`. Those of
            the column :data:`TRUTH` have a colour of their own.
        title: The title.
        note: What made the samples.

    Raises:
        DiemError: If the samples are no vectors of two or more values.
    """
    for x in samples.values():
        _check_vectors(x)
    pairs = min(3, min(x[:1].shape[1] for x in samples.values()) - 1)
    densities = {
        name: [pair_density(x, i, i + 1) for i in range(pairs)] for name, x in samples.items()
    }
    norm = color_norm([density for column in densities.values() for density in column])

    figure = Figure(figsize=(WIDTH, pairs * (WIDTH - 0.6) / len(samples) + 0.9))
    axes = figure.subplots(pairs, len(samples), squeeze=False)
    for column, (name, panels) in zip(axes.T, densities.items(), strict=True):
        column[0].set_title(name)
        for ax, density in zip(column, panels, strict=True):
            show_density(ax, density, norm, TRUTH_COLORS if name == TRUTH else MODEL_COLORS)
            ax.label_outer(remove_inner_ticks=True)
    for i, ax in enumerate(axes[:, 0], start=1):
        ax.set_ylabel(f"$x_{i + 1}$ against $x_{i}$")
    annotate(figure, title, note)
    return figure


@styled
def corner(samples: HasRows, title: str, note: str, truth: HasRows | None = None) -> Figure:
    """Draws the marginals of each coordinate and of each pair of coordinates.

    Arguments:
        samples: The samples, with shape (N, D).
        title: The title.
        note: What made the samples.
        truth: Clean data, with shape (M, D), whose marginals are drawn over those of a model's
            samples on the diagonal; without them the samples are themselves the truth.

    Raises:
        DiemError: If the samples are no vectors of two or more values.
    """
    _check_vectors(samples)
    size = samples[:1].shape[1]
    pairs = {(i, j): pair_density(samples, j, i) for i in range(size) for j in range(i)}
    norm = color_norm(list(pairs.values()))
    colors, color = (TRUTH_COLORS, "0.3") if truth is None else (MODEL_COLORS, "C0")

    figure = Figure(figsize=(5.5, 5.9))
    axes = figure.subplots(size, size, squeeze=False)
    for (i, j), ax in np.ndenumerate(axes):
        if j > i:
            ax.set_axis_off()
            continue
        if j < i:
            show_density(ax, pairs[i, j], norm, colors)
        else:
            _show_marginal(ax, samples, i, histtype="stepfilled", color=color, alpha=0.6)
            if truth is not None:
                _show_marginal(ax, truth, i, histtype="step", color="C1")
            ax.set(xlim=(-LIMIT, LIMIT), xticks=TICKS, yticks=[], box_aspect=1)
            ax.spines["left"].set_visible(False)
        ax.set(xlabel=f"$x_{j + 1}$", ylabel=f"$x_{i + 1}$" if i > 0 else "")
        ax.label_outer(remove_inner_ticks=True)
    if truth is not None:
        place = {"transform": axes[0, 1].transAxes, "va": "top"}
        axes[0, 1].text(0, 0.9, "model (filled)", color="C0", **place)
        axes[0, 1].text(0, 0.65, "truth (line)", color="C1", **place)
    annotate(figure, title, note)
    return figure


def _show_marginal(ax: Axes, x: HasRows, i: int, **style: Any) -> None:
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    counts = sum(np.histogram(part[:, i], edges)[0] for part in row_parts(x))
    ax.hist(edges[:-1], list(edges), weights=counts, density=True, **style)


def _check_vectors(x: HasRows) -> None:
    x = x[:1]
    if x.ndim != 2 or x.shape[1] < 2:
        raise DiemError(
            f"figures: marginals are of vectors of two or more values, and the data have shape"
            f" {x.shape[1:]}."
        )


def pair_density(x: HasRows, i: int, j: int) -> np.ndarray:
    """Returns the fraction of samples in each bin of coordinates i (columns) and j (rows)."""
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    bins = (edges, edges)
    counts = sum(np.histogram2d(v[:, j], v[:, i], bins=bins)[0] for v in row_parts(x))
    return counts / len(x)


def color_norm(densities: Sequence[np.ndarray]) -> PowerNorm:
    """Returns a scale of colours that all panels share, and that shows thin tails as well.

    It ends below the densest bins of all, or where mass is in few bins, below those of these.
    """
    shown = np.stack(densities)
    some = shown[shown > 0]
    end = max(np.quantile(shown, 0.998), np.quantile(some, 0.9)) if some.size else 1.0
    return PowerNorm(0.5, vmin=0, vmax=end, clip=True)


def show_density(ax: Axes, density: np.ndarray, norm: PowerNorm, colors: str) -> None:
    """Draws the fractions of :func:`pair_density`, on axes of the data's scale."""
    extent = (-LIMIT, LIMIT, -LIMIT, LIMIT)
    seen = np.ma.masked_equal(density, 0)  # empty bins stay white
    ax.imshow(seen, origin="lower", extent=extent, norm=norm, cmap=colors)
    ax.set(xticks=TICKS, yticks=TICKS)
    ax.spines[:].set_visible(True)
