"""The figure of test slices of accelerated MRI, from k-space to posterior samples by lap."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from diem.errors import DiemError
from diem.report.figures.base import Evaluation, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Slices"]

COUNT = 8
"""The slices that the figure shows, at most, of one set of observations."""


class Slices(Figure):
    """Test slices: k-space, zero-filled inverse, posterior samples by lap, and the truth."""

    name = "slices"
    clean = True
    reads = Reads(
        stages=("floor", "laps"),
        every=True,
        arrays=tuple(f"posterior/{name}" for name in ("x", "y", "observed", "adjoint", "truth")),
        count=COUNT,
    )
    caption = """\
Test slices of ``{{ snakemake.wildcards.experiment }}``: what was measured of k-space, its
zero-filled inverse, and how posterior samples change over the laps.
"""

    def problem(self, facts: Facts) -> str | None:
        if reason := super().problem(facts):
            return reason
        kspace = facts.images and all(operator.kspace for operator in facts.operators.values())
        return None if kspace else "images whose Fourier transforms are observed"

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading, image_rows
        from diem.report.drawing.intensities import grey

        panels: dict = defaultdict(dict)
        for evaluation in source.evaluations:
            panel, arrays = panels[evaluation.observations], evaluation.arrays
            draws = arrays["posterior/x"]
            panel[Heading(-2, "k-space\n(log scale)")] = _spectrum(evaluation)
            panel[Heading(-1, "zero-filled\ninverse")] = grey(arrays["posterior/adjoint"])
            panel[Heading.of(evaluation.stage, evaluation.lap)] = grey(draws[:, 0])
            panel[Heading(math.inf, "posterior\nmean")] = grey(draws.mean(axis=1))
            panel[Heading(math.inf, "truth")] = grey(arrays["posterior/truth"])
        count = max(4, COUNT // len(panels))
        return image_rows(
            {name: {row: x[:count] for row, x in panel.items()} for name, panel in panels.items()},
            f"{source.experiment}: test slices, from k-space to posterior samples, lap by lap",
            "Columns of k-space that are not measured are orange. Each lap shows one posterior"
            f" sample a slice, from lap 1 on with the same noise; the mean is of {draws.shape[1]}"
            " samples after the last lap.",
        )


def _spectrum(evaluation: Evaluation) -> np.ndarray:
    """Returns the logarithm of k-space's magnitude over all coils in [-2, 2], NaN where unknown."""
    y = evaluation.arrays["posterior/y"]
    if y.ndim != 4 or y.shape[1] % 2:
        raise DiemError(
            f"figures: slices needs Fourier observations, and those of {evaluation.observations!r}"
            f" have shape {y.shape[1:]}."
        )
    magnitude = np.sqrt(np.square(y).sum(axis=1, keepdims=True))
    decades = 3
    level = np.log10(magnitude / magnitude.max() + 10.0**-decades) / decades + 1
    return np.where(evaluation.arrays["posterior/observed"][:, :1], 4 * level - 2, np.nan)
