"""The distance of samples to the curve that they should lie on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.arrays import double
from diem.evaluation.metrics.base import Label, Measurement, Metric, Panel, mean_of
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation


__all__ = ["DistanceToManifold", "distance_to_manifold"]

CURVE_POINTS = 2**14
"""Points of the polyline that stands for the manifold; distances are to its segments."""


def distance_to_manifold(x: Array, curve: Array, chunk: int = 2**22) -> Tensor:
    r"""Returns each sample's Euclidean distance to a curve, in the unit of the data.

    The curve is the polyline through its points, open at its ends. The distance is to its segments,
    not to its points, and exact but for rounding, at most about 1e-7 at the scale of the data.

    Arguments:
        x: The samples, with shape :math:`(N, D)`.
        curve: The points of the curve in their order, with shape :math:`(P, D)`.
        chunk: The number of pairs of a sample and a segment held in memory at once.

    Returns:
        The distances, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    x = double(x)
    curve = double(curve).to(x.device)
    if x.ndim != 2 or curve.ndim != 2 or x.shape[1] != curve.shape[1] or len(curve) < 2:
        raise ValueError(
            f"Samples (N, D) and a curve (P >= 2, D) are needed, got {tuple(x.shape)} and "
            f"{tuple(curve.shape)}."
        )
    start, step = curve[:-1], curve.diff(dim=0)
    # Repeated points are segments of length zero.
    length = step.square().sum(dim=1).clamp(min=torch.finfo(step.dtype).tiny)

    distances = []
    for rows in x.split(max(chunk // len(start), 1)):
        # With w = x - start, the squared distance to w's foot t * step is
        # |w|^2 - 2 t <w, step> + t^2 |step|^2; products of matrices give all pairs.
        along = rows @ step.T - (start * step).sum(dim=1)
        t = (along / length).clamp(0, 1)
        squared = start.square().sum(dim=1) - 2 * rows @ start.T + t * (t * length - 2 * along)
        nearest = squared.argmin(dim=1)
        # The expanded square is too coarse near zero for anything but finding the segment.
        t = t.gather(1, nearest[:, None])
        foot = start[nearest] + t * step[nearest]
        distances.append(torch.linalg.vector_norm(rows - foot, dim=1))
    return torch.cat(distances)


class DistanceToManifold(Metric):
    """The mean distance of many samples to the exact curve."""

    name = "distance_to_manifold"
    order = 60
    labels = {
        "distance_to_manifold": Label(
            *("Distance to the manifold", "data units", "↓"),
            heading="Manifold distance (data units)",
        )
    }
    needs = frozenset({"clean", "curve"})
    subject = "samples"
    panel = Panel("divergence", 3)
    quality = 3

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.data.sets import DATASETS
        from diem.files.hdf5 import row_parts

        data = DATASETS.parse(evaluation.data)
        curve = torch.from_numpy(data.curve(evaluation.job.seed, CURVE_POINTS))
        for subject, x, card in evaluation.samples:
            distances = torch.cat([distance_to_manifold(part, curve) for part in row_parts(x)])
            yield mean_of(distances, subject, {**card, "reference": "exact curve"})
