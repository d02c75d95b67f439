"""The figure of posterior samples lap by lap, which the paper shows of the manifold."""

from __future__ import annotations

from diem.report.figures.base import Reads
from diem.report.figures.evolution import Evolution

__all__ = ["EvolutionPosterior"]


class EvolutionPosterior(Evolution):
    """How the pair marginals of the samples that laps train on change, to any clean data."""

    name = "evolution_posterior"
    reads = Reads(truth=True, stages=("laps",), arrays=("e_step/x",))
    caption = """\
Marginals of neighbouring pairs of coordinates of posterior samples: those that each lap's prior
was trained on, which the prior before it drew, one for each observation; and the clean test data.
The paper shows posterior samples too, each lap's by its own prior: its k-th column is that of lap
k + 1 here. Prior samples are in ``{{ snakemake.wildcards.experiment }}_evolution``.
"""
    what = "posterior"
    title = "what laps of run {} train on"
