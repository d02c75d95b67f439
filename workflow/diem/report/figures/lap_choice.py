"""The figure of the number that the lap is chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.errors import DiemError
from diem.evaluation.metrics import Entries, by_quality, selecting
from diem.report.figures.base import ByLap, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["LapChoice"]


class LapChoice(ByLap):
    """The lap to use by validation observations, and what clean data say of the same laps."""

    name = "lap_choice"
    title = "the lap to use, ringed, by validation observations alone"
    reads = Reads(rows=True, chosen=True)
    caption = """\
The lap to use of each run, ringed, by the prediction of hidden halves of validation
observations, which needs no clean data; lap 0 is the Gaussian prior. Of several seeds, the lap is
that of the first, and lines are means.
Where there are clean data, the next panel shows the same laps by them: a good choice has its
ring at the same lap, or at one that is as good.
"""

    def shown(self, metrics: Entries) -> list[str]:
        return selecting()

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        chosen_by = self.shown(source.metrics)
        evaluated = set(source.rows["metric"])
        if evaluated.isdisjoint(chosen_by):
            raise DiemError(
                f"figures: {self.name!r} needs evaluation.metrics with {' or '.join(chosen_by)}."
            )
        title = self.title
        clean = [name for name in by_quality(source.metrics) if name in evaluated][:1]
        if clean:
            several = source.rows["observations"].nunique() > 1
            title += f" ({'above' if several else 'left'}) and by clean data"
        return self.draw_panels(source, [*chosen_by, *clean], title, source.chosen)
