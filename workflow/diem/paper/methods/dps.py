"""Diffusion posterior sampling, by azula."""

from typing import TYPE_CHECKING, Any

from diem.components import Positive, option
from diem.lazy import torch
from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler
    from torch import Tensor


class DPS(Method):
    """Diffusion posterior sampling.

    References:
        | Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2022)
        | https://arxiv.org/abs/2209.14687
    """

    name = "dps"
    title = "DPS"

    zeta: Positive = option(
        0.5,
        "the guidance strength: the step along the gradient of the residual's norm",
        paper="0.5 in the authors' benchmark",
    )

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds azula's sampler, whose guidance of an image does not depend on its batch."""
        from azula.guidance import DPSSampler

        operator, y, _ = problem

        def distance(x: "Tensor") -> "Tensor":
            return torch.linalg.vector_norm((y - operator.forward(x)).flatten(1), dim=1).sum()

        # azula takes the gradient of one norm over the whole batch, whose images would weaken each
        # other's guidance. The sum of each image's norm is a positive number, and its own norm.
        return DPSSampler(denoiser, y.new_zeros(()), distance, self.zeta, **grid)
