"""The covariance of a Gaussian prior, scaled to the denoiser's own error."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

from diem.diffusion.covariances.base import System
from diem.diffusion.covariances.cov_x import CovX
from diem.errors import DiemError
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Measured"]


class Measured(CovX):
    r"""`cov_x`, times the number that makes its trace the denoiser's measured error at the level.

    The system is solved to convergence, whatever `iterations` are: its products take no pass
    through the network. It is symmetric and positive, as that of a trained network's Jacobian
    is not, so that its solutions seldom explode.
    """

    name = "measured"
    needs_error = True

    def solve(self, system: System) -> tuple[Tensor, Tensor]:
        from diem.diffusion.solvers import conjugate_gradient, most_iterations

        most = most_iterations(system.b, math.prod(system.operator.event_shape))
        tolerance = math.sqrt(torch.finfo(system.b.dtype).eps)
        solve = functools.partial(conjugate_gradient, iterations=most, tolerance=tolerance)
        return super().solve(dataclasses.replace(system, solve=solve))

    def matrix(self, var_t: float, covariance: Tensor, hessian: Tensor) -> Tensor:
        raise DiemError(
            "heuristics: the covariance measured is of a trained denoiser, and cannot be compared"
            " under an exact prior."
        )
