"""What figures are drawn by: style, captions, and the kinds of panels that they share."""

import itertools
import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from diem.errors import DiemError
from diem.files.atomic import atomic
from diem.files.hdf5 import HasRows, row_parts
from diem.report import tables

# The user's own settings of Matplotlib have no say.
styled = matplotlib.style.context(["default", Path(__file__).with_name("diem.mplstyle")])

WIDTH = 7.0
"""The width of a figure, in inches."""

LIMIT, BINS = 3.0, 64
"""Histograms have this many bins on ``[-LIMIT, LIMIT]``, as in the paper."""

TICKS = (-2, 0, 2)

MISSING = (0.90, 0.62, 0.0)
"""The colour of missing pixels, Okabe and Ito's orange, which no grey value is taken for."""

CURVES = 6
"""The curves of a panel, at most: each has a colour."""

GREY = "0.4"
TRUTH = "truth"
MODEL_COLORS, TRUTH_COLORS = "Blues", "Oranges"


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


class Row(NamedTuple):
    """The name of a row of images, and its place among the rows of all blocks."""

    place: float
    name: str

    @classmethod
    def of(cls, stage: str, lap: int) -> "Row":
        """Returns the row of a floor, a lap or a ceiling."""
        return {
            "floor": cls(0, "Gaussian\n(lap 0)"),
            "lap": cls(lap, f"lap {lap}"),
            "ceiling": cls(math.inf, "ceiling"),
        }[stage]


@dataclass(frozen=True)
class Evaluation:
    """What one prior gave: arrays of an evaluation's file, see :func:`diem.evaluation.evaluate.evaluate`.

    Arguments:
        observations: The set of observations.
        run: The run; for a floor or a ceiling, the stage.
        stage: ``floor``, ``lap`` or ``ceiling``.
        lap: The lap.
        arrays: Those arrays that the figure reads; what it reads all of need not be in memory.
    """

    observations: str
    run: str
    stage: str
    lap: int
    arrays: Mapping[str, HasRows]


@dataclass(frozen=True)
class Source:
    """What figures are made of, of which each uses a part.

    Arguments:
        experiment: The experiment.
        labels: The label of each run.
        rows: The metric rows, see :func:`diem.report.tables.read_rows`.
        truth: The clean test data, with shape ``(N, *event)``.
        evaluations: Evaluations in the order of their laps, set by set of observations.
    """

    experiment: str
    labels: Mapping[str, str]
    rows: pd.DataFrame | None = None
    truth: HasRows | None = None
    evaluations: Sequence[Evaluation] = ()


@styled
def marginals(samples: Mapping[str, HasRows], title: str, note: str) -> Figure:
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
    caption(figure, title, note)
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
    colors, color = (TRUTH_COLORS, "C1") if truth is None else (MODEL_COLORS, "C0")

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
    caption(figure, title, note)
    return figure


