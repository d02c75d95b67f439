"""What extends azula's classes for the methods, apart from their declarations: it imports torch."""

from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import PGDMSampler
from torch import Tensor

from diem.diffusion.solvers import conjugate_gradient
from diem.paper.methods.base import Problem

__all__ = ["NoisyPGDMSampler", "Reshaped"]


class NoisyPGDMSampler(PGDMSampler):
    r"""azula's PGDM with the publication's pseudo-inverse for noisy observations.

    .. math:: A^\dagger = r_t^2 A^\top (r_t^2 A A^\top + \sigma_y^2 I)^{-1}, \qquad
        r_t^2 = \frac{\sigma_t^2}{\alpha_t^2 + \sigma_t^2}
    """

    def __init__(self, denoiser: Denoiser, problem: Problem, **options: Any) -> None:
        super().__init__(denoiser, problem.y, problem.operator.forward, self.inverse, **options)
        self.problem = problem

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """Steps from one time to the next, and takes note of the noise of the first."""
        alpha_t, sigma_t = self.denoiser.schedule(t)
        self.variance = sigma_t**2 / (alpha_t**2 + sigma_t**2)
        return super().step(x_t, t, s, **kwargs)

    def inverse(self, y: Tensor) -> Tensor:
        r"""Returns :math:`A^\dagger y` at the time of the last step."""
        operator, _, sigma_y = self.problem

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            back = operator.adjoint(p)
            return self.variance * operator.forward(back) + sigma_y**2 * p, back

        # No network is asked: the iterations are nearly free.
        _, x = conjugate_gradient(product, y, iterations=64, tolerance=1e-4)
        return self.variance * x


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
