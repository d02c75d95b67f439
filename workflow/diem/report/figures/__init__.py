"""Figures of an experiment: one file a figure, see :mod:`diem.report.figures.base`.

Nothing is measured here and nothing is read from files.
"""

from diem.report.figures.base import FIGURES, Evaluation, Facts, Figure, Losses, Reads, Source

__all__ = ["FIGURES", "Evaluation", "Facts", "Figure", "Losses", "Reads", "Source"]