@styled
def by_lap(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    labels: Mapping[str, str],
    title: str,
    marked: bool = False,
) -> Figure:
    """Draws metrics by lap: a panel per metric and set of observations.

    Each run is a line that starts at the floor, which is the prior of lap 0. Floor and ceiling of
    each panel's observations are horizontal lines. The metrics are those of prior samples, and the
    prediction of hidden observations.

    Arguments:
        rows: An experiment's metric rows, see :func:`diem.report.tables.read_rows`.
        metrics: The metrics to draw; those that the rows lack are left out.
        labels: The label of each run.
        title: The title.
        marked: Whether the best lap of each line, by the panel's own metric, has a ring.

    Raises:
        DiemError: If the rows have none of the metrics.
    """
    of_priors = (rows["subject"] == "prior") | (rows["metric"] == "prediction")
    rows = rows[of_priors & rows["metric"].isin(metrics)]
    found = [metric for metric in metrics if (rows["metric"] == metric).any()]
    if not found:
        raise DiemError(f"figures: this one needs evaluation.metrics with {' or '.join(metrics)}.")
    sets = list(rows["observations"].unique())
    # One set of observations leaves the width to the metrics.
    shape = (1, len(found)) if len(sets) == 1 else (len(found), len(sets))
    figure = Figure(figsize=(WIDTH, 2.1 * shape[0] + 0.9))
    axes = figure.subplots(*shape, sharey="none" if len(sets) == 1 else "row", squeeze=False)
    pairs = [(metric, observations) for metric in found for observations in sets]
    styles = _line_styles(labels)
    ends = []
    for ax, (metric, observations) in zip(axes.flat, pairs, strict=True):
        of_metric = rows[rows["metric"] == metric]
        panel = of_metric[of_metric["observations"] == observations]
        ends.append((ax, _lines(ax, panel, labels, styles)))
        if marked:
            _ring_best(ax, panel, labels, styles)
        ax.set_xlabel("lap")
        if metric == found[0] and len(sets) > 1:
            ax.set_title(observations)
        if observations == sets[0]:
            label = tables.metric_label(metric, of_metric["extractor"].iloc[0])
            better = tables.METRICS[metric].better
            ax.set_ylabel(f"{label} {better}".replace(" (", "\n("))

    for ax, (metric, _) in zip(axes.flat, pairs, strict=True):  # shared, so when all are drawn
        _scale(ax, rows.loc[rows["metric"] == metric, "value"], tables.METRICS[metric].least)
    caption(figure, title, _made(rows))
    figure.draw_without_rendering()  # settles the limits and sizes that the labels are placed by
    for ax, labelled in ends:
        _label_ends(ax, labelled)
    return figure


@styled
def image_rows(blocks: Mapping[str, Mapping[Row, np.ndarray]], title: str, note: str) -> Figure:
    """Draws rows of images, a block of them for each set of observations, side by side.

    Arguments:
        blocks: By the block's title and by the row: images in [-2, 2], with shape (N, 1, H, W) in
            grey or (N, 3, H, W) in colour, NaN where a pixel is missing. All rows have equally many
            images; a block may lack rows that another has.
        title: The title.
        note: What made the images.

    Raises:
        DiemError: If the arrays are no images.
    """
    rows = sorted({row for block in blocks.values() for row in block})
    some = next(iter(next(iter(blocks.values())).values()))
    for block in blocks.values():
        for images in block.values():
            _check_images(images)
    count = len(some)
    cell = (WIDTH - 0.9) / (count * len(blocks))
    height = cell * some.shape[2] / some.shape[3]
    figure = Figure(figsize=(WIDTH, height * len(rows) + 0.75))
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    for ax, (name, block) in zip(axes, blocks.items(), strict=True):
        blank = np.full_like(some, 2.0)
        grid = [_strip(block.get(row, blank)) for row in rows]
        ax.imshow(np.concatenate(grid), extent=(0, count, len(rows), 0), aspect="auto")
        ax.set_box_aspect(height * len(rows) / (cell * count))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set(xticks=[], yticks=[])
        ax.set_title(name)
    axes[0].set_yticks(np.arange(len(rows)) + 0.5, [row.name for row in rows])
    caption(figure, title, note)
    return figure


@styled
def curve_columns(blocks: Mapping[str, Mapping[Row, np.ndarray]], title: str, note: str) -> Figure:
    """Draws samples that are no images as curves over their components: a panel a name and block.

    Arguments:
        blocks: By the block's title and by the row: samples, with shape (N, *event). A block may
            lack rows that another has.
        title: The title.
        note: What made the samples.
    """
    columns = sorted({row for block in blocks.values() for row in block})
    figure = Figure(figsize=(WIDTH, 1.5 * len(blocks) + 0.9))
    shape = (len(blocks), len(columns))
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for line, (name, block) in zip(axes, blocks.items(), strict=True):
        line[0].set_ylabel(f"{name}\nvalue")
        for ax, column in zip(line, columns, strict=True):
            if column not in block:
                ax.set_axis_off()
                continue
            for i, x in enumerate(block[column][:CURVES]):
                values = x.ravel()
                marker = "." if len(values) < 16 else ""
                ax.plot(values, color=f"C{i}", linewidth=0.8, linestyle="-", marker=marker)
    for ax, column in zip(axes[0], columns, strict=True):
        ax.set_title(column.name)
    axes[-1, 0].set_xlabel("component")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))  # panels may be many
    caption(figure, title, note)
    return figure


