"""The figure of test observations, and what posterior samples fill in by lap."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from diem.errors import DiemError
from diem.report.figures.base import VISIBLE, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Inpainting"]


class Inpainting(Figure):
    """Test observations, posterior samples by lap, their last mean, and any truth."""

    name = "inpainting"
    reads = Reads(
        stages=("floor", "laps"),
        every=True,
        arrays=("posterior/x", "posterior/y", "posterior/observed", "posterior/truth"),
        count=8,
    )
    caption = """\
Test observations with their missing pixels in orange, one posterior sample of each after
every evaluated lap, the mean of the posterior samples after the last lap, and the truth.
Read a column downwards: what is filled in should come to look like the data, and agree with
the pixels that were seen.
"""

    def problem(self, facts: Facts) -> str | None:
        if reason := super().problem(facts):
            return reason
        if not facts.visible:
            return VISIBLE
        for name, operator in facts.operators.items():
            # What a class of the user's own would simulate is known only when it runs.
            if operator.keeps_shape is False:
                return (
                    "observations of the data's shape, and those of"
                    f" observations.{name} have another"
                )
        return None

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading, image_rows, labelled

        panels: dict = defaultdict(dict)
        for evaluation in source.evaluations:
            arrays = evaluation.arrays
            draws, y = arrays["posterior/x"], arrays["posterior/y"]
            if y.shape[1:] != draws.shape[2:]:
                raise DiemError(
                    f"figures: inpainting needs observations of the data's shape {draws.shape[2:]},"
                    f" and {evaluation.observations!r} has {y.shape[1:]}."
                )
            panel = panels[evaluation.observations]
            panel[Heading(-1, "observed")] = np.where(arrays["posterior/observed"], y, np.nan)
            panel[Heading.of(evaluation.stage, evaluation.lap)] = draws[:, 0]
            panel[Heading(math.inf, "posterior\nmean")] = draws.mean(axis=1)
            if "posterior/truth" in arrays:
                panel[Heading(math.inf, "truth")] = arrays["posterior/truth"]
        return image_rows(
            labelled(panels, source),
            f"{source.experiment}: inpainting of test observations, lap by lap",
            "Missing pixels are orange. Each lap shows one posterior sample an observation, from"
            f" lap 1 on with the same noise; the mean is of {draws.shape[1]} samples after the last"
            " lap.",
        )
