"""The figure of the prior lap by lap: pair marginals, from the floor to the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.report.figures.base import VECTORS, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Evolution"]


class Evolution(Figure):
    """How the prior's pair marginals change from the floor over the laps, to any clean data."""

    name = "evolution"
    reads = Reads(truth=True, stages=("floor", "laps"), arrays=("prior/x",))
    caption = """\
Marginals of neighbouring pairs of coordinates: the Gaussian fit, the learned prior lap by
lap, and the clean test data that no lap has seen.
Read from left to right: the cloud should tighten into the curve of the last column.
"""

    def problem(self, facts: Facts) -> str | None:
        return super().problem(facts) or (None if facts.vectors else VECTORS)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading
        from diem.report.drawing.marginals import BINS, TRUTH, pairs_by_column

        last = source.evaluations[-1]
        samples = {
            Heading.of(evaluation.stage, evaluation.lap).name: evaluation.arrays["prior/x"]
            for evaluation in source.evaluations
        }
        note = f"{len(last.arrays['prior/x']):,} prior samples a lap"
        if source.truth is not None:
            samples[TRUTH] = source.truth
            note += f"; truth: {len(source.truth):,} clean test samples"
        return pairs_by_column(
            samples,
            f"{source.experiment}: the prior of run {source.labels[last.run]}, lap by lap",
            f"{note}. {BINS} x {BINS} bins; all panels share one scale of colours.",
        )
