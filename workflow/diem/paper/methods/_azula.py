"""What extends azula's classes for the methods, apart from their declarations: it imports torch."""

from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import PGDMSampler
from torch import Tensor

from diem.diffusion.solvers import gmres
from diem.paper.methods.base import Problem

__all__ = ["NoisyPGDMSampler", "ProjectedDenoiser", "Reshaped"]


class NoisyPGDMSampler(PGDMSampler):
    r"""azula's PGDM with the publication's pseudo-inverse for noisy observations.

    .. math:: A^\dagger = r_t^2 A^\top (r_t^2 A A^\top + \sigma_y^2 I)^{-1}, \qquad
        r_t^2 = \frac{\sigma_t^2}{\alpha_t^2 + \sigma_t^2}

    Arguments:
        denoiser: The prior's denoiser.
        problem: The observations.
        iterations: The GMRES iterations of the inverse.
        options: What azula's sampler takes beside.
    """

    def __init__(
        self, denoiser: Denoiser, problem: Problem, iterations: int, **options: Any
    ) -> None:
        # azula inverts y and A x apart, for which few iterations are not linear enough: it gets
        # zero and A x - y.
        super().__init__(denoiser, 0 * problem.y, self.residual, self.inverse, **options)
        self.problem, self.iterations = problem, iterations

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """Steps from one time to the next, and takes note of the noise of the first."""
        alpha_t, sigma_t = self.denoiser.schedule(t)
        self.variance = sigma_t**2 / (alpha_t**2 + sigma_t**2)
        return super().step(x_t, t, s, **kwargs)

    def residual(self, x: Tensor) -> Tensor:
        """Returns ``A x - y``."""
        return self.problem.operator.forward(x) - self.problem.y

    def inverse(self, y: Tensor) -> Tensor:
        r"""Returns :math:`A^\dagger y` at the time of the last step."""
        operator, _, sigma_y = self.problem

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            back = operator.adjoint(p)
            return self.variance * operator.forward(back) + sigma_y**2 * p, back

        _, x = gmres(product, y, self.iterations)
        return self.variance * x


class ProjectedDenoiser(Denoiser):
    r"""The posterior denoiser of TMPD.

    .. math:: \hat x + \frac{\sigma_t^2}{\alpha_t} J^\top A^\top
        (A \, \mathrm{diag}(v) A^\top + \sigma_y^2 I)^{-1} (y - A \hat x), \qquad
        v = \frac{\sigma_t^2}{\alpha_t} J^\top 1

    where :math:`v` stands for the diagonal of Tweedie's covariance, and is the sums of its rows,
    for :math:`J`, the Jacobian of :math:`\hat x`, is symmetric.

    Arguments:
        denoiser: The prior's denoiser.
        problem: The observations.
        iterations: The GMRES iterations.
    """

    def __init__(self, denoiser: Denoiser, problem: Problem, iterations: int) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.problem, self.iterations = problem, iterations

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Denoises, given the observations."""
        operator, y, sigma_y = self.problem
        alpha_t, sigma_t = self.schedule(t)
        scale = sigma_t**2 / alpha_t
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.denoiser(x_t, t, **kwargs).mean

        def covariance(v: Tensor) -> Tensor:
            return scale * torch.autograd.grad(x_hat, x_t, v, retain_graph=True)[0]

        variance = covariance(torch.ones_like(x_hat))

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            back = operator.adjoint(p)
            return operator.forward(variance * back) + sigma_y**2 * p, back

        _, back = gmres(product, y - operator.forward(x_hat.detach()), self.iterations)
        return DiracPosterior(mean=x_hat.detach() + covariance(back))


class Reshaped(Denoiser):
    """A denoiser that works in another shape of the event."""

    def __init__(self, denoiser: Denoiser, *shape: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shape = shape

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Denoises in the inner denoiser's shape."""
        mean = self.denoiser(x_t.reshape(len(x_t), *self.shape), t, **kwargs).mean
        return DiracPosterior(mean=mean.reshape(x_t.shape))
