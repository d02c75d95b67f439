"""The figure of prior samples by lap."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from diem.report.figures.base import VISIBLE, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Prior"]


class Prior(Figure):
    """Prior samples by lap, as images or as curves, for a run of each set of observations."""

    name = "prior"
    reads = Reads(stages=("floor", "laps", "ceiling"), every=True, arrays=("prior/x",), count=12)
    caption = """\
Unconditional samples of the prior after each evaluated lap, for the first run of each set of
observations, beside the Gaussian fit and the run's ceiling (the same network trained on clean
data for as many steps).
Read a column of images downwards, or follow a colour to the right: from lap 1 on it starts
from the same noise, so what changes is what the lap has learned.
"""

    def problem(self, facts: Facts) -> str | None:
        hidden = facts.images and not facts.visible
        return super().problem(facts) or (VISIBLE if hidden else None)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading, curve_columns, image_rows, labelled

        panels: dict = defaultdict(dict)
        for evaluation in source.evaluations:
            heading = Heading.of(evaluation.stage, evaluation.lap)
            panels[evaluation.observations][heading] = evaluation.arrays["prior/x"]
        images = source.evaluations[0].arrays["prior/x"].ndim == 4
        draw = image_rows if images else curve_columns
        each = "column" if images else "colour"
        note = f"From lap 1 on, each {each} starts from the same noise."
        if any(evaluation.stage == "ceiling" for evaluation in source.evaluations):
            note += " Ceiling: the same network trained as long on clean data."
        title = f"{source.experiment}: samples of the prior, lap by lap"
        return draw(labelled(panels, source), title, note)
