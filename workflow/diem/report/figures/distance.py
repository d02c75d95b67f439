"""The figure of Frechet distances and Inception scores of prior samples, by lap."""

from diem.report.figures.base import ByLap

__all__ = ["Distance"]


class Distance(ByLap):
    """How close prior samples are to clean images, by lap."""

    name = "distance"
    title = "how close prior samples are to clean images, by lap"
    caption = """\
How close samples of the prior are to clean images: FID and Inception score, or the Frechet
distance on the features of the named extractor, which is not FID. A panel for each set of
observations, a line for each run; arrows point to better values.
Lines start at the floor (the Gaussian fit, dashed); the ceiling (the same network trained on
clean data for as many steps, dotted) is what they can hope for.
"""
