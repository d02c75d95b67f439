"""Tweedie moment projection, by azula."""

from typing import TYPE_CHECKING, Any

from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler


class TMPD(Method):
    """Tweedie moment projected diffusions.

    References:
        | Tweedie Moment Projected Diffusions for Inverse Problems (Boys et al., 2023)
        | https://arxiv.org/abs/2310.06721
    """

    name = "tmpd"
    title = "TMPD"

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds DDIM on azula's denoiser."""
        from azula.guidance import TMPDenoiser
        from azula.sample import DDIMSampler

        operator, y, sigma_y = problem
        return DDIMSampler(TMPDenoiser(denoiser, y, operator.forward, sigma_y**2), eta=1.0, **grid)
