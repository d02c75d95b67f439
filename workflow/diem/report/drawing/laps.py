"""Metrics by lap: a panel a metric and set of observations, a line a run."""

import itertools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diem.errors import DiemError
from diem.evaluation.metrics import Label, selecting
from diem.evaluation.rows import provenance, seeds_of
from diem.report.drawing.style import GREY, WIDTH, annotate, styled, widely_scaled
from diem.report.tables.labels import METRICS, NO_LABELS, Ceilings, label_of, metric_label
from diem.report.tables.writing import notes_once

__all__ = ["BAND", "band", "by_lap", "lap_ticks", "line_styles"]

BAND = "Shaded: one standard error."


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
    drawn with the prior of the lap before.

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
    figure = Figure(figsize=(WIDTH, 2.1 * shape[0] + 0.9))
    axes = figure.subplots(*shape, sharey="none" if len(sets) == 1 else "row", squeeze=False)
    pairs = [(metric, observations) for metric in found for observations in sets]
    styles = line_styles(labels)
    ends = []
    for ax, (metric, observations) in zip(axes.flat, pairs, strict=True):
        of_metric = rows[rows["metric"] == metric]
        panel = of_metric[of_metric["observations"] == observations]
        ends.append((ax, _lines(ax, panel, labels, styles, ceilings.get(observations, {}))))
        if chosen is not None:
            laps = chosen if metric in selecting() else {}
            _ring(ax, panel, laps, label_of(metric, known).better, labels, styles)
        ax.set_xlabel("lap")
        if metric == found[0] and len(sets) > 1:
            ax.set_title(observations)
        if observations == sets[0]:
            label = metric_label(metric, of_metric["extractor"].iloc[0], known)
            better = label_of(metric, known).better
            ax.set_ylabel(f"{label} {better}".replace(" (", "\n("))

    for ax, (metric, _) in zip(axes.flat, pairs, strict=True):  # shared, so when all are drawn
        _scale(ax, rows.loc[rows["metric"] == metric, "value"], label_of(metric, known).least)
    annotate(figure, title, _note(rows, known))
    figure.draw_without_rendering()  # settles the limits and sizes that the labels are placed by
    for ax, labelled in ends:
        _label_ends(ax, labelled)
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

    Arguments:
        ax: The axes.
        at: The places of the values.
        line: The rows of the line.
    """
    errors = pd.to_numeric(line["standard_error"]).fillna(0.0).to_numpy()
    if errors.any():
        values, color = line["value"].to_numpy(), ax.lines[-1].get_color()
        ax.fill_between(at, values - errors, values + errors, color=color, alpha=0.12, linewidth=0)


def line_styles(labels: Mapping[str, str]) -> dict[str, dict]:
    """Returns colour and marker of each label, the same in every panel."""
    cycle = itertools.cycle(matplotlib.rcParams["axes.prop_cycle"])
    return dict(zip(dict.fromkeys(labels.values()), cycle, strict=False))


def _lines(
    ax: Axes,
    panel: pd.DataFrame,
    labels: Mapping[str, str],
    styles: Mapping[str, dict],
    ceilings: Mapping[str, str],
) -> list[tuple[float, str, str]]:
    """Draws a panel and returns the ends to label: value, text, colour."""
    floors = list(panel.loc[panel["stage"] == "floor", "value"])
    bounds = [(value, "floor", "--") for value in floors]
    for row in panel[panel["stage"] == "ceiling"].to_dict("records"):
        bounds.append((row["value"], ceilings.get(row["run"], "ceiling"), ":"))
    ends = []
    for value, name, style in bounds:
        ax.axhline(value, color=GREY, linestyle=style, marker="", linewidth=1)
        ends.append((value, name, GREY))
    for run, line in panel[panel["stage"] == "lap"].groupby("run", sort=False):
        line = line.sort_values("lap")
        line = pd.concat([panel[panel["stage"] == "floor"], line])
        label = labels[str(run)]
        ax.plot(line["lap"], line["value"], **styles[label])
        band(ax, line["lap"], line)
        ends.append((line["value"].iloc[-1], label, styles[label]["color"]))
    ax.set_xticks(lap_ticks({0, *panel["lap"]}))
    return ends


def _ring(
    ax: Axes,
    panel: pd.DataFrame,
    chosen: Mapping[str, int],
    better: str,
    labels: Mapping[str, str],
    styles: Mapping[str, dict],
) -> None:
    """Rings the chosen lap of each run, or the best in the direction of better values."""
    floor = panel[panel["stage"] == "floor"]
    for run, laps in panel[panel["stage"] == "lap"].groupby("run", sort=False):
        line = pd.concat([floor, laps])
        values, lap = line["value"], chosen.get(str(run))
        best = line.iloc[int(values.argmin() if better == "↓" else values.argmax())]
        if lap is not None:
            best = line[line["lap"] == lap].iloc[0]
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
    if widely_scaled(ax, values):
        return
    if lowest is None:
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
