"""The figure of the marginals of the prior after the last lap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.report.figures.base import VECTORS, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["CornerModel"]


class CornerModel(Figure):
    """The marginals of every coordinate, and of every pair, of the prior after the last lap."""

    name = "corner_model"
    clean = True
    reads = Reads(truth=True, stages=("last",), arrays=("prior/x",))
    caption = """\
Marginals of every coordinate and of every pair of coordinates of samples of the prior after
the last lap.
The lines on the diagonal are the clean test data; compare the other panels with ``{{
snakemake.wildcards.experiment }}_corner_truth``.
"""

    def problem(self, facts: Facts) -> str | None:
        return super().problem(facts) or (None if facts.vectors else VECTORS)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.marginals import BINS, corner

        last = source.evaluations[-1]
        x = last.arrays["prior/x"]
        return corner(
            x,
            f"{source.experiment}: the prior of run {source.labels[last.run]} after lap {last.lap}",
            f"{len(x):,} prior samples. On the diagonal, truth: {len(source.truth):,} clean test"
            f" samples. {BINS} bins an axis.",
            source.truth,
        )
