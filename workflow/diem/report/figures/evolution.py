"""The figure of the prior lap by lap: pair marginals, from the floor to the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from diem.report.figures.base import VECTORS, Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Evolution"]


class Evolution(Figure):
    """How the prior's pair marginals change from the floor over the laps, to any clean data."""

    name = "evolution"
    reads = Reads(truth=True, stages=("floor", "laps"), arrays=("prior/x",))
    caption = """\
Marginals of neighbouring pairs of coordinates of prior samples: of the Gaussian fit, of the
learned prior lap by lap, and the clean test data that no lap has seen.
Read from left to right: the cloud should tighten into the curve of the last column.
"""
    what: ClassVar[str] = "prior"
    title: ClassVar[str] = "the prior of run {}, lap by lap"

    def problem(self, facts: Facts) -> str | None:
        return super().problem(facts) or (None if facts.vectors else VECTORS)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.images import Heading
        from diem.report.drawing.marginals import BINS, TRUTH, pairs_by_column

        last, (array,) = source.evaluations[-1], self.reads.arrays
        samples = {
            Heading.of(evaluation.stage, evaluation.lap).name: evaluation.arrays[array]
            for evaluation in source.evaluations
        }
        note = f"{len(last.arrays[array]):,} {self.what} samples a lap"
        if source.truth is not None:
            samples[TRUTH] = source.truth
            note += f"; truth: {len(source.truth):,} clean test samples"
        return pairs_by_column(
            samples,
            f"{source.experiment}: {self.title.format(source.labels[last.run])}",
            f"{note}. {BINS} x {BINS} bins; all panels share one scale of colours.",
        )
