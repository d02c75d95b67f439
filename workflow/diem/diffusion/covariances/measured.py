"""The covariance of a Gaussian prior, scaled to the denoiser's own error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diem.diffusion.covariances.cov_x import CovX
from diem.errors import DiemError

if TYPE_CHECKING:
    from torch import Tensor

    from diem.operators.base import Operator

__all__ = ["Measured"]

LEAST = 8
"""The least iterations, where an operator mixes values."""


class Measured(CovX):
    r"""`cov_x`, times the number that makes its trace the denoiser's measured error at the level.

    It is symmetric and positive, as the Jacobian of a trained network is not, so that its
    solutions seldom explode. Its products take no pass through the network, so that operators that
    mix values have 8 iterations at least, or as many as solve the system. Of masks few are better:
    in directions that hardly vary a trained denoiser's error is not what the covariance says.
    """

    name = "measured"
    needs_error = True

    def iterations(self, asked: int, operator: Operator) -> int:
        if operator.elementwise:
            return asked
        shapes = operator.observation_shape, operator.event_shape
        return max(asked, min(LEAST, *map(math.prod, shapes)))  # which solve it

    def matrix(self, var_t: float, covariance: Tensor, hessian: Tensor) -> Tensor:
        raise DiemError(
            "heuristics: the covariance measured is of a trained denoiser, and cannot be compared"
            " under an exact prior."
        )
