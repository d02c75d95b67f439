"""Figures: functions of arrays and metric rows that return a Matplotlib figure.

Nothing is measured here and nothing is read from files. A figure of an experiment is one function
of a :class:`Source`, registered in :data:`FIGURES` under the name that the config's ``figures``
selects.
"""

from collections.abc import Callable

from matplotlib.figure import Figure

from diem.report.figures.chain import (
    corner_model,
    corner_truth,
    distance,
    divergence,
    evolution,
    inpainting,
    lap_choice,
    prior,
)
from diem.report.figures.drawing import (
    Evaluation,
    Row,
    Source,
    by_lap,
    corner,
    image_rows,
    marginals,
    save,
)
from diem.report.figures.mri import slices, uncertainty
from diem.report.figures.posteriors import POSTERIORS, posteriors

__all__ = [
    "FIGURES",
    "POSTERIORS",
    "READS",
    "Evaluation",
    "Row",
    "Source",
    "by_lap",
    "corner",
    "image_rows",
    "marginals",
    "posteriors",
    "save",
]

FIGURES: dict[str, Callable[[Source], Figure]] = {
    "evolution": evolution,
    "corner_truth": corner_truth,
    "corner_model": corner_model,
    "divergence": divergence,
    "distance": distance,
    "lap_choice": lap_choice,
    "prior": prior,
    "inpainting": inpainting,
    "slices": slices,
    "uncertainty": uncertainty,
}

READS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "evolution": (("prior/x",), None),
    "corner_model": (("prior/x",), None),
    "prior": (("prior/x",), 12),
    "inpainting": (
        ("posterior/x", "posterior/y", "posterior/observed", "posterior/truth"),
        8,
    ),
    "slices": (
        tuple(f"posterior/{name}" for name in ("x", "y", "observed", "adjoint", "truth")),
        8,
    ),
    "uncertainty": (("posterior/x", "posterior/adjoint", "posterior/truth"), 8),
}
"""The arrays of an evaluation that a figure reads, and how many rows of them, or None for all."""
