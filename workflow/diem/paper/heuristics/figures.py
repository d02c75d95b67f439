"""The figures of the heuristics: divergence against the noise level, and the coil."""

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from diem.paper.heuristics.posteriors import EXACT
from diem.report.drawing.marginals import (
    MODEL_COLORS,
    TRUTH_COLORS,
    color_norm,
    pair_density,
    show_density,
)
from diem.report.drawing.style import GREY, WIDTH, annotate, styled

__all__ = ["coil_corners", "divergence_by_sigma"]

PAIRS = ((0, 1), (0, 2), (1, 2))

NAMES = {"prior": "$p(x)$", "posterior": "$p(x | y)$", EXACT: "$p(x_t | y)$"}


@styled
def divergence_by_sigma(table: pd.DataFrame, name: str) -> Figure:
    """Draws medians and the middle half over the cases, and the published medians as marks.

    Arguments:
        table: The table of :func:`diem.paper.heuristics.table.divergence_table`. Of one noise level
            there are no lines, and medians are dashes with bars.
        name: The name of the entry.
    """
    figure = Figure(figsize=(WIDTH, 4.6))
    ax = figure.subplots()
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="noise level $\\sigma_t$", ylabel="truncated divergence (squared data units) ↓")
    cycle = itertools.cycle(matplotlib.rcParams["axes.prop_cycle"])
    single = table["sigma"].nunique() == 1
    places = _places(table) if single else {}
    for covariance, line in table.groupby("covariance", sort=False):
        line = line.sort_values("sigma")
        at = line["sigma"]
        if covariance == EXACT:
            _noise(ax, line, table["median"].min())
            continue
        style = next(cycle)
        color = style["color"]
        if single:
            at = at * places[str(covariance)]
            bar = np.abs(line[["lower_quartile", "upper_quartile"]].sub(line["median"], axis=0)).T
            ax.errorbar(at, line["median"], bar, fmt="_", ms=12, color=color, label=covariance)
        else:
            ax.plot(at, line["median"], color=color, marker="", label=covariance)
            middle = (line["lower_quartile"], line["upper_quartile"])
            ax.fill_between(at, *middle, color=color, alpha=0.15, linewidth=0)
        ax.plot(
            at,
            line["published"],
            **{**style, "markersize": 7},
            linestyle="none",
            markeredgecolor="black",
            zorder=3,
        )
    ax.plot([], [], "o", color="white", markeredgecolor="black", markersize=7, label="published")
    ours = "dashes: our medians, bars" if single else "lines: our medians, bands"
    ax.legend(loc="upper left", title=f"{ours}: middle half")
    ax.set_ylim(bottom=np.nanmin(table[["median", "published"]]) / 2)
    if single:
        sigma = table["sigma"].iloc[0]
        ax.set(xlim=(sigma / 10, sigma * 10), xticks=[sigma], xticklabels=[f"{sigma:g}"])
        ax.xaxis.set_minor_locator(NullLocator())
    notes = [
        f"Ours: {table['card'].iloc[0]}.",
        "Noise (dashed): what two independent sets of p(x_t | y) differ by.",
        *(f"Published: {source}." for source in table["source"].unique() if source),
    ]
    title = f"{name}: how far q(x_t | y) is from p(x_t | y), by covariance"
    annotate(figure, title, "\n".join(notes))
    return figure


def _places(table: pd.DataFrame) -> dict[str, float]:
    """Returns where each covariance stands, side by side, as a factor of the one noise level."""
    names = [str(name) for name in table["covariance"].unique() if name != EXACT]
    return {name: 1.3 ** (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def _noise(ax: Axes, line: pd.DataFrame, low: float) -> None:
    """Draws what the samples alone differ by, down to the least of all medians."""
    sigma, told = line["sigma"], "below the noise of the samples"
    style: dict[str, Any] = {"color": GREY, "linestyle": "--", "marker": "", "linewidth": 1}
    if len(line) == 1:
        noise = line["median"].iloc[0]
        ax.axhline(noise, **style)
        place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "top"}
        ax.text(1.0, 0.95 * noise, told, ha="right", color=GREY, zorder=3, **place)
        return
    # Over the lines, which mean nothing there, and under the published marks.
    ax.fill_between(sigma, low, line["median"], color="0.93", alpha=0.85, zorder=2.5)
    ax.plot(sigma, line["median"], **style)
    ax.text(sigma.max(), low * 1.5, told, ha="right", color=GREY, zorder=3)


@styled
def coil_corners(
    samples: Mapping[str, np.ndarray], name: str, sigma: float, prior_samples: int, seed: int
) -> Figure:
    """Draws the pair marginals of prior, posterior, p(x_t | y), and q(x_t | y) by covariance.

    Arguments:
        samples: The arrays of :func:`diem.paper.heuristics.coil.coil_samples`.
        name: The name of the entry.
        sigma: The noise level.
        prior_samples: How many samples of the prior the others were resampled from.
        seed: The config's seed.
    """
    heuristics = [key for key in samples if key not in NAMES]
    columns = max(len(heuristics), len(NAMES))
    size = WIDTH / columns
    figure = Figure(figsize=(WIDTH, 2 * size + 1.1))
    rows = figure.subfigures(2, columns, squeeze=False)
    for group, keys in zip(rows, (NAMES, heuristics), strict=True):
        for part, key in zip(group, keys, strict=False):
            _corner(part, samples[key], NAMES.get(key, f"$q(x_t | y)$, {key}"), key in NAMES)
    count = len(next(iter(samples.values())))
    annotate(
        figure,
        f"{name}: the coil, observed once as y = x_1 + 2 x_3 + n = 0, at noise level {sigma:g}",
        f"Pair marginals of {count:,} samples each, resampled from {prior_samples:,} of the prior,"
        f" seed {seed}; every triangle has its own scale of colours. Blue should look like"
        " p(x_t | y).",
    )
    return figure


def _corner(part: SubFigure, x: np.ndarray, title: str, truth: bool) -> None:
    densities = [pair_density(x, i, j) for i, j in PAIRS]
    axes = part.subplots(2, 2)
    part.suptitle(title, fontsize=8, fontweight="normal")
    for (i, j), image in zip(PAIRS, densities, strict=True):
        ax = axes[j - 1, i]
        show_density(ax, image, color_norm([image]), TRUTH_COLORS if truth else MODEL_COLORS)
        ax.set(xlabel=f"$x_{i + 1}$", ylabel=f"$x_{j + 1}$")
        ax.label_outer(remove_inner_ticks=True)
    axes[0, 1].set_axis_off()