def caption(figure: Figure, title: str, note: str) -> None:
    """Writes a title above a figure, and below it what made its numbers."""
    columns = int(figure.get_figwidth() * 20)  # characters that fit the width in this size
    lines = [textwrap.fill(line, columns) for line in note.splitlines()]
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", color=GREY)


def _show_marginal(ax: Axes, x: HasRows, i: int, **style: Any) -> None:
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    counts = sum(np.histogram(part[:, i], edges)[0] for part in row_parts(x))
    ax.hist(edges[:-1], edges, weights=counts, density=True, **style)


def _check_vectors(x: HasRows) -> None:
    x = x[:1]
    if x.ndim != 2 or x.shape[1] < 2:
        raise DiemError(
            f"figures: marginals are of vectors of two or more values, and the data have shape"
            f" {x.shape[1:]}."
        )


def _check_images(x: np.ndarray) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DiemError(
            f"figures: images have one channel or three, and the data have shape {x.shape[1:]}."
        )


def pair_density(x: HasRows, i: int, j: int) -> np.ndarray:
    """Returns the fraction of samples in each bin of coordinates i (columns) and j (rows)."""
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    bins = (edges, edges)
    counts = sum(np.histogram2d(v[:, j], v[:, i], bins=bins)[0] for v in row_parts(x))
    return counts / len(x)


def color_norm(densities: Sequence[np.ndarray]) -> PowerNorm:
    """Returns a scale of colours that all panels share, and that shows thin tails as well."""
    return PowerNorm(0.5, vmin=0, vmax=np.quantile(np.stack(densities), 0.998), clip=True)


def show_density(ax: Axes, density: np.ndarray, norm: PowerNorm, colors: str) -> None:
    """Draws the fractions of :func:`pair_density`, on axes of the data's scale."""
    extent = (-LIMIT, LIMIT, -LIMIT, LIMIT)
    seen = np.ma.masked_equal(density, 0)  # empty bins stay white
    ax.imshow(seen, origin="lower", extent=extent, norm=norm, cmap=colors)
    ax.set(xticks=TICKS, yticks=TICKS)
    ax.spines[:].set_visible(True)


def _made(rows: pd.DataFrame) -> str:
    """Returns what made the numbers of all laps, and what the bounds are."""
    cards: dict[str, list[str]] = defaultdict(list)
    for row in rows[rows["stage"] == "lap"].to_dict("records"):
        name = tables.METRICS[row["metric"]].name
        if name not in cards[tables.card(row)]:
            cards[tables.card(row)].append(name)
    bounds = "Floor: the Gaussian prior of lap 0."
    if (rows["stage"] == "ceiling").any():
        bounds += " Ceiling: the same network trained on clean data."
    told = [f"{', '.join(names)}: {card}." for card, names in cards.items()]
    return "\n".join([*told, f"{bounds} Seed {rows['seed'].iloc[0]}."])


def _line_styles(labels: Mapping[str, str]) -> dict[str, dict]:
    """Returns colour and marker of each label, the same in every panel."""
    cycle = itertools.cycle(matplotlib.rcParams["axes.prop_cycle"])
    return dict(zip(dict.fromkeys(labels.values()), cycle, strict=False))


