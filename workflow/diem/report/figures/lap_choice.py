"""The figure of the number that the lap is chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.evaluation.metrics import by_quality, selecting
from diem.report.figures.base import Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["LapChoice"]


class LapChoice(Figure):
    """The lap to use by held-out observations, and what clean data say of the same laps."""

    name = "lap_choice"
    metrics = tuple(selecting())
    reads = Reads(rows=True)
    caption = """\
The lap to use of each run, ringed, by the prediction of hidden halves of held-out
observations, which needs no clean data.
Where there are clean data, the next panel shows the same laps by them: a good choice has its
ring at the same lap, or at one that is as good.
"""

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.errors import DiemError
        from diem.report.drawing.laps import by_lap

        known = set(source.rows["metric"])
        if known.isdisjoint(self.metrics):
            raise DiemError(
                f"figures: 'lap_choice' needs evaluation.metrics with {' or '.join(self.metrics)}."
            )
        clean = [name for name in by_quality() if name in known][:1]
        title = f"{source.experiment}: the lap to use, ringed, by held-out observations alone"
        if clean:
            several = source.rows["observations"].nunique() > 1
            title += f" ({'above' if several else 'left'}) and by clean data"
        metrics = [*self.metrics, *clean]
        return by_lap(source.rows, metrics, source.labels, title, marked=True)
