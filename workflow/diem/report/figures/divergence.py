"""The figure of distances between prior samples and the truth, by lap."""

from diem.report.figures.base import ByLap

__all__ = ["Divergence"]


class Divergence(ByLap):
    """How far prior samples are from the truth, by lap."""

    name = "divergence"
    title = "how far prior samples are from the truth, by lap"
    caption = """\
Distances between samples of the prior and the clean test data after each evaluated lap; a
line for each run, lower is better. Distances of posterior samples, which the paper shows as its
truncated divergence, are among the rows of the table of metrics, as those of the E-step's samples.
Lines start at the floor (the Gaussian fit, dashed); the ceiling (the same network trained on
clean data for as many steps, dotted) is what they can hope for.
"""
