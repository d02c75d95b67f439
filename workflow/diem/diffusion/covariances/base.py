r"""What a choice of :math:`V \approx V[x \mid x_t]` is, and the linear system that it enters.

The likelihood of an observation given a noisy sample is approximated by :math:`q(y \mid x_t) = N(y
\mid A d(x_t), \Sigma_y + A V A^\top)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from diem.components import Component
from diem.lazy import torch

if TYPE_CHECKING:
    from azula.linalg.covariance import Covariance as LinearMap
    from torch import Tensor

    from diem.diffusion.gaussian import Gaussian
    from diem.operators.base import Operator

__all__ = ["CARD_ERROR", "Covariance", "Denoising", "System"]

CARD_ERROR = "denoising_error"
"""Where a prior's card tells its denoiser's error: ``sigma`` and ``error``, a list each."""


class Denoising(Protocol):
    """What is known of ``x`` given ``x_t`` without the network: a Gaussian, scaled or not."""

    def denoising_covariance(self, var_t: Tensor) -> LinearMap:
        r"""Returns :math:`V[x \mid x_t]`, where the noise's variance is ``var_t``."""

    def denoising_error(self, var_t: Tensor) -> Gaussian:
        r"""Returns :math:`N(0, V[x \mid x_t])`."""


@dataclass(frozen=True)
class System:
    r"""The linear system :math:`(\Sigma_y + A V A^\top) \, v = b` of a batch of noisy samples.

    Arguments:
        operator: The forward operators :math:`A`, one a sample.
        var_y: The noise's variance, the diagonal of :math:`\Sigma_y`; it broadcasts to ``b``.
        b: The residuals :math:`y - A d(x_t)`, of shape ``(B, *observation)``.
        jacobian: Returns :math:`J^\top u`, for ``u`` of shape ``(B, *event)``, where :math:`J` is
            the denoiser's Jacobian. It is the one part that costs a pass through the network.
        alpha_t: The schedule's scale of ``x`` in ``x_t``.
        sigma_t: The schedule's standard deviation of the noise in ``x_t``.
        gaussian: The prior's mean and covariance, where they are known.
        solve: Solves the system, given a function that returns :math:`(\Sigma_y + A V A^\top) p`
            and a by-product that is linear in ``p``. It returns :math:`v` and its by-product.
    """

    operator: Operator
    var_y: Tensor
    b: Tensor
    jacobian: Callable[[Tensor], Tensor]
    alpha_t: Tensor
    sigma_t: Tensor
    gaussian: Denoising | None
    solve: Callable[[Callable[[Tensor], tuple[Tensor, Tensor]], Tensor], tuple[Tensor, Tensor]]


class Covariance(Component):
    r"""A choice of :math:`V`. One of one's own defines :meth:`variance`."""

    needs_gaussian: ClassVar[bool] = False
    """Whether it needs the prior's mean and covariance."""

    needs_error: ClassVar[bool] = False
    """Whether it needs them scaled to the denoiser's error, which the prior's card tells."""

    def products(self, iterations: int) -> int:
        """Returns the number of vector-Jacobian products of one evaluation of the posterior.

        Arguments:
            iterations: The number of the solver's iterations.
        """
        return 1

    def iterations(self, asked: int, operator: Operator) -> int:
        """Returns the number of the solver's iterations, of those that were asked for."""
        return asked

    def variance(self, var_t: Tensor, gaussian: Denoising | None) -> LinearMap:
        r"""Returns :math:`V`, as azula's covariance.

        Arguments:
            var_t: The variance of the noise, of shape ``()``, where ``x`` has the scale 1.
            gaussian: The prior's mean and covariance, where they are known.
        """
        raise NotImplementedError

    def solve(self, system: System) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`v`, of shape ``(B, *observation)``, and :math:`J^\top A^\top v`.

        Arguments:
            system: The linear system.
        """
        v = self.variance((system.sigma_t / system.alpha_t) ** 2, system.gaussian)

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            vp = v(system.operator.adjoint(p))
            return system.var_y * p + system.operator.forward(vp), p

        solution, _ = system.solve(product, system.b)
        return solution, system.jacobian(system.operator.adjoint(solution))

    def matrix(self, var_t: float, covariance: Tensor, hessian: Tensor) -> Tensor:
        r"""Returns :math:`V` under a prior of which everything is known, to compare the choices.

        Arguments:
            var_t: The variance of the noise.
            covariance: The covariance of the prior, of shape ``(D, D)``.
            hessian: The Hessians of :math:`\log p(x_t)`, of shape ``(N, D, D)``.

        Returns:
            The matrix, of shape ``(D, D)``, or ``(N, D, D)`` where it depends on ``x_t``.
        """
        identity = torch.eye(len(covariance)).to(covariance)
        return self.variance(covariance.new_tensor(var_t), None)(identity)
