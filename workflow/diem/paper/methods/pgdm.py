"""Pseudo-inverse guidance, by azula."""

from typing import TYPE_CHECKING, Any

from diem.components import Count, option
from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler


class PGDM(Method):
    """Pseudo-inverse guided diffusion, with the pseudo-inverse for noisy observations.

    References:
        | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023)
        | https://openreview.net/forum?id=9_gsMA8MRKQ
    """

    name = "pgdm"
    title = "PGDM"

    iterations: Count = option(
        5,
        "GMRES iterations, which need no product with the network",
        paper="5 in the authors' benchmark",
    )

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds azula's sampler with the pseudo-inverse."""
        from diem.paper.methods._azula import NoisyPGDMSampler

        return NoisyPGDMSampler(denoiser, problem, self.iterations, eta=1.0, **grid)
