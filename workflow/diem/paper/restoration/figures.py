"""The figures of a comparison of posterior samplers, see :mod:`diem.paper.restoration`."""

import itertools
import json
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from diem.evaluation.rows import seeds_of
from diem.paper.methods import Method
from diem.paper.restoration.table import method_of, told_apart
from diem.report.drawing.laps import BAND, BAR, band
from diem.report.drawing.style import WIDTH, annotate, colours, fitted, shortened, styled
from diem.report.tables.labels import METRICS, metric_label

LOOKS = (
    *(("-", "full"), ("--", "none"), (":", "left"), ("-.", "right")),
    *(((0, (6, 1, 1, 1, 1, 1)), "top"), ((0, (10, 2)), "bottom")),
)
"""The lines of the entries of a method, and their marks where lines are none or are many."""


def _styles(rows: pd.DataFrame) -> dict[str, tuple[str, dict]]:
    """Returns label and line style of each entry: entries of one method share a colour."""
    entries: dict[type[Method], dict[str, Method]] = {}
    for entry, settings in _settings(rows).items():
        method = method_of(settings)
        entries.setdefault(type(method), {})[entry] = method
    colors = itertools.cycle(matplotlib.rcParams["axes.prop_cycle"])
    styles, apart = {}, told_apart(rows)
    single = rows["sampler_steps"].nunique() == 1
    for kind in sorted(entries, key=lambda kind: not kind.ours):
        style = {**next(colors), **({"zorder": 3} if kind.ours else {"linewidth": 1.0})}
        looks = itertools.cycle(LOOKS[: len(entries[kind])][::-1])
        marked = single or len(entries[kind]) > 3
        for (entry, method), (line, fill) in zip(entries[kind].items(), looks, strict=False):
            look = {**style, "linestyle": "none" if single else line}
            look |= {"fillstyle": fill} if marked else {}
            styles[entry] = method.label + apart[entry], look
    return {entry: styles[entry] for entry in _settings(rows)}


@styled
def restoration_metrics(rows: pd.DataFrame, name: str) -> Figure:
    """Draws each metric against the number of steps: a column a task, a line a method.

    Arguments:
        rows: The rows of a comparison.
        name: The comparison's name.
    """
    rows = rows.assign(steps=rows["sampler_steps"].map(int))
    metrics = [metric for metric in METRICS if (rows["metric"] == metric).any()]
    tasks, styles = list(rows["observations"].unique()), _styles(rows)
    names = [task.replace("_", " ") for task in tasks]
    titles = dict(zip(tasks, _titles(names, 0.78 * WIDTH / len(tasks), 8), strict=True))
    # A single number of steps has its entries side by side, and no lines.
    single, wide = rows["steps"].nunique() == 1, 1.2 ** (len(styles) / 2 + 1)
    places = {run: 1.2 ** (i + 1.5) / wide for i, run in enumerate(styles)} if single else {}
    figure = Figure(figsize=(WIDTH, 1.7 * len(metrics) + 1.2))
    axes = figure.subplots(len(metrics), len(tasks), sharex=True, squeeze=False)
    for (metric, task), ax in zip(itertools.product(metrics, tasks), axes.flat, strict=True):
        panel = rows[(rows["metric"] == metric) & (rows["observations"] == task)]
        for method, line in panel.groupby("run", sort=False):
            line = line.sort_values("steps")
            label, style = styles[method]
            at = line["steps"] * places.get(method, 1.0)
            ax.plot(at, line["value"], label=shortened(label, 30), **style)
            band(ax, at, line)
        ax.set_xscale("log")
        if single:
            ax.set_xlim(panel["steps"].iloc[0] / wide, panel["steps"].iloc[0] * wide)
        ax.set_xticks(sorted(panel["steps"].unique()), sorted(panel["steps"].unique()))
        ax.xaxis.set_minor_locator(NullLocator())
        if metric == metrics[0]:
            ax.set_title(titles[task])
        if metric == metrics[-1]:
            ax.set_xlabel("steps")
        if task == tasks[0]:
            extractor = next((e for e in panel["extractor"] if e), "")
            better = METRICS[metric].better
            ax.set_ylabel(f"{metric_label(metric, extractor)} {better}".strip())
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False, fontsize=7)
    title = f"{name}: restoration by posterior samplers, by the number of steps"
    annotate(figure, title, _note(rows, f"Means over the images. {BAR if single else BAND}"))
    return figure


@styled
def restoration_images(
    rows: pd.DataFrame, shown: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], name: str
) -> Figure:
    """Draws restored images: a row a task, and a column each for observation, methods, truth.

    Arguments:
        rows: The rows of a comparison.
        shown: By task and method the arrays ``x``, ``y``, ``observed`` and ``truth``, with shape
            (N, C, H, W), of which the image of the most contrast is drawn. What a method lost is
            not finite.
        name: The comparison's name.
    """
    styles = _styles(rows)
    truth = next(iter(next(iter(shown.values())).values()))["truth"]
    # The image of the most contrast shows the most; it is chosen without a look at any method.
    i = int(truth.std(axis=(2, 3)).mean(axis=1).argmax())
    cell = (WIDTH - 1.0) / (len(styles) + 2)
    columns = ["observation", *_titles([name for name, _ in styles.values()], cell, 7), "truth"]
    figure = Figure(figsize=(WIDTH, cell * len(shown) + 1.1))
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    for line, (task, methods) in zip(axes, shown.items(), strict=True):
        same = next(iter(methods.values()))  # but for what was restored
        observed = np.broadcast_to(same["observed"], same["y"].shape)
        restored = [methods[method]["x"][i] for method in styles]
        pictures = [
            np.where(observed, same["y"], np.nan)[i],
            *(x if np.isfinite(x).all() else None for x in restored),
            same["truth"][i],
        ]
        for ax, picture in zip(line, pictures, strict=True):
            if picture is None:
                ax.text(0.5, 0.5, "lost", ha="center", va="center", transform=ax.transAxes)
            else:
                ax.imshow(colours(picture))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(task.replace("_", "\n"), rotation=0, ha="right", va="center")
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize=7)
    steps = max(rows["sampler_steps"].map(int))
    seed, *others = str(rows["seed"].iloc[0]).split(", ")
    first = (
        f"Of {len(truth)} of the test images the one of the most contrast, restored with {steps}"
        f" steps{f' at seed {seed}' if others else ''}. Missing pixels are orange."
    )
    annotate(figure, f"{name}: what posterior samplers restore", _note(rows, first))
    return figure


def _titles(names: Sequence[str], width: float, size: float) -> list[str]:
    """Returns titles of panels, in lines of a width in inches: three of them or about so many."""
    return [fitted(shortened(name, max(12, int(50 * width))), width, size) for name in names]


def _settings(rows: pd.DataFrame) -> dict[str, str]:
    """Returns the settings of a row of each entry, in the rows' order."""
    first = rows.drop_duplicates("run")
    return dict(zip(first["run"], first["settings"], strict=True))


def _note(rows: pd.DataFrame, first: str) -> str:
    row = rows.iloc[0]
    prior = json.loads(row["settings"])["prior"]
    note = (
        f"{first} {int(row['samples']):,} test images of {prior['data']}, prior: {prior['name']},"
        f" {row['sampler']}."
    )
    methods = map(method_of, _settings(rows).values())
    shown = dict.fromkeys(method.title for method in methods if method.iterations_shown)
    if shown:
        note += f" In brackets: solver iterations of {' and '.join(shown)}."
    return f"{note} {seeds_of(row).capitalize()}."
