"""Tweedie moment projection."""

from typing import TYPE_CHECKING, Any

from diem.components import Count, option
from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler


class TMPD(Method):
    """Tweedie moment projected diffusions, by the row sums of Tweedie's covariance.

    References:
        | Tweedie Moment Projected Diffusions for Inverse Problems (Boys et al., 2023)
        | https://arxiv.org/abs/2310.06721
    """

    name = "tmpd"
    title = "TMPD"

    iterations: Count = option(
        5,
        "GMRES iterations, which need no product with the network",
        paper="5 in the authors' benchmark",
    )

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds DDIM on the projected denoiser."""
        from azula.sample import DDIMSampler

        from diem.paper.methods._azula import ProjectedDenoiser

        return DDIMSampler(ProjectedDenoiser(denoiser, problem, self.iterations), eta=1.0, **grid)