def _lines(
    ax: Axes, panel: pd.DataFrame, labels: Mapping[str, str], styles: Mapping[str, dict]
) -> list[tuple[float, str, str]]:
    """Draws a panel and returns the ends to label: value, text, colour."""
    bounds = panel[panel["stage"] != "lap"].set_index("stage")["value"]
    ends = []
    for stage, style in (("floor", "--"), ("ceiling", ":")):
        if stage in bounds:
            ax.axhline(bounds[stage], color=GREY, linestyle=style, marker="", linewidth=1)
            ends.append((bounds[stage], stage, GREY))
    for run, line in panel[panel["stage"] == "lap"].groupby("run", sort=False):
        line = line.sort_values("lap")
        laps, values = list(line["lap"]), list(line["value"])
        if "floor" in bounds:
            laps, values = [0, *laps], [bounds["floor"], *values]
        ax.plot(laps, values, **styles[labels[run]])
        ends.append((values[-1], labels[run], styles[labels[run]]["color"]))
    ax.set_xticks(_lap_ticks({0, *panel["lap"]}))
    return ends


def _ring_best(
    ax: Axes, panel: pd.DataFrame, labels: Mapping[str, str], styles: Mapping[str, dict]
) -> None:
    """Rings the best lap of each run."""
    for run, line in panel[panel["stage"] == "lap"].groupby("run", sort=False):
        falls = tables.METRICS[line["metric"].iloc[0]].better == "↓"
        best = line.loc[line["value"].idxmin() if falls else line["value"].idxmax()]
        color = styles[labels[run]]["color"]
        ring = {"ms": 10, "mfc": "none", "mec": color, "mew": 1.5, "clip_on": False}
        ax.plot(best["lap"], best["value"], "o", **ring)


def _lap_ticks(laps: Set[int]) -> list[int]:
    """Returns the laps, without those whose numbers would run into the next one."""
    ticks: list[int] = []
    for lap in sorted(laps, reverse=True):
        if not ticks or ticks[-1] - lap > 0.06 * max(laps):
            ticks.append(lap)
    return ticks


def _scale(ax: Axes, values: pd.Series, lowest: float | None) -> None:
    """Chooses a logarithmic axis where values span a wide range, and else starts at the lowest."""
    if values.min() > 0 and values.max() > 4 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif lowest is None:
        ax.margins(y=0.12)
    else:
        ax.set_ylim(bottom=min(lowest, values.min()))


def _label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes a line's name beside its end; names that would overlap move apart."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72  # in points, like the text
    ends = sorted(ends)
    places = [
        ax.transAxes.inverted().transform(ax.transData.transform((0, y)))[1] for y, *_ in ends
    ]
    places = _spread(places, gap=8.5 / height)
    for place, (_, text, color) in zip(places, ends, strict=True):
        ax.text(1.03, place, text, color=color, transform=ax.transAxes, va="center", fontsize=7)


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Moves ascending values apart to at least a gap, and as little as possible."""
    # Isotonic regression of v_i - i * gap, by pooling neighbours in the wrong order.
    pools: list[list[float]] = []
    for i, value in enumerate(values):
        pools.append([value - i * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [float(np.mean(pool)) for pool in pools for _ in pool]
    return [value + i * gap for i, value in enumerate(level)]


def colours(images: np.ndarray) -> np.ndarray:
    """Returns images (..., C, H, W) in [-2, 2], NaN where missing, as colours (..., H, W, 3)."""
    x = np.moveaxis(np.clip((images + 2) / 4, 0, 1), -3, -1)
    x = np.broadcast_to(x, (*x.shape[:-1], 3))
    return np.where(np.isnan(x), MISSING, x)


def _strip(images: np.ndarray) -> np.ndarray:
    """Returns images side by side in white frames, with shape (height, width, 3), in [0, 1]."""
    x = colours(images)
    # Small images are enlarged, so that a frame can be thinner than one of their pixels.
    zoom = max(1, round(48 / images.shape[-1]))
    x = x.repeat(zoom, axis=1).repeat(zoom, axis=2)
    frame = max(1, round(0.04 * x.shape[2]))
    x = np.pad(x, ((0, 0), (frame, frame), (frame, frame), (0, 0)), constant_values=1)
    return np.concatenate(x, axis=1)
