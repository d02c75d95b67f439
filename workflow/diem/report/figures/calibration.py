"""The figure of how often posterior intervals hold the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.errors import DiemError
from diem.evaluation.metrics import find_all
from diem.report.figures.base import Facts, Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

__all__ = ["Calibration"]

METRIC = "calibration"

PANELS = {
    "values": "single values",
    "total": "sum of all values",
    "distance": "distance to another truth",
}
"""What is ranked in a panel, by the name of its array."""


class Calibration(Figure):
    """The coverage of posterior intervals against what they promise."""

    name = "calibration"
    clean = True
    reads = Reads(
        rows=True,
        stages=("floor", "last", "ceiling"),
        every=True,
        arrays=tuple(f"{METRIC}/{name}" for name in PANELS),
    )
    caption = """\
How often central intervals of posterior samples hold the truth of test observations of
``{{ snakemake.wildcards.experiment }}``, against how often they should: on the diagonal the error
bars can be believed, below it they are too narrow, above it too wide.
Single values are those that no observation depends on, where there are such; the sum of all
values and the distance to another truth see what single values do not.
Shaded: two standard errors over observations as if they were independent, also where those of one
group, such as a volume, resemble each other; grey: where nineteen of twenty perfect samplers lie.
"""

    def problem(self, facts: Facts) -> str | None:
        evaluated = {metric.name for metric in find_all(facts.metrics)}
        missing = METRIC not in evaluated
        return f"evaluation.metrics with {METRIC}" if missing else super().problem(facts)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.coverage import Line, coverages

        lines = []
        for evaluation in source.evaluations:
            if evaluation.stage == "lap":
                label = source.labels[evaluation.run]
            else:
                bounds = source.ceilings.get(evaluation.observations, {})
                label = bounds.get(evaluation.run, evaluation.stage)
            found = {
                PANELS[name]: evaluation.arrays[f"{METRIC}/{name}"][:]
                for name in PANELS
                if f"{METRIC}/{name}" in evaluation.arrays
            }
            lines.append(Line(evaluation.observations, evaluation.stage, label, found))
        if not any(line.transforms for line in lines):
            raise DiemError(f"figures: {self.name!r} needs evaluation.metrics with {METRIC}.")
        title = f"{source.experiment}: how often posterior intervals hold the truth"
        return coverages(lines, title, _of_seed(source.rows))


def _of_seed(rows: pd.DataFrame | None) -> str:
    """Returns which seed the lines are of, in a sentence, where rows are means over several."""
    seeds = "" if rows is None or rows.empty else str(rows["seed"].iloc[0])
    first, *others = seeds.split(", ")
    return f"Of seed {first} alone; tables are of the seeds {seeds}." if others else ""
