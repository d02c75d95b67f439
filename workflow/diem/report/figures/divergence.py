"""The figure of distances between prior samples and the truth, by lap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.evaluation.metrics import panels
from diem.report.figures.base import Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Divergence"]


class Divergence(Figure):
    """How far prior samples are from the truth, by lap."""

    name = "divergence"
    metrics = tuple(panels("divergence"))
    reads = Reads(rows=True)
    caption = """\
Distances between samples of the prior and the clean test data after each evaluated lap; a
line for each run, lower is better.
Lines start at the floor (the Gaussian fit, dashed); the ceiling (the same network trained on
clean data, dotted) is what they can hope for.
"""

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.laps import by_lap

        title = f"{source.experiment}: how far prior samples are from the truth, by lap"
        return by_lap(source.rows, self.metrics, source.labels, title)
