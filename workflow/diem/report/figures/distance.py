"""The figure of Frechet distances and Inception scores of prior samples, by lap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.evaluation.metrics import panels
from diem.report.figures.base import Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Distance"]


class Distance(Figure):
    """How close prior samples are to clean images, by lap."""

    name = "distance"
    metrics = tuple(panels("distance"))
    reads = Reads(rows=True)
    caption = """\
How close samples of the prior are to clean images: FID and Inception score, or the Frechet
distance on the features of the named extractor, which is not FID. A panel for each set of
observations, a line for each run; arrows point to better values.
Lines start at the floor (the Gaussian fit, dashed); the ceiling (the same network trained on
clean data, dotted) is what they can hope for.
"""

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.laps import by_lap

        title = f"{source.experiment}: how close prior samples are to clean images, by lap"
        return by_lap(source.rows, self.metrics, source.labels, title)
