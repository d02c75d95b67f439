"""Losses by optimizer step: a panel a run, with its laps side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diem.report.drawing.laps import lap_ticks
from diem.report.drawing.style import (
    GREY,
    WIDTH,
    annotate,
    fitted,
    shortened,
    styled,
    widely_scaled,
)
from diem.report.figures.base import Losses

__all__ = ["RISEN", "loss_curves", "overfitting", "rise"]

RISEN = 0.02
"""A lap overfits if its validation loss ends above its lowest by more than this share."""

VALIDATION, RISING = "#0072B2", "#AA3377"
"""The colours of the validation loss, and of where it rises."""


def rise(curve: pd.DataFrame) -> float:
    """Returns by which share a lap's validation loss ends above its lowest.

    Validation samples, times and noise are the same at every step, so that a rise is the weights'.

    Arguments:
        curve: The losses of a lap, see :func:`diem.em.training.train`.
    """
    losses = curve["validation_loss"]
    return float(losses.iloc[-1] / losses.min() - 1)


def overfitting(laps: Sequence[Losses]) -> str:
    """Returns in a few words whether any lap of a run overfits.

    Arguments:
        laps: The laps of the run.
    """
    rises = {each.lap: rise(each.curve) for each in laps}
    worst, count = max(rises, key=lambda lap: rises[lap]), sum(r > RISEN for r in rises.values())
    if not count:
        return "no lap overfits"
    return (
        f"{count} of {len(laps)} laps overfit: lap {worst} ends {100 * rises[worst]:.0f} % above"
        " its lowest validation loss"
    )


@styled
def loss_curves(
    losses: Sequence[Losses], labels: Mapping[str, str], chosen: Mapping[str, int], title: str
) -> Figure:
    """Draws the losses of each run, lap by lap.

    Arguments:
        losses: The losses of laps, in their order, run by run.
        labels: The label of each run.
        chosen: The chosen lap of each run; empty where none are chosen.
        title: The title.
    """
    runs: dict[str, list[Losses]] = {}
    for each in losses:
        runs.setdefault(each.run, []).append(each)
    columns = 1 if len(runs) <= 3 else 2
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(WIDTH, 1.5 * rows + 0.9))
    axes = figure.subplots(rows, columns, squeeze=False)
    headings = [_heading(run, labels[run], laps, columns) for run, laps in runs.items()]
    for ax, (run, laps), heading in zip(axes.flat, runs.items(), headings, strict=False):
        _panel(ax, laps, chosen.get(run))
        risen = any(rise(each.curve) > RISEN for each in laps)
        ax.set_title(heading, loc="left", color=RISING if risen else VALIDATION)
    lines = [heading.count("\n") for heading in headings]
    more = sum(max(lines[i : i + columns]) for i in range(0, len(lines), columns))
    figure.set_figheight(figure.get_figheight() + 0.14 * more)
    for ax in axes.flat[len(runs) :]:
        ax.set_axis_off()
    named = axes.flat[0].get_legend_handles_labels()
    figure.legend(*named, loc="upper right", fontsize=7, ncols=2, frameon=False)
    for ax in axes[-1]:
        ax.set_xlabel("optimizer step, over the laps (their numbers on top)")
    for ax in axes[:, 0]:
        ax.set_ylabel("loss")
    annotate(figure, title, _note(chosen), beside=1.8)
    return figure


def _heading(run: str, label: str, laps: Sequence[Losses], columns: int) -> str:
    """Returns a panel's heading, in lines that fit one of so many columns."""
    room = 80 // columns
    called = run if label == run else f"{run} ({label})"  # several runs may have one label
    called = called if len(called) <= room else shortened(run, room)
    heading = f"{called}: {overfitting(laps)}"
    return fitted(heading, (WIDTH - 0.6) / columns - 0.2, 8)


def _note(chosen: Mapping[str, int]) -> str:
    told = (
        "Training: mean over 64 steps, of the weights in training. Validation: of their average,"
        f" whose samples are evaluated. Thick: a lap whose validation loss ends more than"
        f" {100 * RISEN:.0f} % above its lowest, from there on."
    )
    gaussian = any(lap == 0 for lap in chosen.values())
    told += " Shaded: the chosen lap." if any(chosen.values()) else ""
    return told + (" Where none is shaded, the Gaussian prior is chosen." if gaussian else "")


def _panel(ax: Axes, laps: Sequence[Losses], chosen: int | None) -> None:
    """Draws the laps of one run side by side."""
    start, centres = 0, {}
    for each in laps:
        curve = each.curve
        steps, end = start + curve["step"], start + int(curve["step"].iloc[-1])
        marker = "." if len(curve) == 1 else ""
        if each.lap == chosen:
            ax.axvspan(start, end, color="0.92", linewidth=0)
        ax.axvline(end, color="0.8", linewidth=0.5, marker="")
        training, validation = curve["loss"], curve["validation_loss"]
        named = ("training", "validation") if each is laps[0] else ("", "")
        ax.plot(steps, training, color=GREY, linewidth=0.8, marker=marker, label=named[0])
        ax.plot(steps, validation, color=VALIDATION, marker=marker, label=named[1])
        if rise(curve) > RISEN:
            lowest = int(np.argmin(validation))
            risen = steps[lowest:], validation[lowest:]
            ax.plot(*risen, color=RISING, linewidth=2.6, marker="")
        centres[each.lap], start = (start + end) / 2, end
    ax.set_xlim(0, start)
    widely_scaled(ax, np.concatenate([each.curve[["loss", "validation_loss"]] for each in laps]))
    ax.margins(y=0.15)
    for lap in lap_ticks(set(centres)):
        text = f"{lap} chosen" if lap == chosen else str(lap)
        ax.text(centres[lap], 1.0, text, transform=ax.get_xaxis_transform(), fontsize=6,
                color=GREY, ha="center", va="top")  # fmt: skip
