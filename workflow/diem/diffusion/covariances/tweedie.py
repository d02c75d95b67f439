"""The covariance by Tweedie's formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.diffusion.covariances.base import Covariance, System
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Tweedie"]


class Tweedie(Covariance):
    r"""The paper's choice (MMPS): :math:`V = \sigma_t^2 J`, which is exact for an exact denoiser.

    The adjoint :math:`J^\top` stands for :math:`J`, as it does in the authors' code: the two are
    equal for the exact denoiser, and nearly so for a trained network.
    """

    name = "tweedie"

    def products(self, iterations: int) -> int:
        return iterations

    def solve(self, system: System) -> tuple[Tensor, Tensor]:
        # d log p(x_t) is scaled by alpha in a schedule that shrinks x; alpha is 1 for VE.
        gamma_t = system.sigma_t**2 / system.alpha_t

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            g = system.jacobian(system.operator.adjoint(p))
            return system.var_y * p + gamma_t * system.operator.forward(g), g

        # The by-product of the solution is J' A' v: it costs no product of its own.
        return system.solve(product, system.b)

    def matrix(self, var_t: float, covariance: Tensor, hessian: Tensor) -> Tensor:
        identity = torch.eye(hessian.shape[-1]).to(hessian)
        return var_t * (identity + var_t * hessian)
