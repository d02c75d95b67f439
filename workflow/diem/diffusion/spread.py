r"""The spread of ``x`` given ``x_t``, which few steps of a sampler leave out.

A step of ancestral sampling puts the mean :math:`d(x_t)` in the place of a draw of :math:`x` given
:math:`x_t`. What is left out is :math:`z \sim N(0, V[x \mid x_t])`, or, with an observation,

.. math:: z \sim N(0, V_y), \qquad V_y = V - V A^\top (\Sigma_y + A V A^\top)^{-1} A V .

With it a step is exact however long it is, if :math:`x` is Gaussian. A draw takes no evaluation of
the network: it is a posterior sample of :math:`N(0, V)` for the observation ``y = 0``. Here
:math:`V` is the denoising covariance of the prior's Gaussian, times the number that makes its trace
the denoiser's own mean squared error at the noise level.
"""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from azula.denoise import GaussianDenoiser
from azula.linalg.covariance import DPLRCovariance
from torch import Tensor

from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.prior import Prior
from diem.errors import DiemError
from diem.operators.base import Operator
from diem.seeds import Stage, stream_beside

__all__ = ["Spread"]


class Spread:
    """Draws of what a denoiser's mean leaves out.

    Arguments:
        gaussian: The prior's Gaussian.
        sigma: Noise levels, descending.
        ratio: The denoiser's mean squared error there, relative to the Gaussian's.
    """

    def __init__(self, gaussian: Gaussian, sigma: np.ndarray, ratio: np.ndarray) -> None:
        self.gaussian = gaussian
        self.log_sigma, self.log_ratio = np.log(sigma[::-1]), np.log(ratio[::-1])

    @classmethod
    def of(cls, prior: Prior) -> Self:
        """Returns the spread of a prior.

        Raises:
            DiemError: If the prior's card does not tell its denoiser's error.
        """
        if isinstance(prior.denoiser, GaussianDenoiser):
            return cls(prior.gaussian, np.ones(1), np.ones(1))
        error: dict[str, Any] | None = prior.card.get(CARD_ERROR)
        if error is None:
            raise DiemError(
                f"The prior's card has no {CARD_ERROR!r}, since an earlier version trained it: set"
                " sampler.spread to none and covariance to another than measured, or train the"
                " prior again."
            )
        sigmas = torch.tensor(error["sigma"], dtype=torch.float64)
        gaussian = prior.gaussian.to(sigmas)
        own = [float(gaussian.denoising_error(sigma**2).mean_variance) for sigma in sigmas]
        return cls(prior.gaussian, sigmas.numpy(), np.array(error["error"]) / own)

    def at(self, sigma: Tensor) -> Gaussian:
        """Returns :math:`N(0, V)` at a noise level, of shape ``()``."""
        ratio = math.exp(np.interp(math.log(float(sigma)), self.log_sigma, self.log_ratio))
        z = self.gaussian.denoising_error(sigma**2)
        return Gaussian(z.mean, ratio * z.noise, math.sqrt(ratio) * z.factors)

    def denoising_error(self, var_t: Tensor) -> Gaussian:
        """Returns :math:`N(0, V)`, where the noise's variance is ``var_t``, of shape ``()``."""
        return self.at(torch.sqrt(var_t))

    def denoising_covariance(self, var_t: Tensor) -> DPLRCovariance:
        """Returns :math:`V`, where the noise's variance is ``var_t``, of shape ``()``."""
        return self.denoising_error(var_t).covariance

    def prior_draws(self, count: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Returns a function that draws ``(count, *event)`` values of the spread at a noise level.

        Arguments:
            count: The number of draws.
            generator: The sampler's random stream, which is left where it stands.
        """
        own = stream_beside(generator, Stage.SPREAD)
        return lambda sigma: self.at(sigma).sample(count, own)

    def posterior_draws(
        self, operator: Operator, y: Tensor, sigma_y: float | Tensor, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Returns a function that draws the spread given an observation at a noise level.

        Arguments:
            operator: The forward operators, one an observation.
            y: The observations, of shape ``(B, *observation)``, whose values are of no weight.
            sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
            generator: The sampler's random stream, which is left where it stands.

        Returns:
            The function, whose draws have the shape ``(B, *event)``.
        """
        own, zero = stream_beside(generator, Stage.SPREAD), torch.zeros_like(y)
        return lambda sigma: self.at(sigma).sample_posterior(
            operator, zero, sigma_y, own, rough=True
        )
