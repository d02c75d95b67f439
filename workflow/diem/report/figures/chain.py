"""The figures of every chain of laps: vectors (the manifold) and small images."""

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from diem.errors import DiemError
from diem.evaluation.metrics import by_quality, panels
from diem.report.figures.drawing import (
    BINS,
    TRUTH,
    Row,
    Source,
    by_lap,
    corner,
    curve_columns,
    image_rows,
    marginals,
)


def evolution(source: Source) -> Figure:
    """Draws how the prior's pair marginals change from the floor over the laps.

    Where there are clean data they are shown last.
    """
    last = source.evaluations[-1]
    samples = {
        Row.of(part.stage, part.lap).name: part.arrays["prior/x"] for part in source.evaluations
    }
    note = f"{len(last.arrays['prior/x']):,} prior samples a lap"
    if source.truth is not None:
        samples[TRUTH] = source.truth
        note += f"; truth: {len(source.truth):,} clean test samples"
    return marginals(
        samples,
        f"{source.experiment}: the prior of run {source.labels[last.run]}, lap by lap",
        f"{note}. {BINS} x {BINS} bins; all panels share one scale of colours.",
    )


def corner_truth(source: Source) -> Figure:
    """Draws the marginals of the clean test data."""
    note = f"{len(source.truth):,} clean test samples. {BINS} bins an axis."
    return corner(source.truth, f"{source.experiment}: the truth", note)


def corner_model(source: Source) -> Figure:
    """Draws the marginals of the prior after the last lap."""
    last = source.evaluations[-1]
    x = last.arrays["prior/x"]
    return corner(
        x,
        f"{source.experiment}: the prior of run {source.labels[last.run]} after lap {last.lap}",
        f"{len(x):,} prior samples. On the diagonal, truth: {len(source.truth):,} clean test"
        f" samples. {BINS} bins an axis.",
        source.truth,
    )


def divergence(source: Source) -> Figure:
    """Draws distances between prior samples and the truth by lap."""
    metrics = panels("divergence")
    title = f"{source.experiment}: how far prior samples are from the truth, by lap"
    return by_lap(source.rows, metrics, source.labels, title)


def distance(source: Source) -> Figure:
    """Draws the Frechet distances and the Inception score of prior samples by lap."""
    metrics = panels("distance")
    title = f"{source.experiment}: how close prior samples are to clean images, by lap"
    return by_lap(source.rows, metrics, source.labels, title)


def lap_choice(source: Source) -> Figure:
    """Draws the number that the lap is chosen by, and what clean data say of the same laps.

    Raises:
        DiemError: If the prediction of hidden observations was not evaluated.
    """
    known = set(source.rows["metric"])
    if "prediction" not in known:
        raise DiemError("figures: 'lap_choice' needs evaluation.metrics with prediction.")
    clean = [name for name in by_quality() if name in known][:1]
    title = f"{source.experiment}: the lap to use, ringed, by held-out observations alone"
    if clean:
        several = source.rows["observations"].nunique() > 1
        title += f" ({'above' if several else 'left'}) and by clean data"
    return by_lap(source.rows, ["prediction", *clean], source.labels, title, marked=True)


def prior(source: Source) -> Figure:
    """Draws prior samples by lap, as images or as curves, for a run of each set of observations."""
    blocks: dict[str, dict[Row, np.ndarray]] = defaultdict(dict)
    for part in source.evaluations:
        blocks[part.observations][Row.of(part.stage, part.lap)] = part.arrays["prior/x"]
    images = source.evaluations[0].arrays["prior/x"].ndim == 4
    draw = image_rows if images else curve_columns
    each = "column" if images else "colour"
    note = f"From lap 1 on, each {each} starts from the same noise."
    if any(part.stage == "ceiling" for part in source.evaluations):
        note += " Ceiling: the same network trained on clean data."
    title = f"{source.experiment}: samples of the prior, lap by lap"
    return draw(_fitted(blocks, source), title, note)


def inpainting(source: Source) -> Figure:
    """Draws test observations, posterior samples by lap, their last mean, and any truth.

    Raises:
        DiemError: If the observations are no images of which pixels are missing.
    """
    blocks: dict[str, dict[Row, np.ndarray]] = defaultdict(dict)
    for part in source.evaluations:
        draws, y = part.arrays["posterior/x"], part.arrays["posterior/y"]
        if y.shape[1:] != draws.shape[2:]:
            raise DiemError(
                f"figures: inpainting needs observations of the data's shape {draws.shape[2:]}, and"
                f" {part.observations!r} has {y.shape[1:]}."
            )
        block = blocks[part.observations]
        block[Row(-1, "observed")] = np.where(part.arrays["posterior/observed"], y, np.nan)
        block[Row.of(part.stage, part.lap)] = draws[:, 0]
        block[Row(math.inf, "posterior\nmean")] = draws.mean(axis=1)
        if "posterior/truth" in part.arrays:
            block[Row(math.inf, "truth")] = part.arrays["posterior/truth"]
    return image_rows(
        _fitted(blocks, source),
        f"{source.experiment}: inpainting of test observations, lap by lap",
        "Missing pixels are orange. Each lap shows one posterior sample an observation, from lap 1"
        f" on with the same noise; the mean is of {draws.shape[1]} samples after the last lap.",
    )


def _fitted(
    blocks: Mapping[str, Mapping[Row, np.ndarray]], source: Source
) -> dict[str, dict[Row, np.ndarray]]:
    """Returns blocks under the names of their runs, with no more images than can be seen."""
    count = max(4, 24 // len(blocks))
    runs = {part.observations: part.run for part in source.evaluations if part.stage == "lap"}
    fitted = {}
    for observations, block in blocks.items():
        label = source.labels[runs[observations]]
        name = observations if label == observations else f"{observations}, {label}"
        fitted[name] = {row: x[:count] for row, x in block.items()}
    return fitted
