"""Metrics by lap: a panel a metric and set of observations, a line a run."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from diem.errors import DiemError
from diem.evaluation.metrics import Label, selecting
from diem.evaluation.rows import provenance, seeds_of
from diem.report.drawing.style import (
    GREY,
    WIDTH,
    annotate,
    fitted,
    legend_below,
    styled,
    text_width,
    widely_scaled,
)
from diem.report.tables.labels import (
    METRICS,
    NO_LABELS,
    SUBJECTS,
    Ceilings,
    label_of,
    metric_label,
)
from diem.report.tables.writing import notes_once

__all__ = ["BAND", "BAR", "band", "by_lap", "lap_ticks", "line_styles"]

BAND = "Shaded: one standard error."

BAR = "Bars: one standard error."
"""Where each line is of a single value."""

DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))
"""The lines of labels: another each time that the colours begin anew."""

BESIDE = 12
"""The names that a panel has room for beside the ends of its lines, at most."""


class _Line(NamedTuple):
    """A line of a panel.

    Attributes:
        name: What it is called.
        rows: Its rows, in the order of their laps; of a bound its one.
        style: Its colour, line and marker.
        bound: Whether it is a floor or a ceiling.
        ceiling_of: Of a ceiling the label of the run that it is named after.
    """

    name: str
    rows: pd.DataFrame
    style: Mapping[str, Any]
    bound: bool = False
    ceiling_of: str | None = None


@styled
def by_lap(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    labels: Mapping[str, str],
    title: str,
    chosen: Mapping[str, int] | None = None,
    known: Mapping[str, Label] = METRICS,
    ceilings: Ceilings = NO_LABELS,
) -> Figure:
    """Draws metrics by lap: a panel per metric and set of observations.

    Each run is a line that starts at the floor, which is the prior of lap 0. Floor and ceilings of
    each panel's observations are horizontal lines. Samples of the E-step are left out: they were
    drawn with the prior of the lap before. Names stand beside the ends of lines, or in a legend
    below where they are many or long.

    Arguments:
        rows: An experiment's metric rows, see :func:`diem.evaluation.rows.read_rows`.
        metrics: The metrics to draw; those that the rows lack are left out.
        labels: The label of each run.
        title: The title.
        chosen: The laps that have rings in panels of the number that laps are chosen by, by run;
            in other panels, and of other runs, the best has. Without it there are no rings.
        known: How metrics are presented.
        ceilings: What ceilings are called, by the set of observations and the run of their rows.

    Raises:
        DiemError: If the rows have none of the metrics.
    """
    rows = rows[(rows["subject"] != "e_step") & rows["metric"].isin(metrics)]
    found = [metric for metric in metrics if (rows["metric"] == metric).any()]
    if not found:
        raise DiemError(f"figures: this one needs evaluation.metrics with {' or '.join(metrics)}.")
    sets = list(rows["observations"].unique())
    # One set of observations leaves the width to the metrics.
    shape = (1, len(found)) if len(sets) == 1 else (len(found), len(sets))
    pairs = [(metric, observations) for metric in found for observations in sets]
    styles = line_styles(labels)
    by_pair = dict(iter(rows.groupby(["metric", "observations"], sort=False)))
    panels = {pair: by_pair.get(pair, rows.iloc[:0]) for pair in pairs}
    lines = {
        pair: _lines(panel, labels, styles, ceilings.get(pair[1], {}))
        for pair, panel in panels.items()
    }
    figure = Figure(figsize=(WIDTH, 2.1 * shape[0] + 0.9))
    beside = _fit_beside(list(lines.values()), shape[1])
    part: Figure | SubFigure = figure
    if not beside:
        lines = {pair: _told_by_colour(of_panel, styles) for pair, of_panel in lines.items()}
        every = {line.name: line.style for of_panel in lines.values() for line in of_panel}
        part = legend_below(figure, every)
    axes = part.subplots(*shape, sharey="none" if len(sets) == 1 else "row", squeeze=False)
    for ax, (metric, observations) in zip(axes.flat, pairs, strict=True):
        panel = panels[metric, observations]
        _draw(ax, lines[metric, observations], panel)
        if chosen is not None:
            laps = chosen if metric in selecting() else {}
            _ring(ax, panel, laps, label_of(metric, known).better, labels, styles)
        ax.set_xlabel("lap")
        if metric == found[0] and len(sets) > 1:
            ax.set_title(fitted(observations, 0.8 * WIDTH / len(sets), 8))
        if observations == sets[0]:
            extractor = rows.loc[rows["metric"] == metric, "extractor"].iloc[0]
            label = metric_label(metric, extractor, known)
            better = label_of(metric, known).better
            ax.set_ylabel(f"{label} {better}".replace(" (", "\n("))

    for ax, (metric, _) in zip(axes.flat, pairs, strict=True):  # shared, so when all are drawn
        _scale(ax, rows.loc[rows["metric"] == metric, "value"], label_of(metric, known).least)
    annotate(figure, title, _note(rows, known))
    if beside:
        figure.draw_without_rendering()  # settles what the labels are placed by: limits and sizes
        for ax, pair in zip(axes.flat, pairs, strict=True):
            _label_ends(ax, lines[pair])
    return figure


def _note(rows: pd.DataFrame, known: Mapping[str, Label]) -> str:
    """Returns what made the numbers of all laps, and what the bounds are."""
    laps = rows[rows["stage"] == "lap"].to_dict("records")
    cards = notes_once((label_of(row["metric"], known).name, provenance(row)) for row in laps)
    bounds = "Floor: the Gaussian prior of lap 0."
    if (rows["stage"] == "ceiling").any():
        bounds += " Ceiling: the same network trained as long on clean data."
    if (rows["standard_error"] != "").any():
        bounds += f" {BAND}"
    return "\n".join([*cards, f"{bounds} {seeds_of(rows.iloc[0]).capitalize()}."])


def band(ax: Axes, at: Sequence[float] | pd.Series, line: pd.DataFrame) -> None:
    """Shades one standard error around the line that was drawn last, where there are errors.

    Around a single value it is a bar.

    Arguments:
        ax: The axes.
        at: The places of the values.
        line: The rows of the line.
    """
    errors = pd.to_numeric(line["standard_error"]).fillna(0.0).to_numpy()
    if not errors.any():
        return
    values, color = line["value"].to_numpy(), ax.lines[-1].get_color()
    if len(values) == 1:
        ax.errorbar(at, values, errors, fmt="none", ecolor=color, elinewidth=1)
        return
    ax.fill_between(at, values - errors, values + errors, color=color, alpha=0.12, linewidth=0)


def line_styles(labels: Mapping[str, str]) -> dict[str, dict]:
    """Returns colour, marker and line of each label, the same in every panel."""
    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    styles = {}
    for i, label in enumerate(dict.fromkeys(labels.values())):
        dash = DASHES[i // len(cycle) % len(DASHES)]
        styles[label] = {**cycle[i % len(cycle)], "linestyle": dash}
    return styles


def _lines(
    panel: pd.DataFrame,
    labels: Mapping[str, str],
    styles: Mapping[str, dict],
    ceilings: Mapping[str, str],
) -> list[_Line]:
    """Returns the lines of a panel: bounds, and then runs, of each subject of its metric."""
    lines = []
    subjects = list(panel["subject"].unique())
    for subject in subjects:
        # A metric of one's own may measure several.
        told = f", {SUBJECTS.get(subject, subject)}" if len(subjects) > 1 else ""
        fill = {"markerfacecolor": "white"} if subject != subjects[0] else {}
        rows = panel[panel["subject"] == subject]
        floors = rows[rows["stage"] == "floor"]
        bound = {"color": GREY, "marker": "", "linewidth": 1}
        for i in range(len(floors)):
            style = {**bound, "linestyle": "--"}
            lines.append(_Line(f"floor{told}", floors.iloc[i : i + 1], style, True))
        for run, row in rows[rows["stage"] == "ceiling"].groupby("run", sort=False):
            name, style = ceilings.get(str(run), "ceiling"), {**bound, "linestyle": ":"}
            lines.append(_Line(f"{name}{told}", row, style, True, labels.get(str(run))))
        for run, laps in rows[rows["stage"] == "lap"].groupby("run", sort=False):
            label = labels[str(run)]
            line = pd.concat([floors, laps.sort_values("lap")])
            lines.append(_Line(f"{label}{told}", line, {**styles[label], **fill}))
    return lines


def _fit_beside(panels: Sequence[Sequence[_Line]], columns: int) -> bool:
    """Returns whether names have room beside lines, and colours alone tell these apart."""
    lines = [line for of_panel in panels for line in of_panel]
    if any(line.style["linestyle"] != DASHES[0] for line in lines if not line.bound):
        return False
    names = {line.name for line in lines}
    room = 0.4 * WIDTH / columns
    return max(map(len, panels)) <= BESIDE and all(text_width(name, 7) <= room for name in names)


def _told_by_colour(lines: Sequence[_Line], styles: Mapping[str, dict]) -> list[_Line]:
    """Gives ceilings, where there are several, the colours of their runs."""
    if sum(line.ceiling_of is not None for line in lines) < 2:
        return list(lines)
    coloured = []
    for line in lines:
        if line.ceiling_of is not None:
            of_run = styles[line.ceiling_of]
            dots = ":" if of_run["linestyle"] == DASHES[0] else (0, (1, 5))
            line = line._replace(style={**line.style, "color": of_run["color"], "linestyle": dots})
        coloured.append(line)
    return coloured


def _draw(ax: Axes, lines: Sequence[_Line], panel: pd.DataFrame) -> None:
    """Draws the lines of a panel."""
    for line in lines:
        if line.bound:
            ax.axhline(line.rows["value"].iloc[0], **line.style)
        else:
            ax.plot(line.rows["lap"], line.rows["value"], **line.style)
            band(ax, line.rows["lap"], line.rows)
    laps = [0, *panel["lap"]]
    ax.set_xticks(lap_ticks(set(laps)))
    # The axis shows the laps whose values are not finite, too.
    ax.update_datalim([(lap, 0) for lap in laps], updatey=False)


def _ring(
    ax: Axes,
    panel: pd.DataFrame,
    chosen: Mapping[str, int],
    better: str,
    labels: Mapping[str, str],
    styles: Mapping[str, dict],
) -> None:
    """Rings the chosen lap of each run, or the best in the direction of better values."""
    of_laps = panel[panel["stage"] == "lap"].groupby(["run", "subject"], sort=False)
    for (run, subject), laps in of_laps:
        floor = panel[(panel["stage"] == "floor") & (panel["subject"] == subject)]
        line = pd.concat([floor, laps])
        line = line[np.isfinite(line["value"])]
        if (lap := chosen.get(str(run))) is not None:
            line = line[line["lap"] == lap]
        if line.empty:
            continue
        values = line["value"]
        best = line.iloc[int(values.argmin() if better == "↓" else values.argmax())]
        color = styles[labels[str(run)]]["color"]
        ring: dict[str, Any] = {"ms": 10, "mfc": "none", "mec": color, "mew": 1.5, "clip_on": False}
        ax.plot(best["lap"], best["value"], "o", **ring)


def lap_ticks(laps: Set[int]) -> list[int]:
    """Returns the laps, without those whose numbers would run into the next one."""
    ticks: list[int] = []
    for lap in sorted(laps, reverse=True):
        if not ticks or ticks[-1] - lap > 0.06 * max(laps):
            ticks.append(lap)
    return ticks


def _scale(ax: Axes, values: pd.Series, lowest: float | None) -> None:
    """Chooses a logarithmic axis where values span a wide range, and else starts at the lowest."""
    values = values[np.isfinite(values)]
    if values.empty or widely_scaled(ax, values):
        return
    if lowest is None:
        ax.margins(y=0.12)
    else:
        ax.set_ylim(bottom=min(lowest, values.min()))


def _label_ends(ax: Axes, lines: Sequence[_Line]) -> None:
    """Writes a line's name beside its last finite value; names that would overlap move apart."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72  # in points, like the text
    finite = [(line, line.rows["value"][np.isfinite(line.rows["value"])]) for line in lines]
    ends = sorted(
        (values.iloc[-1], line.name, line.style["color"]) for line, values in finite if len(values)
    )
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
