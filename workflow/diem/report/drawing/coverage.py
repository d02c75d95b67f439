"""The coverage of central intervals, from probability integral transforms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from diem.report.drawing.laps import line_styles
from diem.report.drawing.style import (
    GREY,
    WIDTH,
    annotate,
    fitted,
    legend_below,
    styled,
    text_width,
)

__all__ = ["Line", "coverages"]

LEVELS = np.linspace(0, 1, 101)
BOUNDS = {"floor": "--", "ceiling": ":"}


class Line(NamedTuple):
    """The transforms of one prior's posterior samples.

    Attributes:
        observations: The set of observations.
        stage: ``floor``, ``lap`` or ``ceiling``.
        label: What the prior is called.
        transforms: The transforms of each panel, ``(N, *)``; negative where none counts.
    """

    observations: str
    stage: str
    label: str
    transforms: Mapping[str, np.ndarray]


def curve(transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coverage of central intervals of all levels, and its standard error.

    Arguments:
        transforms: The transforms of ``N`` observations, ``(N, *)``.
    """
    flat = transforms.reshape(len(transforms), -1)
    miss = np.where(flat < 0, np.nan, 2 * np.abs(flat - 0.5))
    counts = (flat >= 0).sum(axis=1)
    miss, counts = miss[counts > 0], counts[counts > 0]
    shares = np.array([(miss < level).sum(axis=1) / counts for level in LEVELS])
    return shares.mean(axis=1), shares.std(axis=1, ddof=1) / np.sqrt(len(miss))


@styled
def coverages(lines: Sequence[Line], title: str, told: str = "") -> Figure:
    """Draws how often central intervals hold the truth, against how often they should.

    Arguments:
        lines: The priors; those of one set of observations share a row of panels, or with several
            sets a column.
        title: The title.
        told: What the note says beside, a sentence.
    """
    sets = list(dict.fromkeys(line.observations for line in lines))
    names = list(dict.fromkeys(name for line in lines for name in line.transforms))
    shape = (1, len(names)) if len(sets) == 1 else (len(names), len(sets))
    figure = Figure(figsize=(WIDTH, 2.2 * shape[0] + 0.7))
    part: Figure | SubFigure = figure
    styles = _styles(lines)
    within = all(
        _fit_within([line.label for line in lines if line.observations == each], shape[1])
        for each in sets
    )
    if not within:
        part = legend_below(figure, {line.label: styles[line.stage, line.label] for line in lines})
    axes = part.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    pairs = [(name, observations) for name in names for observations in sets]
    for ax, (name, observations) in zip(axes.flat, pairs, strict=True):
        here = [x for x in lines if x.observations == observations and name in x.transforms]
        _panel(ax, [(line, line.transforms[name]) for line in here], styles)
        heading = name if len(sets) == 1 else f"{observations}: {name}"
        ax.set_title(fitted(heading, 0.95 * WIDTH / shape[1], 8))
        if within:
            ax.legend(loc="lower right", fontsize=6, frameon=False)
    for ax in axes[-1]:
        ax.set_xlabel("interval (%)")
    for ax in axes[:, 0]:
        ax.set_ylabel("holds the truth (%)")
    annotate(
        figure,
        title,
        "Below the diagonal error bars are too narrow, above it too wide. Shaded: two standard"
        " errors over observations, as if independent; grey: where 95 % of perfect samplers lie, at"
        " each level."
        f" {told}".rstrip(),
    )
    return figure


def _styles(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns colour and line of each stage and label."""
    of_laps = line_styles({line.label: line.label for line in lines if line.stage == "lap"})
    styles: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        style = {"color": GREY, "linestyle": BOUNDS.get(line.stage, "-"), "marker": ""}
        if line.stage == "lap":
            style |= {key: of_laps[line.label][key] for key in ("color", "linestyle")}
        styles[line.stage, line.label] = style
    return styles


def _fit_within(labels: Sequence[str], columns: int) -> bool:
    """Returns whether a legend has room in the corner of a panel, below the diagonal."""
    size = min(WIDTH / columns - 0.35, 2.0)  # panels are square
    width = 0.4 + max(text_width(label, 6) for label in labels)
    return width + 0.14 * len(labels) < 0.95 * size


def _panel(
    ax: Axes,
    lines: Sequence[tuple[Line, np.ndarray]],
    styles: Mapping[tuple[str, str], dict[str, Any]],
) -> None:
    """Draws the lines of one panel, and where a perfect sampler lies."""
    independent = [len(x) for _, x in lines if x.ndim == 1]
    if independent:
        band = 1.96 * np.sqrt(LEVELS * (1 - LEVELS) / min(independent))
        low, high = np.clip(LEVELS - band, 0, 1), np.clip(LEVELS + band, 0, 1)
        ax.fill_between(100 * LEVELS, 100 * low, 100 * high, color="0.88", linewidth=0)
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, marker="")
    for line, transforms in lines:
        mean, error = curve(transforms)
        style = styles[line.stage, line.label]
        if line.stage == "lap":
            low, high, color = mean - 2 * error, mean + 2 * error, style["color"]
            ax.fill_between(
                100 * LEVELS, 100 * low, 100 * high, alpha=0.2, linewidth=0, color=color
            )
        ax.plot(100 * LEVELS, 100 * mean, label=line.label, **style)
    ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    ax.set_xticks([0, 50, 100])
    ax.set_yticks([0, 50, 100])
