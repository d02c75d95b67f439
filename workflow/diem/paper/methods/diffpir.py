"""Plug-and-play restoration, by azula."""

import math
from typing import TYPE_CHECKING, Any

from diem.components import Count, Positive, option
from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler
    from torch import Tensor


class DiffPIR(Method):
    """Denoising diffusion models for plug-and-play image restoration.

    References:
        | Denoising Diffusion Models for Plug-and-Play Image Restoration (Zhu et al., 2023)
        | https://arxiv.org/abs/2305.08995
    """

    name = "diffpir"
    title = "DiffPIR"

    lmbda: Positive = option(
        8.0, "the regularization strength", paper="8.0 in the authors' benchmark"
    )
    iterations: Count = option(
        5, "solver iterations, which need no product with the network", paper="5"
    )

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds DDIM on azula's denoiser of vectors: it solves for these alone."""
        from azula.guidance import DiffPIRDenoiser
        from azula.sample import DDIMSampler

        from diem.paper.methods._azula import Reshaped

        operator, y, sigma_y = problem
        shape = operator.event_shape

        def forward(x: "Tensor") -> "Tensor":
            return operator.forward(x.reshape(-1, *shape)).flatten(1)

        posterior = DiffPIRDenoiser(
            Reshaped(denoiser, *shape),
            y.flatten(1),
            forward,
            sigma_y**2,
            lmbda=self.lmbda,
            iterations=self.iterations,
        )
        return DDIMSampler(Reshaped(posterior, math.prod(shape)), eta=1.0, **grid)
