"""The figure of the marginals of the clean test data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.report.figures.base import VECTORS, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["CornerTruth"]


class CornerTruth(Figure):
    """The marginals of every coordinate, and of every pair, of the clean test data."""

    name = "corner_truth"
    clean = True
    reads = Reads(truth=True)
    caption = """\
Marginals of every coordinate and of every pair of coordinates of the clean test data.
This is what the learned prior should look like; compare with ``{{
snakemake.wildcards.experiment }}_corner_model``.
"""

    def problem(self, facts: Facts) -> str | None:
        return super().problem(facts) or (None if facts.vectors else VECTORS)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.marginals import BINS, corner

        note = f"{len(source.truth):,} clean test samples. {BINS} bins an axis."
        return corner(source.truth, f"{source.experiment}: the truth", note)
